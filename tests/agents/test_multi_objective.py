"""The agents for several objectives find a known Pareto front, and the hypervolume improvement is that of its definition."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import mo_model_assisted, mo_reinforce, nsga2
from nases_agents.gaussian_process import Posterior, normal_excess
from nases_agents.mo_model_assisted import (
    Front,
    MOModelAssisted,
    Scale,
    expected_hypervolume_improvement,
    mean_excess,
)
from nases_agents.mo_reinforce import MOReinforce
from nases_agents.nsga2 import NSGA2
from nases_agents.policy import rank_normalize
from nases_agents.random_search import RandomSearch

from nases_env.envs import MOEnv, MOImageEnv, MONasBench201Env
from nases_env.errors import InputError
from nases_env.evaluation import TrainingEvaluator
from nases_env.pareto import hypervolume
from nases_env.search import SearchArgs, SearchLoop
from nases_env.search.agent import Agent
from nases_env.search_spaces import Architecture
from tests.agents.driving import synthetic_env
from tests.evaluation.latency_table import all_points, write_latency_table

AgentOf = Callable[[MOEnv, int], Agent]

AGENTS: dict[str, AgentOf] = {
    "mo_model_assisted": lambda env, seed: MOModelAssisted(env, mo_model_assisted.Args(seed=seed)),
    "mo_reinforce": lambda env, seed: MOReinforce(env, mo_reinforce.Args(seed=seed)),
    "nsga2": lambda env, seed: NSGA2(env, nsga2.Args(seed=seed)),
    "random_search": lambda env, seed: RandomSearch(env, SearchArgs(seed=seed)),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv")


def search(name: str, table: str, budget: int, seed: int = 0, **options: Any) -> SearchLoop:
    env = MONasBench201Env(table=table, objectives="accuracy,ms_phone", operator_permutation_seed=seed, **options)
    env.reset(seed=seed)
    loop = SearchLoop(env, budget)
    loop.run(AGENTS[name](env, seed), 5)
    return loop


def points_of(loop: SearchLoop) -> np.ndarray:
    assert isinstance(loop.env, MOEnv)
    return np.array([loop.env.reward_of(trial.evaluation) for trial in loop.trials], np.float64)


@pytest.fixture(scope="module")
def shares(table: str) -> dict[str, float]:
    """The share of the hypervolume of the true front that each agent finds with 60 children: means over seeds."""
    everything = all_points()
    reference = everything.min(axis=0)
    return {
        name: float(
            np.mean([hypervolume(points_of(search(name, table, 60, seed)), reference) for seed in range(2)])
            / hypervolume(everything, reference)
        )
        for name in AGENTS
    }


def test_model_assisted_finds_the_front(shares: dict[str, float]) -> None:
    assert shares["mo_model_assisted"] > 0.96
    assert shares["mo_model_assisted"] > shares["nsga2"] + 0.03


@pytest.mark.parametrize("name", ["mo_reinforce", "nsga2"])
def test_agent_is_better_than_random_search(name: str, shares: dict[str, float]) -> None:
    assert shares[name] > shares["random_search"] + 0.03


@pytest.mark.parametrize("name", AGENTS)
def test_seed_determines_the_children(name: str, table: str) -> None:
    keys = [[trial.architecture.key for trial in search(name, table, 25, seed).trials] for seed in (0, 0, 1)]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


@pytest.mark.parametrize("name", ["mo_model_assisted", "mo_reinforce", "nsga2"])
def test_evaluates_no_architecture_twice_and_no_infeasible_one(name: str, table: str) -> None:
    loop = search(name, table, 40, max_latency=0.012)
    assert len({trial.architecture.key for trial in loop.trials}) == 40
    assert max(trial.evaluation.latency for trial in loop.trials) <= 0.012


def test_model_assisted_finds_the_best_child_within_a_limit(table: str) -> None:
    points = all_points()
    loop = search("mo_model_assisted", table, 50, max_latency=0.006)
    assert loop.best is not None
    feasible = points[points[:, 1] >= -np.log10(6e6)]
    assert loop.best.evaluation.reward == pytest.approx(feasible[:, 0].max(), abs=0.011)


@pytest.mark.usefixtures("tiny_children")
def test_searches_networks_that_are_trained() -> None:
    """``test_exact_costs_are_computed_from_the_network`` does the same for the other agent."""
    env = MOImageEnv("digits", preset="smoke", objectives="accuracy,params")
    env.reset(seed=0)
    loop = SearchLoop(env, 4)
    loop.run(AGENTS["nsga2"](env, 0), 2)
    assert len(loop.trials) == 4


@pytest.mark.usefixtures("tiny_children")
def test_exact_costs_are_computed_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mo_model_assisted, "NUM_BUILT", 4)
    env = MOImageEnv("digits", preset="smoke", objectives="accuracy,params")
    env.reset(seed=0)
    agent = MOModelAssisted(env, mo_model_assisted.Args(num_init=3))
    for proposal in agent.ask(3):
        agent.tell(proposal, env.evaluate(proposal.architecture))
    (proposal,) = agent.ask()
    computed = agent.exact_costs[proposal.architecture.key]
    assert computed == pytest.approx(env.reward_of(env.evaluate(proposal.architecture))[1])


@pytest.mark.usefixtures("tiny_children")
def test_latencies_are_measured_for_evaluated_children_only(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure_latency(evaluator: TrainingEvaluator, architecture: Architecture, seed: int) -> float:
        measured.append(architecture.key)
        return 0.001

    monkeypatch.setattr(TrainingEvaluator, "measure_latency", measure_latency)
    env = MOImageEnv("digits", preset="smoke", objectives="accuracy,latency")
    env.reset(seed=0)
    loop = SearchLoop(env, 3)
    loop.run(MOModelAssisted(env, mo_model_assisted.Args()))
    assert measured == [trial.architecture.key for trial in loop.trials]
    measured.clear()
    env = MOImageEnv("digits", preset="smoke", objectives="accuracy,latency", max_latency=1.0)
    env.reset(seed=0)
    MOModelAssisted(env, mo_model_assisted.Args(num_init=4)).ask(1)
    assert len(measured) == 4, "not more than are needed for the first children"


@pytest.mark.parametrize("seed", range(5))
def test_expected_hypervolume_improvement_is_the_mean_over_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    front = Front.of(torch.tensor(rng.normal(size=(6, 2))), margin=0.5)
    means, stds = rng.normal(size=(2, 3)), rng.uniform(0.1, 1.0, size=(2, 3))
    posteriors = [Posterior(torch.tensor(means[i]), torch.tensor(stds[i]), 0.0) for i in range(2)]
    first, second = (partial(normal_excess, posterior) for posterior in posteriors)
    values = expected_hypervolume_improvement(first, second, front)
    # The values of children are their scores.
    scale = Scale(torch.linspace(-6, 6, 7), torch.linspace(-6, 6, 7))
    first, second = (partial(mean_excess, scale.quantiles(posterior)) for posterior in posteriors)
    assert expected_hypervolume_improvement(first, second, front) == pytest.approx(values, rel=0.1, abs=0.01)
    points, reference = front.points.numpy(), front.reference.numpy()
    before = hypervolume(points, reference)
    for candidate in range(3):
        samples = rng.normal(means[:, candidate], stds[:, candidate], size=(4000, 2))
        gains = np.array([hypervolume(np.vstack([points, sample]), reference) - before for sample in samples])
        error = gains.std() / np.sqrt(len(gains))
        assert float(values[candidate]) == pytest.approx(gains.mean(), abs=5 * error + 1e-9)


def test_scale_is_exact_at_the_children_and_continues_beyond_them() -> None:
    values = torch.tensor([3.0, 100.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    scores = rank_normalize(values)
    scale = Scale(scores, values)
    exact = scale.quantiles(Posterior(scores, torch.full((5,), 1e-9), 0.0))
    assert torch.allclose(exact, values[:, None].expand_as(exact), atol=1e-5)
    assert scale.score(3.0) == pytest.approx(float(scores[0]))
    assert scale.score(100.5) is None
    # The slope beyond the outlier is that between the quartiles, 2 and 4.
    beyond = scale.quantiles(Posterior(scores.max()[None] + 1, torch.tensor([1e-9]), 0.0)).mean()
    assert 100.5 < float(beyond) < 105.0


@pytest.mark.parametrize("name", ["mo_model_assisted", "mo_reinforce", "nsga2"])
def test_environment_with_one_objective_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs an environment with several objectives; pass one such as NASES-MO"):
        AGENTS[name](synthetic_env(), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [mo_model_assisted, mo_reinforce, nsga2])
def test_environment_with_one_objective_is_an_input_error_before_anything_is_written(module: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an environment with several objectives"):
        module.main(module.Args(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_number_of_objectives(table: str) -> None:
    env = MONasBench201Env(table=table, objectives="accuracy,ms_phone,params")
    env.reset(seed=0)
    with pytest.raises(InputError, match="needs 2 objectives, not accuracy, ms_phone, params; omit the others"):
        AGENTS["mo_model_assisted"](env, 0)
    loop = SearchLoop(env, 5)
    loop.run(AGENTS["nsga2"](env, 0), 5)
    assert len(loop.trials) == 5


def test_missing_package_is_an_input_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"NSGA-II requires additional packages .*pip install 'nases-env\[baselines\]'"):
        nsga2.main(nsga2.Args(env_id="NASES-MO-Digits-v0", budget=3, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (mo_model_assisted.Args, "num_init"),
        (mo_model_assisted.Args, "num_mutants"),
        (mo_reinforce.Args, "train_freq"),
        (nsga2.Args, "population_size"),
    ],
)
def test_options_out_of_range_are_input_errors(args: type[SearchArgs], option: str) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} must be at least"):
        args(**{option: 0})  # type: ignore[arg-type]
