"""Promotion to higher rungs, by itself and in a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nases_agents.random_search import RandomSearch

from nases_env.evaluation import Evaluation, Status
from nases_env.search import SearchArgs, SearchLoop
from nases_env.search.agent import Proposal
from nases_env.search.successive_halving import SuccessiveHalving
from nases_env.search_spaces import Architecture
from tests.search.rungs import RUNGS, toy_env
from tests.search.test_loop import RecordingAgent, trajectory_of


def child(number: int) -> Proposal:
    return Proposal(Architecture("x", (number,), str(number)))


def add(halving: SuccessiveHalving, proposal: Proposal, fidelity: int, reward: float, status: Status = Status.OK) -> None:
    key = proposal.architecture.key
    halving.add(proposal, Evaluation(key, 0, status, valid_accuracy=reward, fidelity=fidelity))


def test_best_fraction_is_promoted_highest_rung_first() -> None:
    halving = SuccessiveHalving((1, 3, 9), reduction_factor=2)
    children = [child(number) for number in range(4)]
    add(halving, children[0], 1, 0.1)
    assert halving.promote() is None
    add(halving, children[1], 1, 0.2)
    assert halving.promote() == (children[1], 3)
    assert halving.promote() is None
    add(halving, children[2], 1, 0.3)
    add(halving, children[3], 1, 0.05)
    assert halving.promote() == (children[2], 3)
    add(halving, children[1], 3, 0.5)
    add(halving, children[2], 3, 0.4)
    assert halving.promote() == (children[1], 9)
    assert not halving.has_candidate


def test_failed_children_are_not_promoted_and_repeats_do_not_count() -> None:
    halving = SuccessiveHalving((1, 3), reduction_factor=2)
    failed, good = child(0), child(1)
    add(halving, failed, 1, 0.9, Status.DIVERGED)
    add(halving, failed, 1, 0.9, Status.DIVERGED)
    assert halving.promote() is None
    add(halving, good, 1, 0.1)
    assert halving.promote() == (good, 3)


def test_comparable_rewards_subtract_the_mean_gain() -> None:
    halving = SuccessiveHalving((1, 3, 9), reduction_factor=2)
    first, second, failed = child(0), child(1), child(2)
    assert halving.comparable_rewards() == {}
    for proposal, reward in ((first, 0.3), (second, 0.2), (failed, 0.4)):
        add(halving, proposal, 1, reward)
    add(halving, first, 3, 0.5)
    assert halving.comparable_rewards() == {"0": pytest.approx(0.3)}, "one gain says nothing about the child"
    add(halving, second, 3, 0.6)  # gains 0.2 and 0.4
    assert halving.comparable_rewards() == {"0": pytest.approx(0.2), "1": pytest.approx(0.3)}
    add(halving, second, 9, 0.7)  # gain 0.1
    add(halving, failed, 3, 0.0, Status.DIVERGED)
    expected = {"0": pytest.approx(0.2), "1": pytest.approx(0.3), "2": 0.0}
    assert halving.comparable_rewards() == expected


def test_failed_child_ranks_below_every_measured_one() -> None:
    halving = SuccessiveHalving((1, 3, 9), reduction_factor=2)
    for number, reward in enumerate((0.30, 0.29, 0.28, 0.27)):
        add(halving, child(number), 1, reward)
    for number, reward in enumerate((0.80, 0.78, 0.05)):  # gains 0.5, 0.49 and -0.23, so the last one has a negative reward
        add(halving, child(number), 3, reward)
    add(halving, child(0), 9, 0.0, Status.DIVERGED)
    add(halving, child(3), 3, 0.0, Status.DIVERGED)
    rewards = halving.comparable_rewards()
    assert rewards["0"] == rewards["3"] == rewards["2"] < 0 < rewards["1"]


@given(rewards=st.lists(st.floats(0, 1), max_size=60), reduction_factor=st.integers(2, 5))
def test_number_of_promotions_never_exceeds_the_fraction(rewards: Sequence[float], reduction_factor: int) -> None:
    halving = SuccessiveHalving((1, 2), reduction_factor)
    promoted: list[int] = []
    for number, reward in enumerate(rewards, start=1):
        add(halving, child(number), 1, reward)
        remaining = [other for other in range(1, number + 1) if other not in promoted]
        while (promotion := halving.promote()) is not None:
            (chosen,) = promotion[0].architecture.decisions
            assert chosen == max(remaining, key=lambda other: rewards[other - 1]), "the first of the best ones"
            promoted.append(chosen)
        assert len(promoted) == number // reduction_factor
    assert len(set(promoted)) == len(promoted)


@pytest.mark.parametrize(("num_envs", "ask_batch_size"), [(1, 1), (4, 1), (2, 5)])
def test_search_promotes_children_beyond_the_budget(num_envs: int, ask_batch_size: int) -> None:
    env = toy_env()
    search = SearchLoop(env, 40, num_envs, reduction_factor=4)
    search.run(RandomSearch(env, SearchArgs()), ask_batch_size)
    fidelities = [trial.evaluation.fidelity for trial in search.trials]
    assert [fidelities.count(rung) for rung in RUNGS] == [40, 10, 2]
    assert search.num_children == 40
    assert search.is_complete
    assert [trial.is_promotion for trial in search.trials] == [fidelity != 1 for fidelity in fidelities]
    assert search.best is not None
    assert search.best.evaluation.fidelity == 9
    assert search.best is search.ranking()[0]
    for trial in search.trials:
        assert (
            trial.evaluation
            == env.executor.submit(trial.architecture, trial.evaluation.seed, trial.evaluation.fidelity).result()
        )


def test_trials_do_not_depend_on_the_order_of_completion() -> None:
    assert trajectory_of(toy_env(), None, 1, reduction_factor=3) == trajectory_of(toy_env(), 1, 1, reduction_factor=3)


def test_promotions_are_reported_to_the_agent_with_all_comparable_rewards() -> None:
    reported = []

    class Listening(RecordingAgent):
        def tell_promoted(self, proposal, evaluation, rewards):  # type: ignore[no-untyped-def]
            reported.append((evaluation.fidelity, proposal.architecture.key, dict(rewards)))
            assert proposal.architecture.key in rewards
            assert evaluation.key == proposal.architecture.key
            return {}

    env = toy_env()
    search = SearchLoop(env, 9, reduction_factor=3)
    search.run(Listening(env))
    promotions = [trial for trial in search.trials if trial.is_promotion]
    assert [(trial.evaluation.fidelity, trial.evaluation.key) for trial in promotions] == [entry[:2] for entry in reported]
    assert [entry[0] for entry in reported] == [3, 3, 3, 9]
    assert [len(entry[2]) for entry in reported] == [1, 2, 3, 3]


def test_promotions_follow_the_evaluations_of_a_vector_environment() -> None:
    env = toy_env()
    search = SearchLoop(env, 10, 4, reduction_factor=2)
    rng = np.random.default_rng(0)
    while not search.done:
        children = [env.search_space.sample(rng) for _ in range(4)]
        assert search.evaluate_all(children)[0].fidelity == 1
    fidelities = [trial.evaluation.fidelity for trial in search.trials]
    assert [fidelities.count(rung) for rung in RUNGS] == [10, 5, 2]
    assert search.is_complete


def test_search_without_noise_at_the_last_rung_finds_a_better_child_than_the_lowest_rung_alone() -> None:
    """The noise of the first rung is as large as the differences between children."""
    differences = []
    for seed in range(20):
        qualities = []
        for rungs in (RUNGS, ()):
            env = toy_env(rungs=rungs)
            search = SearchLoop(env, 60, reduction_factor=3)
            search.run(RandomSearch(env, SearchArgs(seed=seed)))
            assert search.best is not None
            qualities.append(env.evaluator.quality(search.best.architecture))  # type: ignore[attr-defined]
        differences.append(qualities[0] - qualities[1])
    assert np.mean(differences) > 3 * np.std(differences, ddof=1) / np.sqrt(len(differences))
