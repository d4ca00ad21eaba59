"""REINFORCE for several objectives proposes good children for each preference, and its policy starts as the simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nases_agents import mo_reinforce
from nases_agents.mo_reinforce import Args, MOReinforce, relative_ranks, scalarize, simplex_point
from nases_agents.policy import PolicySample, log_density
from torch import Tensor

from nases_env.envs import MONasBench201Env
from nases_env.evaluation import Evaluation, Status
from nases_env.search import SearchLoop, load_args
from nases_env.search.run_dir import read_trajectory
from tests.evaluation.latency_table import write_latency_table

POINTS = st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=2, max_size=12)
WEIGHTS = st.tuples(*[st.floats(0.01, 1)] * 3)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv")


def make(table: str, objectives: str = "accuracy,ms_phone", **options: Any) -> MOReinforce:
    env = MONasBench201Env(table=table, objectives=objectives)
    env.reset(seed=0)
    return MOReinforce(env, Args(**options))


def search(agent: MOReinforce, budget: int) -> SearchLoop:
    loop = SearchLoop(agent.env, budget)
    loop.run(agent, 5)
    return loop


def weights_of(sample: PolicySample) -> Tensor:
    return sample.state[6:]


def test_children_follow_their_weights(table: str) -> None:
    agent = make(table)
    search(agent, 80)
    trained = [index for index, transition in enumerate(agent.history) if transition.sample.log_prob is not None]
    first = np.array([float(weights_of(agent.history[index].sample)[0]) for index in trained])
    values = np.stack(agent.values)[trained]
    accurate, fast = values[first > 0.7].mean(axis=0), values[first < 0.3].mean(axis=0)
    assert accurate[0] > fast[0] + 0.1
    assert fast[1] > accurate[1] + 0.1


def test_updates_shift_the_policy_toward_good_children_for_the_weights(table: str) -> None:
    """Two samples with the same state, of which each is good for one end of the simplex."""
    agent = make(table, learning_rate=3e-3, std=0.5)
    ends = torch.eye(2)
    sample = agent.sample(*agent.sample_states(np.zeros(2, np.int64)))
    vector = sample[0].state[:6]

    @torch.no_grad()
    def density(embedding: Tensor, weights: Tensor) -> float:
        mean = agent.controller(torch.cat([vector, weights])[None])
        return float(log_density(embedding, mean, agent.log_std))

    def preference(weights: Tensor) -> float:
        return density(sample[0].embedding, weights) - density(sample[1].embedding, weights)

    pairs = [(sample[i], ends[j], 1.0 if i == j else -1.0) for i in range(2) for j in range(2)]
    batch = [dataclasses.replace(each, state=torch.cat([vector, weights])) for each, weights, _ in pairs]
    assert preference(ends[0]) == preference(ends[1])
    for _ in range(20):
        agent.gradient_step(batch, torch.tensor([advantage for *_, advantage in pairs]))
    assert preference(ends[0]) > preference(ends[1]) + 1


@pytest.mark.parametrize("objectives", ["accuracy,ms_phone", "accuracy,ms_phone,params"])
def test_policy_starts_as_the_simulator_for_all_weights(objectives: str, table: str) -> None:
    agent = make(table, objectives)
    vectors = torch.rand(4, 6)
    weights = torch.rand(4, agent.env.reward_dim)
    outputs = agent.controller(torch.cat([vectors, weights], dim=1))
    torch.testing.assert_close(outputs, agent.env.embedding.simulator(vectors), rtol=0, atol=0)


def test_weights_cover_the_simplex(table: str) -> None:
    agent = make(table, "accuracy,ms_phone,params", learning_starts=1)
    samples = [proposal for proposal in agent.ask(33)[1:] if isinstance(proposal, PolicySample)]
    assert len(agent.proposed) == 33
    weights = torch.stack([weights_of(sample) for sample in samples])
    torch.testing.assert_close(weights.sum(1), torch.ones(32))
    assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert (weights.max(0).values > 0.7).all()


@given(POINTS, WEIGHTS)
def test_a_child_is_better_than_those_that_it_dominates(points: list[tuple[int, ...]], weights: tuple[float, ...]) -> None:
    values = np.array(points, np.float32)
    found = scalarize(relative_ranks(values), torch.tensor(weights)).numpy()
    at_least, better = (values[:, None] >= values).all(2), (values[:, None] > values).any(2)
    dominating, dominated = np.nonzero(at_least & better)
    assert (found[dominating] > found[dominated]).all()
    assert found.max() <= 0


@given(POINTS, WEIGHTS)
def test_units_of_the_objectives_have_no_effect(points: list[tuple[int, ...]], weights: tuple[float, ...]) -> None:
    values = np.array(points, np.float64)
    scaled = np.stack([np.exp(values[:, 0]), values[:, 1] ** 3, 1000 * values[:, 2] - 5], axis=1)
    assert torch.equal(relative_ranks(values), relative_ranks(scaled))


def test_scalarization_of_known_ranks() -> None:
    ranks = relative_ranks(np.array([[0.1, 5.0], [0.9, 5.0], [0.5, 7.0]]))
    assert ranks.flatten().tolist() == pytest.approx([-2 / 3, -0.5, 0, -0.5, -1 / 3, 0])
    assert scalarize(ranks, torch.tensor([0.5, 0.5])).argmax() == 2
    assert scalarize(ranks, torch.tensor([1.0, 0.0])).argmax() == 1
    assert simplex_point(torch.tensor([0.9, 0.2])).tolist() == pytest.approx([0.2, 0.7, 0.1])


def test_children_without_a_result_are_the_worst_for_all_weights(table: str) -> None:
    agent = make(table, learning_starts=4)
    for index, proposal in enumerate(agent.ask(4)):
        failed = Evaluation(proposal.architecture.key, 0, Status.DIVERGED)
        agent.tell(proposal, failed if index == 1 else agent.env.evaluate(proposal.architecture))
    for _ in range(5):
        agent.ask()
        assert agent.ranking[-1] is agent.history[1]


def test_only_the_lowest_rung_counts(table: str) -> None:
    agent = make(table, learning_starts=2)
    proposals = agent.ask(2)
    for proposal in proposals:
        agent.tell(proposal, agent.env.evaluate(proposal.architecture))
    before = list(agent.history)
    promoted = agent.env.evaluate(proposals[0].architecture)
    assert agent.tell_promoted(proposals[0], promoted, {proposals[0].architecture.key: 1.0}) == {}
    assert agent.history == before


def test_resumed_search_equals_an_uninterrupted_one(table: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"env_kwargs": {"table": table}, "learning_starts": 4, "train_freq": 4}
    options |= {"env_id": "NASES-MO-NASBench201-v0", "objectives": "accuracy,ms_phone"}
    mo_reinforce.main(Args(**options, budget=16, run_dir=tmp_path / "whole"))
    mo_reinforce.main(Args(**options, budget=9, run_dir=tmp_path / "cut"))
    mo_reinforce.main(dataclasses.replace(load_args(Args, tmp_path / "cut"), budget=16))
    keys = [[record["key"] for record in read_trajectory(tmp_path / name)] for name in ("whole", "cut")]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 16


def test_defaults_depend_on_the_budget() -> None:
    assert [Args(budget=budget).resolved_learning_starts for budget in (6, 100)] == [3, 10]
    assert Args(learning_starts=7).resolved_learning_starts == 7
