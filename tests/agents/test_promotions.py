"""Agents replace the rewards of promoted children by their comparable rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from nases_agents import elite_reinforce, local_search, model_assisted, regularized_evolution
from nases_agents.policy import EmbeddingPolicy

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Status
from nases_env.search import SearchLoop
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture
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


def test_local_search_leaves_an_incumbent_whose_promotion_disappointed() -> None:
    agent = make(local_search, "LocalSearch", num_init=3)
    assert isinstance(agent, local_search.LocalSearch)
    proposals = promote_second(agent)
    assert agent.incumbent == proposals[1].architecture
    (neighbor,) = agent.ask()
    evaluation = ToyRungs().at_fidelity(1).evaluate(neighbor.architecture, 0)
    agent.tell(neighbor, replace(evaluation, valid_accuracy=0.2, fidelity=1))  # more than 0.05, less than 0.5
    assert agent.incumbent == neighbor.architecture


@pytest.mark.parametrize(
    ("module", "name"),
    [(regularized_evolution, "RegularizedEvolution"), (elite_reinforce, "EliteReinforce"), (local_search, "LocalSearch")],
)
def test_repeat_of_a_promoted_child_has_its_comparable_reward(module: Any, name: str) -> None:
    agent = make(module, name)
    repeated = promote_second(agent)[1]
    evaluation = ToyRungs().at_fidelity(1).evaluate(repeated.architecture, 0)
    agent.tell(repeated, replace(evaluation, valid_accuracy=FIRST[1], fidelity=1))
    if isinstance(agent, regularized_evolution.RegularizedEvolution):
        assert [reward for reward, _ in agent.population] == [0.1, COMPARABLE, 0.3, COMPARABLE]
    elif isinstance(agent, local_search.LocalSearch):
        assert agent.rewards[repeated.architecture.key] == COMPARABLE
    else:
        assert isinstance(agent, elite_reinforce.EliteReinforce)
        assert [transition.reward for transition in agent.history] == [0.1, COMPARABLE, 0.3, COMPARABLE]


@pytest.mark.parametrize(("module", "name"), [(elite_reinforce, "EliteReinforce"), (model_assisted, "ModelAssisted")])
def test_elites_are_ranked_by_comparable_rewards(module: Any, name: str) -> None:
    agent = make(module, name)
    assert isinstance(agent, EmbeddingPolicy)
    promote_second(agent)
    assert [transition.reward for transition in agent.history] == [0.1, COMPARABLE, 0.3]
    assert [transition.reward for transition in agent.ranking] == [0.3, 0.1, COMPARABLE]


def test_model_is_fitted_to_both_rungs_of_a_promoted_child(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(model_assisted, "ModelAssisted")
    assert isinstance(agent, model_assisted.ModelAssisted)
    proposals = promote_second(agent)
    fitted: list[Any] = []
    monkeypatch.setattr(
        agent.model.process, "fit", lambda decisions, targets, rungs: fitted.append((decisions, targets, rungs))
    )
    agent.model.fit()
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
            env = toy_env(rungs=rungs, noise=1.0, scale=0.5)
            args = module.Args(budget=40, seed=seed)
            search = SearchLoop(env, 40, reduction_factor=3)
            search.run(getattr(module, name)(env, args), args.ask_batch_size)
            assert search.best is not None
            assert isinstance(env.evaluator, ToyRungs)
            qualities.append(env.evaluator.quality(search.best.architecture))
        gains.append(qualities[0] - qualities[1])
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / np.sqrt(len(gains))


@dataclass(frozen=True)
class MisleadingRungs(ToyRungs):
    """One child is by far the best at the first rung and by far the worst at the second one."""

    rungs: tuple[int, ...] = (1, 3)
    misleading: str = ""

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        reward = self.quality(architecture)
        if architecture.key == self.misleading:
            reward = 0.0 if self.fidelity == 3 else 1.0
        return Evaluation(architecture.key, seed, Status.OK, reward, num_epochs=self.fidelity or 3)


class IgnoresPromotions(regularized_evolution.RegularizedEvolution):
    tell_promoted = Agent.tell_promoted


def num_children_near_the_misleading_one(agent_type: type[regularized_evolution.RegularizedEvolution]) -> int:
    """Search, and count the children that differ in one decision from the misleading one, the last random child."""
    args = regularized_evolution.Args(budget=40, population_size=20, sample_size=20)
    misleading = agent_type(toy_env(), args).ask(args.population_size)[-1].architecture
    env = NASESEnv(MisleadingRungs(misleading=misleading.key))
    env.reset(seed=0)
    search = SearchLoop(env, args.budget)
    search.run(agent_type(env, args))
    neighbors = {neighbor.key for neighbor in local_search.neighbors_of(env.search_space, misleading)}
    return sum(trial.architecture.key in neighbors for trial in search.trials if not trial.is_promotion)


def test_promotion_corrects_the_search_after_a_misleading_first_rung() -> None:
    misled = num_children_near_the_misleading_one(IgnoresPromotions)
    corrected = num_children_near_the_misleading_one(regularized_evolution.RegularizedEvolution)
    assert misled >= 8
    assert corrected <= 1
