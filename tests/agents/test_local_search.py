"""Local search finds the optimum of a separable reward, restarts at local optima, and never repeats an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from nases_agents.local_search import Args, LocalSearch, neighbors_of

from nases_env.embedding import PretrainSettings, pretrain, save_embedding
from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import derive_seed
from tests.agents.driving import drive_synthetic, evaluation, hamming_distance, synthetic_env


def test_neighbors_are_the_distinct_networks_one_decision_away() -> None:
    space = synthetic_env().search_space
    for seed in range(5):
        architecture = space.sample(np.random.default_rng(seed))
        neighbors = list(neighbors_of(space, architecture))
        changed = {
            space.architecture((*architecture.decisions[:index], choice, *architecture.decisions[index + 1 :])).key
            for index, size in enumerate(space.decision_sizes)
            for choice in range(size)
        }
        assert {neighbor.key for neighbor in neighbors} == changed - {architecture.key}
        assert len(neighbors) == len(changed) - 1
        assert {hamming_distance(neighbor, architecture) for neighbor in neighbors} == {1}


@pytest.mark.parametrize(("improvement", "in_flight"), [("first", 1), ("first", 20), ("best", 1), ("best", 20)])
def test_finds_the_optimum_of_a_separable_reward(improvement: Any, in_flight: int) -> None:
    env = synthetic_env()
    agent = LocalSearch(env, Args(improvement=improvement))
    evaluated, rewards = drive_synthetic(agent, env, 4000, in_flight)
    assert max(rewards) == 1.0
    assert len({proposal.architecture.key for proposal in evaluated}) == 4000


@pytest.mark.parametrize("improvement", ["first", "best"])
def test_infeasible_neighbors_of_two_incumbents_do_not_stop_the_climb(improvement: Any) -> None:
    env = synthetic_env()
    agent = LocalSearch(env, Args(improvement=improvement))
    num_infeasible = 0
    for _ in range(4000):
        (proposal,) = agent.ask()
        child = proposal.architecture
        if sum(child.decisions) % 3 == 0:
            agent.tell_infeasible(proposal)
            num_infeasible += 1
        else:
            agent.tell(proposal, evaluation(child, sum(child.decisions) % 7 / 7))
    assert num_infeasible > 100
    assert not agent.infeasible & agent.neighbors.keys()
    assert agent.num_local_optima > 5


def test_first_moves_immediately_and_best_after_all_neighbors_are_evaluated() -> None:
    env = synthetic_env()
    cases: list[tuple[Any, int]] = [("first", 1), ("best", -1)]
    for improvement, moves_at in cases:
        agent = LocalSearch(env, Args(num_init=1, improvement=improvement))
        (start,) = agent.ask()
        agent.tell(start, evaluation(start.architecture, 0.5))
        neighbors = {neighbor.key for neighbor in neighbors_of(env.search_space, start.architecture)}
        rewards = [0.4, 0.6, *np.linspace(0.41, 0.49, len(neighbors) - 3), 0.7]
        asked: list[Architecture] = []
        while agent.incumbent is start.architecture:
            (proposal,) = agent.ask()
            asked.append(proposal.architecture)
            agent.tell(proposal, evaluation(proposal.architecture, float(rewards[len(asked) - 1])))
        assert {child.key for child in asked} <= neighbors
        assert len(asked) == (2 if improvement == "first" else len(neighbors))
        assert agent.incumbent is asked[moves_at]


def test_restarts_from_a_random_architecture_at_a_local_optimum() -> None:
    env = synthetic_env()
    agent = LocalSearch(env, Args(num_init=1))
    (start,) = agent.ask()
    agent.tell(start, evaluation(start.architecture, 0.9))
    neighbors = {neighbor.key for neighbor in neighbors_of(env.search_space, start.architecture)}
    asked = agent.ask(len(neighbors))
    assert {proposal.architecture.key for proposal in asked} == neighbors
    logged = [agent.tell(proposal, evaluation(proposal.architecture, 0.9)) for proposal in reversed(asked)]  # a plateau
    assert logged == [{}] * (len(neighbors) - 1) + [{"local_search/local_optima": 1}]
    (again,) = agent.ask()
    assert hamming_distance(again.architecture, start.architecture) > 10
    agent.tell(again, evaluation(again.architecture, 0.1))
    (neighbor,) = agent.ask()
    assert hamming_distance(neighbor.architecture, again.architecture) == 1


def test_climb_starts_from_the_best_random_architecture() -> None:
    agent = LocalSearch(synthetic_env(), Args(num_init=5))
    starts = agent.ask(5)
    for proposal, reward in zip(starts, (0.1, 0.3, 0.9, 0.2, 0.4), strict=True):
        agent.tell(proposal, evaluation(proposal.architecture, reward))
    assert {hamming_distance(proposal.architecture, starts[2].architecture) for proposal in agent.ask(20)} == {1}


def test_asks_for_restart_candidates_while_a_move_waits_for_children_in_flight() -> None:
    env = synthetic_env()
    agent = LocalSearch(env, Args(num_init=1))
    (start,) = agent.ask()
    agent.tell(start, evaluation(start.architecture, 0.5))
    num_neighbors = len(agent.neighbors)
    *neighbors, spare = agent.ask(num_neighbors + 1)
    assert hamming_distance(spare.architecture, start.architecture) > 10
    agent.tell(spare, evaluation(spare.architecture, 0.9))
    assert agent.incumbent is start.architecture
    for proposal in neighbors:
        agent.tell(proposal, evaluation(proposal.architecture, 0.4))
    assert agent.incumbent is spare.architecture


@pytest.mark.parametrize("improvement", ["first", "best"])
def test_neighborhood_whose_other_neighbors_are_infeasible_is_a_local_optimum(improvement: Any) -> None:
    env = synthetic_env()
    agent = LocalSearch(env, Args(num_init=1, improvement=improvement))
    (start,) = agent.ask()
    agent.tell(start, evaluation(start.architecture, 0.9))
    first, *others = agent.ask(len(agent.neighbors))
    agent.tell(first, evaluation(first.architecture, 0.1))
    for proposal in others:
        assert agent.num_local_optima == 0
        agent.tell_infeasible(proposal)
    assert agent.num_local_optima == 1
    (again,) = agent.ask()
    assert hamming_distance(again.architecture, start.architecture) > 10


def test_order_of_tell_does_not_matter_once_all_neighbors_are_evaluated() -> None:
    env = synthetic_env()
    incumbents = []
    for order in (1, -1):
        agent = LocalSearch(env, Args(num_init=4, improvement="best"))
        for _ in range(3):
            count = sum(key not in agent.proposed for key in agent.neighbors) if agent.incumbent else 4
            for proposal in agent.ask(count)[::order]:
                tie_breaker = derive_seed(0, proposal.architecture.key) % 1000 * 1e-6
                reward = env.evaluate(proposal.architecture).reward + tie_breaker
                agent.tell(proposal, evaluation(proposal.architecture, reward))
        incumbents.append(agent.incumbent)
    assert incumbents[0] == incumbents[1]
    assert incumbents[0] is not None


class Tiny(SearchSpace):
    """A search space with six networks and two local optima."""

    name = "tiny"
    decision_sizes = (2, 3)

    def query(self, architecture: Architecture) -> float:
        optima: dict[tuple[int, ...], float] = {(0, 0): 0.8, (1, 2): 0.9}
        return optima.get(architecture.decisions, 0.1)


@pytest.fixture
def tiny(tmp_path: Path) -> NASESEnv:
    embedding, _ = pretrain(Tiny(), PretrainSettings(hidden_size=4, num_steps=1, num_calibration_rounds=0), seed=0)
    save_embedding(embedding, tmp_path / "tiny.safetensors")
    env = gym.make("NASES-Query-v0", search_space=Tiny(), embedding=str(tmp_path / "tiny.safetensors"))
    env.reset(seed=0)
    return cast(NASESEnv, env.unwrapped)


@pytest.mark.parametrize("num_init", [1, 10])
def test_evaluates_the_whole_space_before_repeating(tiny: NASESEnv, num_init: int) -> None:
    agent = LocalSearch(tiny, Args(num_init=num_init))
    evaluated, rewards = drive_synthetic(agent, tiny, 20)
    assert len({proposal.architecture.key for proposal in evaluated[:6]}) == 6
    assert max(rewards) == 0.9


def test_seed_determines_the_children() -> None:
    env = synthetic_env()
    runs = [drive_synthetic(LocalSearch(env, Args(seed=seed)), env, 60, in_flight=3)[0] for seed in (0, 0, 1)]
    keys = [[proposal.architecture.key for proposal in run] for run in runs]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_options_out_of_range_are_input_errors() -> None:
    with pytest.raises(InputError, match="--num-init must be at least 1, not 0"):
        Args(num_init=0)
