"""The ablations of Bayesian optimization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import bayesian_optimization
from nases_agents.bayesian_optimization import BayesianOptimization

from benchmarks.common.identity import sources_of, sources_of_agent
from benchmarks.common.searches import run_agent
from benchmarks.search_quality.ablations import NegatedSizes, ShuffledSizes, WithoutPaths, WithoutSizes
from benchmarks.search_quality.comparison import ABLATIONS, DEFAULT_AGENTS
from nases_env.search import SearchLoop, make_env
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator

SPACE = NasBench201()


def options(**changes: Any) -> bayesian_optimization.Args:
    env: dict[str, Any] = {
        "env_id": "NASES-Synthetic-v0",
        "search_space": "nasbench201",
        "env_kwargs": {"landscape_seed": "0"},
    }
    return bayesian_optimization.Args(**{"budget": 5, **env, **changes})


def create(agent: type[BayesianOptimization], **changes: Any) -> BayesianOptimization:
    args = options(**changes)
    env = make_env(args)
    env.reset(seed=args.seed)
    return agent(env, args)


def sizes(search: SearchLoop) -> list[float]:
    return [SPACE.size(trial.architecture) or 0.0 for trial in search.trials]


def sizes_of(space: SearchSpace, architectures: list[Architecture]) -> list[float]:
    return [space.size(architecture) or 0.0 for architecture in architectures]


def score(agent: BayesianOptimization, architecture: Architecture) -> float:
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


def test_negated_sizes_are_those_of_the_agent_and_of_its_model_alone(samples: list[Architecture]) -> None:
    ours, theirs = create(NegatedSizes), create(BayesianOptimization)
    assert sizes_of(ours.search_space, samples) == [-size for size in sizes_of(SPACE, samples)]
    assert sizes_of(ours.env.search_space, samples) == sizes_of(SPACE, samples)
    largest = samples[int(np.argmax(sizes_of(SPACE, samples)))]
    assert score(ours, largest) < 0 < score(theirs, largest)


def test_shuffled_sizes_are_sizes_of_other_architectures_and_depend_on_the_seed(samples: list[Architecture]) -> None:
    first, again, other = (create(ShuffledSizes, seed=seed).search_space for seed in (0, 0, 1))
    shuffled = sizes_of(first, samples)
    assert shuffled == sizes_of(again, samples)
    assert shuffled != sizes_of(other, samples)
    assert np.quantile(shuffled, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(sizes_of(SPACE, samples), [0.1, 0.5, 0.9]), rel=0.2
    )
    assert abs(np.corrcoef(shuffled, sizes_of(SPACE, samples))[0, 1]) < 0.2


def test_sizes_remain_unknown_where_the_search_space_does_not_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NasBench201, "operator_sizes", {})
    for agent in (NegatedSizes, ShuffledSizes):
        created = create(agent)
        assert created.search_space.size(SPACE.architecture([0] * SPACE.num_decisions)) is None
        assert created.model.process.trend_scores is None


def test_agent_without_sizes_knows_none_and_begins_with_random_children() -> None:
    created = create(WithoutSizes)
    assert not created.model.has_trend
    assert created.search_space.size(SPACE.architecture([0] * SPACE.num_decisions)) is None
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
