"""Regularized evolution mutates the best of a sample of its population and beats random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nases_agents.random_search import RandomSearch
from nases_agents.regularized_evolution import Args, RegularizedEvolution

from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop
from tests.agents.driving import drive, drive_synthetic, evaluation, hamming_distance, synthetic_env
from tests.search.limited import limited_env


def test_beats_random_search_at_the_same_budget() -> None:
    env = synthetic_env()
    seeds = range(5)
    evolved = [max(drive_synthetic(RegularizedEvolution(env, Args(seed=seed)), env, 300)[1]) for seed in seeds]
    random = [max(drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 300)[1]) for seed in seeds]
    assert np.mean(evolved) > np.mean(random) + 0.15


def test_children_are_one_decision_away_from_a_member_of_the_population() -> None:
    env = synthetic_env()
    agent = RegularizedEvolution(env, Args(population_size=4, sample_size=4))
    rng = np.random.default_rng(0)
    pending, evaluated = agent.ask(7), []
    for number in range(60):
        proposal = pending.pop(int(rng.integers(len(pending))))
        evaluated.append(proposal.architecture)
        agent.tell(proposal, evaluation(proposal.architecture, 1.0 if number == 0 else 0.5))
        (new,) = agent.ask()
        pending.append(new)
        distances = [hamming_distance(new.architecture, parent) for parent in evaluated[-4:]]
        assert min(distances) == 1
        assert new.architecture.key not in {parent.key for parent in evaluated[-4:]}
    # The first child had the highest reward, but is no longer in the population.
    assert all(hamming_distance(proposal.architecture, evaluated[0]) > 1 for proposal in pending)


def test_initial_population_is_random() -> None:
    proposals, _ = drive(RegularizedEvolution(synthetic_env(), Args(population_size=6)), lambda _: 0.5, 6)
    assert min(hamming_distance(a.architecture, b.architecture) for a in proposals for b in proposals if a is not b) > 10


def test_infeasible_children_do_not_count_toward_the_initial_population() -> None:
    env = limited_env()
    loop = SearchLoop(env, 8)
    loop.run(RegularizedEvolution(env, Args(population_size=7)))
    *initial, mutant = [trial.architecture for trial in loop.trials]
    assert loop.num_infeasible > 8
    assert min(hamming_distance(a, b) for a in initial for b in initial if a is not b) > 10
    assert min(hamming_distance(parent, mutant) for parent in initial) == 1


def test_parent_is_the_best_of_the_sample() -> None:
    agent = RegularizedEvolution(synthetic_env(), Args(population_size=2, sample_size=2))
    best, other = agent.ask(2)
    agent.tell(best, evaluation(best.architecture, 0.9))
    agent.tell(other, evaluation(other.architecture, 0.1))
    children = agent.ask(400)
    of_best = sum(hamming_distance(child.architecture, best.architecture) == 1 for child in children)
    of_other = sum(hamming_distance(child.architecture, other.architecture) == 1 for child in children)
    assert of_best + of_other == 400
    assert of_best / 400 == pytest.approx(1 - 0.5**2, abs=0.09)  # four standard errors; sampling with replacement


def test_asks_before_any_result_arrives() -> None:
    proposals = RegularizedEvolution(synthetic_env(), Args(population_size=2, sample_size=1)).ask(10)
    assert len({proposal.architecture.key for proposal in proposals}) == 10


def test_seed_determines_the_children() -> None:
    env = synthetic_env()
    runs = [drive_synthetic(RegularizedEvolution(env, Args(seed=seed)), env, 30, in_flight=3)[0] for seed in (0, 0, 1)]
    keys = [[proposal.architecture.key for proposal in run] for run in runs]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 0}, "--population-size must be at least 1, not 0"),
        ({"sample_size": 0}, "--sample-size must be at least 1, not 0"),
        ({"population_size": 2}, "--sample-size must be at most --population-size, 2, not 3"),
    ],
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)
