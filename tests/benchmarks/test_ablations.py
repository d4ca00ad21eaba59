"""The ablations of the agents with a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import bayesian_optimization, model_assisted
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.gaussian_process import Size
from nases_agents.model_assisted import ModelAssisted

from benchmarks.common.identity import sources_of, sources_of_agent
from benchmarks.common.searches import run_agent
from benchmarks.search_quality.ablations import (
    ModelAssistedNegatedSizes,
    ModelAssistedShuffledSizes,
    ModelAssistedWithoutSizes,
    NegatedSizes,
    ShuffledSizes,
    WithoutPaths,
    WithoutSizes,
    negated_size,
    shuffled_size,
)
from benchmarks.search_quality.comparison import ABLATIONS, DEFAULT_AGENTS
from nases_env.search import SearchLoop, make_env
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator

SPACE = NasBench201()


ENV: dict[str, Any] = {
    "env_id": "NASES-Synthetic-v0",
    "search_space": "nasbench201",
    "env_kwargs": {"landscape_seed": "0"},
}


def options(**changes: Any) -> bayesian_optimization.Args:
    return bayesian_optimization.Args(**{"budget": 5, **ENV, **changes})


def create(agent: type[BayesianOptimization], **changes: Any) -> BayesianOptimization:
    args = options(**changes)
    env = make_env(args)
    env.reset(seed=args.seed)
    return agent(env, args)


def create_model_assisted(agent: type[ModelAssisted], seed: int = 0) -> ModelAssisted:
    args = model_assisted.Args(budget=5, seed=seed, **ENV)
    env = make_env(args)
    env.reset(seed=args.seed)
    return agent(env, args)


def sizes(search: SearchLoop) -> list[float]:
    return [SPACE.size(trial.architecture) or 0.0 for trial in search.trials]


def sizes_of(size: Size, architectures: list[Architecture]) -> list[float]:
    return [size(architecture) or 0.0 for architecture in architectures]


def score(agent: BayesianOptimization | ModelAssisted, architecture: Architecture) -> float:
    scores = agent.model.process.trend_scores
    assert scores is not None
    return float(scores(torch.tensor([architecture.decisions])))


@pytest.fixture(scope="module")
def samples() -> list[Architecture]:
    rng = numpy_generator(0, "samples")
    return [SPACE.sample(rng) for _ in range(300)]


def test_negated_sizes_start_with_the_smallest_children() -> None:
    ours, theirs = (sizes(run_agent(agent, options(ask_batch_size=5))) for agent in (NegatedSizes, BayesianOptimization))
    del ours[1], theirs[1]  # random children
    assert max(ours) < min(theirs)


def test_negated_sizes_are_those_of_the_model_alone(samples: list[Architecture]) -> None:
    largest = samples[int(np.argmax(sizes_of(SPACE.size, samples)))]
    agents = (
        (create(NegatedSizes), create(BayesianOptimization)),
        (create_model_assisted(ModelAssistedNegatedSizes), create_model_assisted(ModelAssisted)),
    )
    for ours, theirs in agents:
        assert score(ours, largest) < 0 < score(theirs, largest)
        assert sizes_of(negated_size(ours.env), samples) == [-size for size in sizes_of(ours.env.size, samples)]
        assert sizes_of(ours.env.size, samples) == sizes_of(SPACE.size, samples)


def test_shuffled_sizes_are_sizes_of_other_architectures_and_depend_on_the_seed(samples: list[Architecture]) -> None:
    env = create(ShuffledSizes).env
    shuffled, again, other = (sizes_of(shuffled_size(env, seed), samples) for seed in (0, 0, 1))
    assert shuffled == again != other
    true = sizes_of(SPACE.size, samples)
    assert np.quantile(shuffled, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(true, [0.1, 0.5, 0.9]), rel=0.2)
    assert abs(np.corrcoef(shuffled, true)[0, 1]) < 0.2


def test_agents_with_the_same_seed_have_the_same_shuffled_sizes(samples: list[Architecture]) -> None:
    agents = create(ShuffledSizes), create_model_assisted(ModelAssistedShuffledSizes)
    first, second = ([score(agent, sample) for sample in samples] for agent in agents)
    assert first == second != [score(create(BayesianOptimization), sample) for sample in samples]
    assert first != [score(create_model_assisted(ModelAssistedShuffledSizes, seed=1), sample) for sample in samples]


def test_sizes_remain_unknown_where_the_search_space_does_not_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NasBench201, "operator_sizes", {})
    agents: list[BayesianOptimization | ModelAssisted] = [
        *map(create, (NegatedSizes, ShuffledSizes)),
        *map(create_model_assisted, (ModelAssistedNegatedSizes, ModelAssistedShuffledSizes)),
    ]
    for agent in agents:
        assert not agent.model.has_trend


def test_agents_without_sizes_know_none_and_begin_with_random_children() -> None:
    assert not create(WithoutSizes).model.has_trend
    assert not create_model_assisted(ModelAssistedWithoutSizes).model.has_trend
    first = options(budget=20, ask_batch_size=5)
    ours, theirs = (sizes(run_agent(agent, first))[:5] for agent in (WithoutSizes, BayesianOptimization))
    del ours[1], theirs[1]  # random in both
    assert np.mean(ours) < 0.8 * np.mean(theirs)


def test_model_without_paths_keeps_the_sizes() -> None:
    ours, theirs = (create(agent).model.process for agent in (WithoutPaths, BayesianOptimization))
    assert ours.paths is None
    assert theirs.paths is not None
    assert ours.trend_scores is not None
    assert len(ours.kernels) < len(theirs.kernels)


def test_sources_of_an_ablation_include_those_of_the_agent() -> None:
    sources = sources_of_agent(NegatedSizes)
    assert sources > sources_of(BayesianOptimization)
    names = {path.name for path in sources}
    assert {"ablations.py", "bayesian_optimization.py", "reward_model.py", "gaussian_process.py"} <= names
    assert "comparison.py" not in names
    for entry in DEFAULT_AGENTS.values():
        assert sources_of_agent(entry.agent) == sources_of(entry.agent)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_differs_from_its_agent_in_one_point(name: str) -> None:
    entry, agent = ABLATIONS[name], DEFAULT_AGENTS[str(ABLATIONS[name].variant_of)]
    assert (entry.agent is agent.agent) == (entry.options != agent.options)
