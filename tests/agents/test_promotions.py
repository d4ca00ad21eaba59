"""Agents replace the rewards of promoted children by their comparable rewards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nases_agents import local_search, model_assisted, regularized_evolution, reinforce

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchLoop
from nases_env.search.agent import Agent, Proposal
from tests.search.rungs import ToyRungs, toy_env

FIRST = (0.1, 0.5, 0.3)  # rewards at the first rung
COMPARABLE = 0.05  # of the second child, after its promotion


def make(module: Any, class_name: str, **options: Any) -> Agent:
    args = module.Args(budget=60, **options)
    agent: Agent = getattr(module, class_name)(toy_env(), args)
    return agent


def promote_second(agent: Agent) -> list[Proposal]:
    """Report three children, then the promotion of the second one."""
    proposals = agent.ask(3)
    evaluations = []
    for proposal, reward in zip(proposals, FIRST, strict=True):
        evaluation = ToyRungs().at_fidelity(1).evaluate(proposal.architecture, 0)
        evaluations.append(replace(evaluation, valid_accuracy=reward, fidelity=1))
        agent.tell(proposal, evaluations[-1])
    promoted: Evaluation = replace(evaluations[1], valid_accuracy=0.8, fidelity=3)
    agent.tell_promoted(proposals[1], promoted, {proposals[1].architecture.key: COMPARABLE})
    return proposals


def test_evolution_selects_parents_by_comparable_rewards() -> None:
    agent = make(regularized_evolution, "RegularizedEvolution")
    assert isinstance(agent, regularized_evolution.RegularizedEvolution)
    proposals = promote_second(agent)
    expected = [(0.1, proposals[0]), (COMPARABLE, proposals[1]), (0.3, proposals[2])]
    assert list(agent.population) == [(reward, proposal.architecture) for reward, proposal in expected]


def test_local_search_compares_comparable_rewards() -> None:
    agent = make(local_search, "LocalSearch", num_init=5)
    assert isinstance(agent, local_search.LocalSearch)
    proposals = promote_second(agent)
    assert [agent.rewards[proposal.architecture.key] for proposal in proposals] == [0.1, COMPARABLE, 0.3]


@pytest.mark.parametrize(("module", "name"), [(reinforce, "Reinforce"), (model_assisted, "ModelAssisted")])
def test_elites_are_ranked_by_comparable_rewards(module: Any, name: str) -> None:
    agent = make(module, name)
    assert isinstance(agent, reinforce.EmbeddingPolicy)
    promote_second(agent)
    assert [transition.reward for transition in agent.history] == [0.1, COMPARABLE, 0.3]
    assert [transition.reward for transition in agent.ranking] == [0.3, 0.1, COMPARABLE]


def test_model_is_fitted_to_both_rungs_of_a_promoted_child(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(model_assisted, "ModelAssisted")
    assert isinstance(agent, model_assisted.ModelAssisted)
    proposals = promote_second(agent)
    fitted: list[Any] = []
    monkeypatch.setattr(agent.model, "fit", lambda decisions, targets, rungs: fitted.append((decisions, targets, rungs)))
    agent._fit()
    ((decisions, targets, rungs),) = fitted
    assert rungs == [0, 0, 0, 1]
    assert np.array_equal(decisions[3], proposals[1].architecture.decisions)
    assert np.argsort(targets.numpy()).tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize(
    ("module", "name"), [(regularized_evolution, "RegularizedEvolution"), (local_search, "LocalSearch")]
)
def test_agents_find_better_children_with_rungs(module: Any, name: str) -> None:
    """The noise of the first rung is larger than the differences between children."""
    gains = []
    for seed in range(8):
        qualities = []
        for rungs in ((1, 3, 9), ()):
            env = toy_env(rungs=rungs, noise=1.0)
            args = module.Args(budget=40, seed=seed)
            search = SearchLoop(env, 40, reduction_factor=3)
            search.run(getattr(module, name)(env, args), args.ask_batch_size)
            assert search.best is not None
            assert isinstance(env.evaluator, ToyRungs)
            qualities.append(env.evaluator.quality(search.best.architecture))
        gains.append(qualities[0] - qualities[1])
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / np.sqrt(len(gains))


def test_shaped_rewards_are_refused_with_rungs() -> None:
    with pytest.raises(InputError, match="--reward-shaping applies to one rung only"):
        reinforce.Args(rungs=(1, 3), reward_shaping="generalization-gap")
