"""The benchmark of agents for several objectives: its measurements on a table whose front is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pareto_quality import Args, Job, read_device, run_job
from nases_env.errors import InputError
from nases_env.pareto import hypervolume
from tests.commands import run_benchmark
from tests.evaluation.latency_table import all_points, write_latency_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv"))


def test_true_front_is_read_from_the_table(table: Path) -> None:
    known = read_device(Args(table=table), "ms_phone")
    points = all_points()
    median = np.array([np.median(points[:, 0]), points[:, 1].min()])
    assert known.references["median"] == pytest.approx(median)
    assert known.hypervolumes["lowest"] == pytest.approx(hypervolume(points, points.min(axis=0)))
    assert known.hypervolumes["median"] == pytest.approx(hypervolume(points, median))
    assert known.limit is not None
    assert known.limit == pytest.approx(10 ** -np.median(points[:, 1]) * 1e-9 / 3)
    feasible = points[points[:, 1] > -np.log10(known.limit * 1e9) + 1e-9]
    assert known.best_accuracy == pytest.approx(feasible[:, 0].max())


def test_search_is_measured_against_the_true_front(table: Path) -> None:
    args = Args(table=table, budget=30)
    result = run_job(Job("ms_phone", "random_search", 0, read_device(args, "ms_phone"), args))
    assert 0.3 < result.hypervolumes["lowest"] < 1
    assert 0 <= result.hypervolumes["median"] < 1
    assert result.regret is not None
    assert 0 <= result.regret < 0.5


def test_benchmark_writes_the_report(table: Path, tmp_path: Path) -> None:
    options = ["--num-seeds", "2", "--first-seed", "5", "--budget", "6", "--devices", "ms_phone", "--num-processes", "1"]
    result = run_benchmark("pareto_quality", [*options, "--table", str(table), "--output", "out.json"], tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert list(report["devices"]["ms_phone"]) == ["mo_model_assisted", "mo_reinforce", "nsga2", "random_search"]
    assert {result["seed"] for result in report["results"]} == {5, 6}
    for agent, metrics in report["devices"]["ms_phone"].items():
        assert agent in result.stdout
        assert 0 < metrics["hypervolume"]["lowest"]["low"] <= metrics["hypervolume"]["lowest"]["value"] <= 1


def test_invalid_options_are_input_errors() -> None:
    with pytest.raises(InputError, match="unknown agent 'nsga'"):
        Args(agents=("nsga",))
    with pytest.raises(InputError, match="--num-seeds must be at least 2"):
        Args(num_seeds=1)
