"""Bayesian optimization proposes new architectures and beats random search within few children."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nases_agents.bayesian_optimization import Args, BayesianOptimization
from nases_agents.random_search import RandomSearch

from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search_spaces import Architecture, SearchSpace
from tests.agents.driving import drive, drive_synthetic, evaluation, hamming_distance, small_synthetic_env, synthetic_env
from tests.search.limited import limited_env
from tests.search.rungs import toy_env

FEW: dict[str, Any] = {"num_mutants": 60, "num_random_candidates": 20}


class Small(SearchSpace):
    name = "small"
    decision_sizes = (2, 3)

    def query(self, architecture: Architecture) -> float:
        return sum(architecture.decisions) / 10


def test_beats_random_search_at_the_same_budget() -> None:
    env = small_synthetic_env()
    seeds = range(3)
    optimized = [max(drive_synthetic(BayesianOptimization(env, Args(seed=seed, **FEW)), env, 35, 5)[1]) for seed in seeds]
    random = [max(drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 35)[1]) for seed in seeds]
    assert np.mean(optimized) > np.mean(random) + 0.2


def test_children_are_new_and_reproducible() -> None:
    env = synthetic_env()
    searches = [drive_synthetic(BayesianOptimization(env, Args(seed=1, **FEW)), env, 30, 5, 5)[0] for _ in range(2)]
    first, second = ([proposal.architecture.key for proposal in proposals] for proposals in searches)
    assert first == second
    assert len(set(first)) == 30


def test_first_children_are_random_and_the_next_are_mutants_of_good_ones() -> None:
    env = synthetic_env()
    agent = BayesianOptimization(env, Args(num_init=8, num_elites=1, num_random_candidates=0, extra_mutation_prob=0.0))
    proposals, rewards = drive_synthetic(agent, env, 8)
    assert min(hamming_distance(a.architecture, b.architecture) for a in proposals for b in proposals if a is not b) > 10
    best = proposals[int(np.argmax(rewards))].architecture
    assert [hamming_distance(best, proposal.architecture) for proposal in agent.ask(5)] == [1] * 5


def test_model_knows_the_children_in_flight() -> None:
    env = synthetic_env()
    agent = BayesianOptimization(env, Args(num_init=4, **FEW))
    drive_synthetic(agent, env, 10)
    proposals = agent.ask(3)
    assert agent.pending == [proposal.architecture for proposal in proposals]
    agent.tell(proposals[1], evaluation(proposals[1].architecture, 0.5))
    assert agent.pending == [proposals[0].architecture, proposals[2].architecture]


def test_promotions_are_observations_at_their_rung() -> None:
    env = toy_env()
    agent = BayesianOptimization(env, Args(num_init=4, **FEW))
    proposals, _ = drive(agent, lambda architecture: sum(architecture.decisions) / 1000, 6)
    promoted = replace(evaluation(proposals[2].architecture, 0.9), fidelity=3)
    agent.tell_promoted(proposals[2], promoted, {promoted.key: 0.7})
    agent.ask(1)
    assert agent.model.process.rungs is not None
    assert agent.model.process.rungs.tolist() == [0.0] * 6 + [1.0]


def test_search_space_is_exhausted_with_repeats() -> None:
    args = Args(env_id="NASES-Query-v0", search_space=f"{__name__}:Small", num_init=2)
    env = make_env(args)
    env.reset(seed=0)
    loop = SearchLoop(env, 10)
    loop.run(BayesianOptimization(env, args))
    assert len({trial.architecture.key for trial in loop.trials[:6]}) == 6
    assert len(loop.trials) == 10


def test_infeasible_children_are_not_proposed() -> None:
    env = limited_env()
    loop = SearchLoop(env, 16)
    agent = BayesianOptimization(env, Args(num_init=5, **FEW))
    loop.run(agent)
    assert loop.num_infeasible == 0
    assert not agent.pending
    assert len(agent.model.children) == 16


@pytest.mark.parametrize("options", [{"num_init": 1}, {"num_elites": 0}, {"extra_mutation_prob": 1.5}])
def test_invalid_options_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must be"):
        Args(**options)
