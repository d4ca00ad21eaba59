"""REINFORCE with elites beats random search on a known reward and follows its options."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import elite_reinforce
from nases_agents.elite_reinforce import Args, EliteReinforce
from nases_agents.policy import PolicySample
from nases_agents.random_search import RandomSearch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop, load_args
from tests.agents.driving import drive_synthetic, small_synthetic_env, synthetic_env
from tests.search.limited import limited_env

SMALL_ENV: dict[str, Any] = {
    "env_id": "NASES-Synthetic-v0",
    "search_space": "nasbench201",
    "env_kwargs": {"operator": "avg_pool_3x3"},
}
"""Options of the environment that is ``small_synthetic_env``."""


def search(budget: int, in_flight: int = 1, **options: Any) -> tuple[EliteReinforce, list[float]]:
    args = Args(budget=budget, **options)
    env = synthetic_env(args.seed)
    agent = EliteReinforce(env, args)
    return agent, drive_synthetic(agent, env, budget, in_flight)[1]


def test_beats_random_search_over_20_seeds_at_the_same_budget() -> None:
    differences = []
    for seed in range(20):
        env = small_synthetic_env(seed)
        agents = (EliteReinforce(env, Args(budget=40, seed=seed)), RandomSearch(env, SearchArgs(seed=seed)))
        found, random = (max(drive_synthetic(agent, env, 40)[1]) for agent in agents)
        differences.append(found - random)
    assert np.mean(differences) > 3 * np.std(differences, ddof=1) / np.sqrt(20)


def test_infeasible_children_do_not_count_as_warm_up() -> None:
    env = limited_env()
    agent = EliteReinforce(env, Args(learning_starts=6))
    loop = SearchLoop(env, 9)
    loop.run(agent)
    assert loop.num_infeasible > 9
    assert [transition.sample.log_prob is None for transition in agent.history] == [True] * 6 + [False] * 3


@pytest.mark.parametrize("learning_starts", [1, 1000])
def test_repeats_in_an_exhausted_space_are_feasible(learning_starts: int) -> None:
    env = limited_env(limit=68)
    agent = EliteReinforce(env, Args(learning_starts=learning_starts))
    agent.filter_unseen = lambda samples: []  # type: ignore[method-assign]
    proposals = agent.ask(4)
    assert all(env.screen(proposal.architecture) is None for proposal in proposals)


def test_few_attempts_are_wasted_in_an_exhausted_space() -> None:
    env = synthetic_env()
    agent = EliteReinforce(env, Args(learning_starts=0))
    attempts: list[int] = []

    def count_attempts(samples: list[PolicySample]) -> list[PolicySample]:
        attempts[-1] += 1
        return []

    def ask() -> int:
        attempts.append(0)
        agent.ask()
        return attempts[-1]

    filter_unseen = agent.filter_unseen
    agent.filter_unseen = count_attempts  # type: ignore[method-assign, assignment]
    assert [ask() for _ in range(6)] == [20, 10, 5, 2, 1, 1]
    agent.filter_unseen = filter_unseen  # type: ignore[method-assign]
    ask()
    agent.filter_unseen = count_attempts  # type: ignore[method-assign, assignment]
    assert ask() == 20  # the last child was unseen


def test_children_of_a_narrow_policy_are_distinct() -> None:
    agent, _ = search(30, std=0.01, num_mutations=0, learning_starts=1, residual=False)
    assert len(agent.proposed) == 30


def test_proposal_nearest_to_the_read_child_is_evaluated() -> None:
    def mean_distance(num_proposals: int) -> float:
        agent, _ = search(40, num_proposals=num_proposals)
        samples = [transition.sample for transition in agent.history[20:]]
        return float(np.mean([agent._hamming_distance(sample) for sample in samples]))

    assert mean_distance(32) < mean_distance(1) / 2


def test_children_in_flight_are_distinct_and_results_may_arrive_in_any_order() -> None:
    agent, rewards = search(60, in_flight=7)
    assert len(agent.proposed) == 60
    assert [transition.reward for transition in agent.ranking] == sorted(rewards, reverse=True)


def test_children_before_learning_starts_are_not_trained_on() -> None:
    agent, _ = search(60, learning_starts=60)
    assert torch.equal(agent.controller(torch.ones(1, 40)), agent.reference_controller(torch.ones(1, 40)))


@pytest.mark.parametrize("budget", [30, 40, 100, 300])
def test_defaults_learn_before_the_last_children(budget: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    elite_reinforce.main(Args(**SMALL_ENV, budget=budget, num_proposals=2, run_dir=run_dir))
    steps = [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("update/policy/loss")]
    assert sum(step <= budget - 10 for step in steps) >= 3


def test_resumed_search_keeps_its_schedule(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL_ENV, "budget": 20}
    elite_reinforce.main(Args(**options, run_dir=tmp_path / "run"))
    resumed = load_args(Args, tmp_path / "run")
    assert (resumed.learning_starts, resumed.train_freq) == (10, 1)
    elite_reinforce.main(dataclasses.replace(resumed, budget=40))
    assert len((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()) == 40


def test_train_freq_without_training_is_an_error_but_not_in_a_search_of_an_earlier_version(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL_ENV, "budget": 3, "gradient_steps": 0}
    run_dir = tmp_path / "run"
    with pytest.raises(InputError, match="--train-freq has no effect with --gradient-steps 0; omit it"):
        elite_reinforce.main(Args(**options, run_dir=run_dir, train_freq=3))
    elite_reinforce.main(Args(**options, run_dir=run_dir))
    config = json.loads((run_dir / "config.json").read_text())
    assert config["arguments"]["train_freq"] is None
    config["arguments"]["train_freq"] = 10
    (run_dir / "config.json").write_text(json.dumps(config))
    elite_reinforce.main(dataclasses.replace(load_args(Args, run_dir), budget=4))
    assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == 4


def test_command_logs_metrics_of_the_policy(tmp_path: Path) -> None:
    elite_reinforce.main(Args(**SMALL_ENV, budget=45, run_dir=tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    logged = {tag for tag in events.Tags()["scalars"] if tag.startswith("update/")}
    assert logged == {f"update/policy/{tag}" for tag in ("loss", "reference_distance", "gradient_norm")}
    for tag in logged:
        assert [event.step for event in events.Scalars(tag)] == [25, 30, 35, 40, 45]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["arguments"]["learning_rate"] == Args().learning_rate


@pytest.mark.parametrize(
    "options", [{"std": 0}, {"train_freq": 0}, {"learning_rate": float("nan")}, {"elite_geometric_decay": 1.0}]
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
