"""Limits of a search: no child exceeds them, wrong ones are errors of one line, and a resumed search decides the same."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.model_assisted import ModelAssisted

import nases_env  # noqa: F401 - registers the environments
from nases_env.cli.main import main
from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Limits, TrainingEvaluator
from nases_env.search import SearchArgs, SearchLoop, SearchRun
from nases_env.search.feasibility import MAX_MEASURED, check_feasibility
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import read_trajectory
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.commands import error_of, run_here
from tests.evaluation.latency_table import write_latency_table
from tests.search.limited import limited_env
from tests.search.test_resume import Killed, interrupt_after

pytestmark = pytest.mark.usefixtures("tiny_children", "without_reports")

SEARCH = ("search", "digits", "--preset", "smoke", "--search-space", "nasbench201", "--num-finalists", "0")
LIMITS = [
    ("--max-params", "2k", "num_params", 2000),
    ("--max-flops", "40k", "num_flops", 40_000),
    ("--max-memory", "1.5KiB", "activation_bytes", 1536),
]


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-params", "100q", "the unit 'q' is unknown; known: k, M, G"),
        ("--max-params", "many", "'many' is not a number such as 100k, 5M or 2000"),
        ("--max-params", "0", "'0' is too small; it must be at least 1"),
        ("--max-params", "1,000", "'1,000' is not a number"),
        ("--max-params", "nan", "'nan' is not a number"),
        ("--max-params", "100KB", "the unit 'KB' is unknown"),
        ("--max-params", "", "'' is not a number"),
        ("--max-params", "0.1", "'0.1' is too small"),
        ("--max-flops", "5MM", "the unit 'MM' is unknown"),
        ("--max-flops", "inf", "'inf' is not a number"),
        ("--max-flops", "1e99", "is too large"),
        ("--max-flops", "1.2.3", "'1.2.3' is not a number"),
        ("--max-memory", "256k", "the unit 'k' is unknown; known: B, KB, MB, GB, KiB, MiB, GiB"),
        ("--max-memory", "KB", "'KB' is not a number of bytes such as 256KB"),
        ("--max-memory", "0KB", "'0KB' is too small"),
        ("--max-memory", "2ms", "the unit 'ms' is unknown"),
        ("--max-latency", "2", "the unit is missing; known: us, ms, s"),
        ("--max-latency", "2min", "the unit 'min' is unknown"),
        ("--max-latency", "0ms", "'0ms' is too small; it must be more than 0"),
        ("--max-latency", "fast", "'fast' is not a time with a unit such as 2ms"),
        ("--child.max-params", "9", "unknown option '--child.max-params' (did you mean '--max-params'?)"),
    ],
)
def test_wrong_limits_are_errors_of_one_line(option: str, value: str, message: str) -> None:
    assert message in error_of(run_here(main, *SEARCH, "--agent", "random_search", option, value))
    assert not Path("runs").exists()


@pytest.mark.parametrize("limits", [{"max_params": "100k"}, {"max_flops": 0}, {"max_memory": True}, {"max_latency": -1.0}])
def test_wrong_keywords_are_errors_of_one_line(limits: dict[str, Any]) -> None:
    (name,) = limits
    with pytest.raises(InputError, match=f"^{name} ") as caught:
        gym.make("NASES-Digits-v0", preset="smoke", **limits)
    assert "\n" not in str(caught.value)


def test_environment_without_networks_takes_no_limits() -> None:
    result = run_here(main, "search", "NASES-Synthetic-v0", "--agent", "random_search", "--max-params", "9")
    assert "NASES-Synthetic-v0 does not take --max-params" in error_of(result)


@pytest.mark.parametrize(("option", "value", "cost", "limit"), LIMITS)
def test_no_trained_child_exceeds_a_limit(option: str, value: str, cost: str, limit: int) -> None:
    options = ("--agent", "random_search", "--budget", "4", "--num-envs", "1", "--run-dir", "run")
    result = run_here(main, *SEARCH, *options, option, value)
    assert result.returncode == 0, result.stderr
    assert "limits: at most " in result.stdout
    assert "infeasible proposals were not evaluated" in result.stdout
    costs = [record[cost] for record in read_trajectory(Path("run"))]
    assert len(costs) == 4
    assert 0 < max(costs) <= limit


def test_latency_is_measured_once_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second architecture is slow, in the order of the measurements."""
    measured: list[str] = []

    def measure(evaluator: TrainingEvaluator, architecture: Any, seed: int) -> float:
        measured.append(architecture.key)
        return 0.001 if len(measured) % 2 else 1.0

    monkeypatch.setattr(TrainingEvaluator, "measure_latency", measure)
    monkeypatch.setattr("nases_env.search.run.check_feasibility", lambda *args: "")
    args = load("random_search").Args(
        env_id="NASES-Digits-v0",
        preset="smoke",
        search_space="nasbench201",
        budget=6,
        num_finalists=0,
        limits=Limits(max_latency=0.002),
        run_dir=Path("run"),
    )
    with monkeypatch.context() as context:
        interrupt_after(3, context)
        with pytest.raises(Killed):
            load("random_search").main(args)
    before = list(measured)
    first = list(read_trajectory(Path("run")))
    resumed = load_args(type(args), Path("run"))
    load("random_search").main(resumed)
    assert len(measured) == len(set(measured))  # what was recorded was not measured again
    assert measured[: len(before)] == before
    records = list(read_trajectory(Path("run")))
    assert records[:3] == first
    assert {record["latency"] for record in records} == {0.001}


