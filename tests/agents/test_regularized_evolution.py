"""Regularised evolution mutates the best of a few young children, told in any order, and beats random search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nases_agents.random_search import RandomSearch
from nases_agents.regularized_evolution import Args, RegularizedEvolution

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs
from nases_env.search_spaces import Architecture
from tests.agents.driving import analytic, distance, drive, evaluation


def reward(env: NASESEnv) -> Callable[[Architecture], float]:
    return lambda architecture: env.evaluate(architecture).reward


def test_it_beats_random_search_at_the_same_budget() -> None:
    env = analytic()
    seeds = range(5)
    evolved = [max(drive(RegularizedEvolution(env, Args(seed=seed)), reward(env), 300)[1]) for seed in seeds]
    random = [max(drive(RandomSearch(env, SearchArgs(seed=seed)), reward(env), 300)[1]) for seed in seeds]
    assert np.mean(evolved) > np.mean(random) + 0.15


def test_a_child_is_one_decision_from_one_of_the_youngest_in_the_order_of_telling() -> None:
    env = analytic()
    agent = RegularizedEvolution(env, Args(population_size=4, sample_size=4))
    rng = np.random.default_rng(0)
    flying, told = agent.ask(7), []
    for number in range(60):
        proposal = flying.pop(int(rng.integers(len(flying))))
        told.append(proposal.architecture)
        agent.tell(proposal, evaluation(proposal.architecture, 1.0 if number == 0 else 0.5))
        (new,) = agent.ask()
        flying.append(new)
        distances = [distance(new.architecture, parent) for parent in told[-4:]]
        assert min(distances) == 1
        assert new.architecture.key not in {parent.key for parent in told[-4:]}
    assert all(distance(proposal.architecture, told[0]) > 1 for proposal in flying)  # the best of all has died of old age


def test_the_first_of_the_population_are_drawn_at_random() -> None:
    proposals, _ = drive(RegularizedEvolution(analytic(), Args(population_size=6)), lambda _: 0.5, 6)
    assert min(distance(a.architecture, b.architecture) for a in proposals for b in proposals if a is not b) > 10


def test_the_parent_is_the_best_of_the_sample() -> None:
    agent = RegularizedEvolution(analytic(), Args(population_size=2, sample_size=2))
    best, other = agent.ask(2)
    agent.tell(best, evaluation(best.architecture, 0.9))
    agent.tell(other, evaluation(other.architecture, 0.1))
    children = agent.ask(400)
    of_best = sum(distance(child.architecture, best.architecture) == 1 for child in children)
    of_other = sum(distance(child.architecture, other.architecture) == 1 for child in children)
    assert of_best + of_other == 400
    assert of_best / 400 == pytest.approx(1 - 0.5**2, abs=0.09)  # four standard errors; drawn with replacement


def test_it_asks_on_while_nothing_was_told() -> None:
    proposals = RegularizedEvolution(analytic(), Args(population_size=2, sample_size=1)).ask(10)
    assert len({proposal.architecture.key for proposal in proposals}) == 10


def test_the_seed_decides() -> None:
    env = analytic()
    runs = [drive(RegularizedEvolution(env, Args(seed=seed)), reward(env), 30, in_flight=3)[0] for seed in (0, 0, 1)]
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
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)
