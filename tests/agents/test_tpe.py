"""TPE beats random search, learns from infeasible proposals, and evaluates no architecture twice."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
from nases_agents.optuna_study import MAX_RESAMPLES
from nases_agents.random_search import RandomSearch
from nases_agents.tpe import TPE, Args, main

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search_spaces import Architecture, SearchSpace
from tests.agents.driving import drive, drive_synthetic, evaluation, small_synthetic_env, synthetic_env
from tests.search.limited import limited_env


class TwelveDecisions(SearchSpace):
    """A search space in which TPE is three times as fast as in enas_micro."""

    name = "twelve-decisions"
    decision_sizes = (5,) * 12

    def query(self, architecture: Architecture) -> float:
        return 0.0


def twelve_decisions_env() -> NASESEnv:
    env = make_env(SearchArgs(env_id="NASES-Query-v0", search_space=f"{__name__}:TwelveDecisions"))
    env.reset(seed=0)
    return env


def test_beats_random_search_at_the_same_budget() -> None:
    env = small_synthetic_env()
    found = [max(drive_synthetic(TPE(env, Args(seed=seed)), env, 100)[1]) for seed in range(4)]
    random = [max(drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 100)[1]) for seed in range(4)]
    assert np.mean(found) > np.mean(random) + 0.1


@pytest.mark.parametrize("multivariate", [True, False])
def test_learns_the_best_choice_of_a_decision(multivariate: bool) -> None:
    """The reward is known: it depends on two decisions only."""
    env = twelve_decisions_env()
    agent = TPE(env, Args(multivariate=multivariate))

    def reward(architecture: Architecture) -> float:
        return 0.5 * (architecture.decisions[1] == 2) + 0.5 * (architecture.decisions[3] == 4)

    rewards = drive(agent, reward, 120, in_flight=4)[1]
    assert np.mean(rewards[:10]) < 0.5
    assert np.mean(rewards[-40:]) > 0.65


def test_first_children_are_random() -> None:
    """The number of candidates has no effect on random children."""
    env = synthetic_env()
    agents = [TPE(env, Args(num_init=5)), TPE(env, Args(num_init=5, num_candidates=1))]
    runs = [drive_synthetic(agent, env, 8)[0] for agent in agents]
    keys = [[proposal.architecture.key for proposal in run] for run in runs]
    assert keys[0][:5] == keys[1][:5]
    assert not set(keys[0][5:]) & set(keys[1][5:])


@pytest.mark.parametrize("multivariate", [True, False])
def test_evaluates_no_architecture_twice(multivariate: bool) -> None:
    """Only one decision has an effect, so the good children soon have equal decisions."""
    env = twelve_decisions_env()
    agent = TPE(env, Args(multivariate=multivariate))
    proposals, _ = drive(agent, lambda architecture: float(architecture.decisions[1] == 2), 60, in_flight=8)
    assert len({proposal.architecture.key for proposal in proposals}) == 60


def test_study_learns_the_known_reward_of_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    env = synthetic_env()
    agent = TPE(env, Args())
    first, second = agent.ask(2)
    agent.tell(first, evaluation(first.architecture, 0.7))
    repeats = [first.architecture, second.architecture]
    architecture = env.search_space.architecture
    monkeypatch.setattr(
        env.search_space, "architecture", lambda decisions: repeats.pop(0) if repeats else architecture(decisions)
    )
    (third,) = agent.ask()
    assert third.architecture.key not in {first.architecture.key, second.architecture.key}
    known, pending = agent.study.trials[2:4]
    assert (known.state, known.value) == (optuna.trial.TrialState.COMPLETE, 0.7)
    assert pending.state == optuna.trial.TrialState.FAIL


def test_exhausted_search_space_is_not_sampled_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    env = synthetic_env()
    agent = TPE(env, Args())
    only = env.search_space.sample(np.random.default_rng(0))
    monkeypatch.setattr(env.search_space, "architecture", lambda decisions: only)
    for _ in range(4):
        (proposal,) = agent.ask()
        agent.tell(proposal, evaluation(only, 0.5))
    assert len(agent.study.trials) == 1 + (MAX_RESAMPLES + 1) + 2


def test_infeasible_proposals_are_replaced_and_avoided() -> None:
    env = limited_env()
    loop = SearchLoop(env, 60)
    loop.run(TPE(env, Args()))
    assert len(loop.trials) == 60
    random = SearchLoop(limited_env(), 60)
    random.run(RandomSearch(random.env, SearchArgs()))
    assert 0 < loop.num_infeasible < random.num_infeasible / 2


def test_asks_before_any_result_arrives() -> None:
    proposals = TPE(synthetic_env(), Args(num_init=2)).ask(10)
    assert len({proposal.architecture.key for proposal in proposals}) == 10


def test_seed_determines_the_children() -> None:
    env = synthetic_env()
    runs = [drive_synthetic(TPE(env, Args(seed=seed)), env, 30, in_flight=3)[0] for seed in (0, 0, 1)]
    keys = [[proposal.architecture.key for proposal in run] for run in runs]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_prints_and_warns_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    env = synthetic_env()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive_synthetic(TPE(env, Args(num_init=3)), env, 5)
    assert capfd.readouterr() == ("", "")


def test_missing_package_is_an_input_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        InputError, match=r"TPE requires additional packages .*optuna.*: pip install 'nases-env\[baselines\]'"
    ):
        main(Args(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="TPE requires"):
        TPE(synthetic_env(), Args())


@pytest.mark.parametrize("option", ["num_init", "num_candidates"])
def test_options_out_of_range_are_input_errors(option: str) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} must be at least 1, not 0"):
        Args(**{option: 0})  # type: ignore[arg-type]