def test_latencies_in_another_store_are_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = itertools.count(1)
    monkeypatch.setattr(TrainingEvaluator, "measure_latency", lambda *args: next(latencies) / 1000)
    monkeypatch.setattr("nases_env.search.run.check_feasibility", lambda *args: "")
    options = ("--agent", "random_search", "--max-latency", "1s", "--budget", "1", "--num-envs", "1", "--run-dir", "run")
    assert run_here(main, *SEARCH, *options).returncode == 0
    resume: tuple[str, ...] = ("search", "--resume", "run", "--budget", "2")
    before, store, other = Path("run/store.sqlite").absolute(), Path("copy.sqlite"), Path("other.sqlite").absolute()
    before.rename(store)
    message = f"run cannot be resumed: its latencies are in {before}; restore this file, or start a new search"
    assert message in error_of(run_here(main, *resume))
    store.rename(before)
    merge = ("store", "merge", str(other), str(before))
    message = f"its latencies are in {before}; omit --store, or first run: nases {' '.join(merge)}"
    assert message in error_of(run_here(main, *resume, "--store", "other.sqlite"))
    assert not other.exists()
    assert run_here(main, *merge).returncode == 0
    assert run_here(main, *resume).returncode == 0
    resume = (*resume[:4], "3", "--store", "other.sqlite")
    assert message in error_of(run_here(main, *resume)), "it has the first latency only"
    assert run_here(main, *merge).returncode == 0
    assert run_here(main, *resume).returncode == 0
    assert len(list(read_trajectory(Path("run")))) == 3
    with sqlite3.connect(before) as database:
        database.execute("UPDATE latencies SET seconds = 9")
    assert error_of(run_here(main, *resume[:3], "--budget", "4", "--store", str(before))).endswith("; omit --store")


def test_resumed_search_with_another_store_keeps_the_latencies_that_were_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = itertools.count(1)
    monkeypatch.setattr(TrainingEvaluator, "measure_latency", lambda *args: next(latencies) / 1000)
    args = SearchArgs(
        env_id="NASES-MO-Digits-v0",
        preset="smoke",
        search_space="nasbench201",
        objectives="accuracy,latency",
        budget=1,
        num_finalists=0,
        run_dir=Path("run"),
        quiet=True,
    )
    architectures = [NasBench201().architecture(decisions) for decisions in ([0] * 6, [0] * 6, [1] * 6)]

    def search(args: SearchArgs) -> list[float]:
        with SearchRun(args, agent="random_search") as run:
            return [evaluation.latency for evaluation in run.loop.evaluate_all(architectures)]

    search(args)
    resumed = load_args(SearchArgs, Path("run"))
    execution = dataclasses.replace(resumed.execution, store="other.sqlite")
    assert search(dataclasses.replace(resumed, budget=3, execution=execution)) == [0.001, 0.001, 0.002]


def load(agent: str) -> Any:
    return importlib.import_module(f"nases_agents.{agent}")


def test_resumed_search_with_limits_equals_an_uninterrupted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = load("regularized_evolution")
    args = agent.Args(
        env_id="NASES-Digits-v0",
        preset="smoke",
        search_space="nasbench201",
        budget=5,
        num_finalists=0,
        limits=Limits(max_params=2000, max_flops=200_000),
        run_dir=Path("whole"),
    )
    agent.main(args)
    with monkeypatch.context() as context:
        interrupt_after(2, context)
        with pytest.raises(Killed):
            agent.main(dataclasses.replace(args, run_dir=Path("cut")))
    agent.main(load_args(agent.Args, Path("cut")))
    whole, cut = ([{**record, "seconds": 0} for record in read_trajectory(Path(name))] for name in ("whole", "cut"))
    assert whole == cut
    with pytest.raises(InputError, match="whole is finished"):
        agent.main(load_args(agent.Args, Path("whole")))


