"""The first children are large where sizes are known, and the model learns from few rewards whether size matters."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from nases_agents import bayesian_optimization, model_assisted
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.gaussian_process import MAX_SIZE_SCORE, MIN_SELECTION, TREND_SLOPE, SizeScores
from nases_agents.model_assisted import ModelAssisted
from nases_agents.reward_model import RewardModel
from scipy.stats import norm

from nases_env.envs import NASESEnv
from nases_env.evaluation import OperatorShareEvaluator
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.agents.driving import drive, evaluation, small_synthetic_env, synthetic_env
from tests.search.limited import limited_env

SPACE = NasBench201()

both_agents = pytest.mark.parametrize(
    ("module", "name"), [(bayesian_optimization, "BayesianOptimization"), (model_assisted, "ModelAssisted")]
)


def samples(num: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return list({child.key: child for child in (SPACE.sample(rng) for _ in range(num))}.values())


def size(architecture: Architecture) -> float:
    value = SPACE.size(architecture)
    assert value is not None
    return value


def always(architecture: Architecture) -> bool:
    return True


def test_first_children_are_among_the_largest_except_for_every_fourth() -> None:
    children = samples(300)
    model = RewardModel(SPACE)
    chosen = model.choose_first(children, 9, np.random.default_rng(0), always)
    assert len(set(chosen)) == 9
    for number in (1, 5):
        assert chosen[number] == next(index for index in range(9) if index not in chosen[:number])
    threshold = np.quantile([size(child) for child in children], 0.94)
    assert all(size(children[index]) >= threshold for number, index in enumerate(chosen) if number % 4 != 1)
    assert chosen != model.choose_first(children, 9, np.random.default_rng(1), always)


def test_screening_without_sizes_or_with_few_samples_takes_what_there_is() -> None:
    class Widths(SearchSpace):
        name = "widths"
        decision_sizes = (4, 4)

    space = Widths()
    children = [space.architecture([index, 0]) for index in range(4)]
    model = RewardModel(space)
    assert model.choose_first(children, 3, np.random.default_rng(0), always) == [0, 1, 2]
    assert model.choose_first([], 3, np.random.default_rng(0), always) == []
    assert len(RewardModel(SPACE).choose_first(samples(2), 3, np.random.default_rng(0), always)) == 2


def test_size_scores_are_limited_normal_quantiles() -> None:
    scores = SizeScores(SPACE, SPACE.size)
    assert scores.are_known
    values = scores(torch.tensor([child.decisions for child in samples(2000)]))
    assert float(values.mean()) == pytest.approx(0, abs=0.1)
    assert float((values < 1).double().mean()) == pytest.approx(norm.cdf(1), abs=0.05)
    assert float(values.abs().max()) == MAX_SIZE_SCORE
    largest = SPACE.from_cell(("nor_conv_3x3",) * 6)
    assert scores(torch.tensor([largest.decisions])).tolist() == [[MAX_SIZE_SCORE]]
    space = synthetic_env().search_space
    assert not SizeScores(space, space.size).are_known


def fitted(sign: int, num: int) -> RewardModel:
    """Return a model of rewards that rise or fall with the size."""
    model = RewardModel(SPACE)
    for child in samples(num, seed=1):
        model.add(child, sign * size(child) / 100)
    model.fit()
    return model


@pytest.mark.parametrize("num", [8, 40])
def test_model_learns_from_few_rewards_whether_size_matters(num: int) -> None:
    candidates = samples(200, seed=2)
    sizes = [size(child) for child in candidates]
    for sign in (1, -1):
        mean = fitted(sign, num).posterior(candidates, []).mean.numpy()
        assert sign * np.corrcoef(mean, sizes)[0, 1] > 0.6


def test_trend_is_the_prior_of_the_first_rewards_and_ends_with_more() -> None:
    model = RewardModel(SPACE)
    for child in samples(4, seed=3):
        model.add(child, 0.5)  # equal rewards: only the prior speaks
    model.fit()
    small, large = (SPACE.from_cell((name,) * 6) for name in ("skip_connect", "nor_conv_3x3"))
    means = model.posterior([small, large], []).mean
    scores = model.process.trend_scores
    assert scores is not None
    difference = float(scores(torch.tensor([large.decisions])) - scores(torch.tensor([small.decisions])))
    assert 0 < float(means[1] - means[0]) <= TREND_SLOPE * difference + 1e-9
    assert fitted(1, MIN_SELECTION).process.kernel.trend_variance == 0


def test_ranking_is_best_first() -> None:
    model = RewardModel(SPACE)
    children = samples(3)
    for child, reward in zip(children, (0.2, 0.9, 0.5), strict=True):
        model.add(child, reward)
    assert model.ranking() == [children[1], children[2], children[0]]


@both_agents
def test_agents_begin_with_large_children_and_leave_them_where_small_ones_are_better(module: Any, name: str) -> None:
    env = small_synthetic_env()
    evaluator = OperatorShareEvaluator("nasbench201", "avg_pool_3x3")
    args = module.Args(budget=30, ask_batch_size=5)
    first = [size(proposal.architecture) for proposal in getattr(module, name)(env, args).ask(5)]
    assert min(first[:1] + first[2:]) > np.quantile([size(child) for child in samples(300)], 0.85)
    agent = getattr(module, name)(env, args)
    proposals, rewards = drive(agent, lambda child: evaluator.evaluate(child, 0).reward, 30, 5, batch_size=5)
    assert np.mean([size(proposal.architecture) for proposal in proposals[-10:]]) < 0.7 * np.mean(first)
    assert max(rewards) > 0.8


@both_agents
def test_model_is_used_as_soon_as_three_results_are_known(module: Any, name: str) -> None:
    env = small_synthetic_env()
    agent = getattr(module, name)(env, module.Args(num_envs=4))
    first = [agent.ask(1)[0] for _ in range(4)]
    sizes = [size(proposal.architecture) for proposal in first]
    assert min(sizes[:1] + sizes[2:]) > np.quantile([size(child) for child in samples(300)], 0.85)
    for num_results, proposal in enumerate(first[:3], start=1):
        agent.tell(proposal, evaluation(proposal.architecture, 0.1 * num_results))
        agent.ask(1)
        assert agent.model.process.num_fitted == (3 if num_results == 3 else 0)


@pytest.mark.parametrize("agent", [BayesianOptimization, ModelAssisted])
def test_first_children_are_feasible(agent: Any) -> None:
    env = limited_env()
    module = bayesian_optimization if agent is BayesianOptimization else model_assisted
    proposals = agent(env, module.Args(ask_batch_size=5)).ask(5)
    assert [env.screen(proposal.architecture) for proposal in proposals] == [None] * 5


def test_few_children_are_screened_where_no_sizes_are_known() -> None:
    env = limited_env()
    rng = np.random.default_rng(0)
    candidates = [env.search_space.sample(rng) for _ in range(100)]
    tested: set[str] = set()

    def is_feasible(architecture: Architecture) -> bool:
        tested.add(architecture.key)
        return env.screen(architecture) is None

    chosen = RewardModel(env.search_space).choose_first(candidates, 3, rng, is_feasible)
    assert chosen == [index for index, child in enumerate(candidates) if env.screen(child) is None][:3]
    assert len(tested) == chosen[-1] + 1


def test_only_large_children_and_a_random_one_are_screened_where_sizes_are_known() -> None:
    children = samples(300)
    ranked = sorted(range(len(children)), key=lambda index: -size(children[index]))
    infeasible = {children[index].key for index in ranked[:4]} | {children[0].key, children[1].key}
    tested: list[Architecture] = []

    def is_feasible(architecture: Architecture) -> bool:
        tested.append(architecture)
        return architecture.key not in infeasible

    chosen = RewardModel(SPACE).choose_first(children, 5, np.random.default_rng(0), is_feasible)
    assert len(chosen) == len(set(chosen)) == 5
    assert not infeasible & {children[index].key for index in chosen}
    assert all(children[index] in tested for index in chosen)
    num_best = round(0.05 * len(children))
    smallest = size(children[ranked[num_best + 4]])
    assert all(size(children[index]) >= smallest for index in chosen[:1] + chosen[2:])
    assert len({child.key for child in tested}) <= num_best + 10


@pytest.mark.parametrize("agent", [BayesianOptimization, ModelAssisted])
def test_first_children_are_large_where_the_reward_is_corrected_for_the_flops(agent: Any) -> None:
    module = bayesian_optimization if agent is BayesianOptimization else model_assisted
    env = cast(NASESEnv, gym.make("NASES-Digits-v0", preset="cpu", device="cpu").unwrapped)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    threshold = np.quantile([env.size(env.search_space.sample(rng)) or 0.0 for _ in range(300)], 0.9)
    created = agent(env, module.Args(ask_batch_size=5))
    first = [env.size(proposal.architecture) or 0.0 for proposal in created.ask(5)]
    assert min(first[:1] + first[2:]) > threshold
    assert created.model.has_trend