def digits(**limits: Any) -> NASESEnv:
    env = gym.make("NASES-Digits-v0", preset="smoke", search_space="nasbench201", **limits).unwrapped
    assert isinstance(env, NASESEnv)
    env.reset(seed=0)
    return env


def test_limits_that_nothing_meets_are_reported_before_the_search() -> None:
    with pytest.raises(InputError, match=r"^none of 300 sampled .* the closest has [\d,]+ parameters, more than max_params"):
        check_feasibility(digits(max_params=5), 0)
    assert check_feasibility(digits(max_params=10**6), 0) == check_feasibility(digits(), 0) == ""


def test_limits_that_nothing_meets_are_reported_before_the_plan() -> None:
    result = run_here(main, *SEARCH, "--agent", "random_search", "--max-params", "5")
    assert "none of 300 sampled architectures meets the limits" in error_of(result)
    assert result.stdout == ""


def test_few_measured_latencies_do_not_refuse_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(evaluator: TrainingEvaluator, architecture: Any, seed: int) -> float:
        measured.append(architecture.key)
        return 0.004

    monkeypatch.setattr(TrainingEvaluator, "measure_latency", measure)
    note = check_feasibility(digits(max_latency=0.002), 0)
    assert note.startswith("note: none of 20 sampled architectures meets the limits; the closest has a latency of 4")
    assert len(measured) == MAX_MEASURED


def test_latency_limit_of_a_table_is_not_refused_by_chance() -> None:
    """The limit allows 4.4% of the cells, so 20 samples often contain none of them."""
    table = write_latency_table(Path("latencies.csv"))
    env = gym.make("NASES-MO-NASBench201-v0", table=table, objectives="accuracy,ms_phone", max_latency=0.003).unwrapped
    assert isinstance(env, NASESEnv)
    env.reset(seed=0)
    notes = [check_feasibility(env, seed) for seed in range(6)]
    assert all(re.fullmatch(r"note: [1-9]\d* of \d+ sampled architectures meet the limits", note) for note in notes), notes


def test_few_feasible_architectures_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.search.feasibility.MIN_SHARE", 1.01)
    note = check_feasibility(digits(max_params=10**6), 0)
    assert note == "note: 10 of 10 sampled architectures meet the limits"


def test_infeasible_child_of_a_step_is_not_trained_or_stored() -> None:
    env = digits(max_params=10, execution={"store": "store.sqlite"})
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert (reward, info["status"]) == (0.0, "too_large")
    assert env.executor.store is not None
    assert env.executor.store.count() == 0
    env.close()


@pytest.mark.parametrize("agent", ["model_assisted", "bayesian_optimization"])
def test_agents_with_a_model_waste_no_proposals_where_2_percent_are_feasible(agent: str) -> None:
    env = limited_env(limit=53)
    module = load(agent)
    loop = SearchLoop(env, 20)
    kind = {"model_assisted": ModelAssisted, "bayesian_optimization": BayesianOptimization}[agent]
    loop.run(kind(env, module.Args()), 5)
    assert len(loop.trials) == 20
    assert loop.num_infeasible <= 5


def test_run_directory_of_an_earlier_version_is_resumed() -> None:
    """Its limit was one of the settings of the children."""
    agent = load("random_search")
    args = agent.Args(
        env_id="NASES-Digits-v0",
        preset="smoke",
        search_space="nasbench201",
        budget=2,
        num_finalists=0,
        limits=Limits(max_params=2000),
        run_dir=Path("run"),
    )
    agent.main(args)
    config = json.loads(Path("run/config.json").read_text())
    del config["arguments"]["limits"]
    config["arguments"]["child"] = {"max_params": 2000}
    config["configuration"]["settings"]["max_params"] = 2000
    Path("run/config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in Path("run/evaluations.jsonl").read_text().splitlines()]
    old = [
        {name: each[name] for name in each if name not in ("activation_bytes", "file_bytes", "latency")} for each in lines
    ]
    Path("run/evaluations.jsonl").write_text("".join(json.dumps(each) + "\n" for each in old))
    resumed = load_args(agent.Args, Path("run"))
    assert resumed.limits == args.limits
    agent.main(dataclasses.replace(resumed, budget=4))
    records = list(read_trajectory(Path("run")))
    assert len(records) == 4
    assert max(record["num_params"] for record in records) <= 2000
