"""The benchmark of latencies that are measured in several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency import analyze
from tests.commands import error_of, module, run_benchmark, run_here


def test_differences_are_relative_to_the_mean() -> None:
    metrics = analyze(np.array([[0.010, 0.020, 0.030], [0.011, 0.020, 0.050]]))
    assert metrics["difference"] == {
        "median": pytest.approx(0.001 / 0.0105),
        "p90": pytest.approx(0.8 * 0.02 / 0.04 + 0.2 * 0.001 / 0.0105),
        "max": pytest.approx(0.5),
    }
    assert metrics["lowest_spearman"] == pytest.approx(1.0)
    assert metrics["latency_ms"] == {"min": pytest.approx(10.0), "max": pytest.approx(50.0)}
    assert analyze(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]))["lowest_spearman"] == pytest.approx(-1.0)


@pytest.mark.usefixtures("forked_processes")
def test_two_processes_measure_the_same_networks(tmp_path: Path) -> None:
    options = ("--preset", "smoke", "--num-architectures", "2", "--num-processes", "2", "--output", "out.json")
    printed = run_benchmark("latency", options, tmp_path).stdout
    assert "2 networks of enas_micro_sized, 2 processes" in printed
    report = json.loads((tmp_path / "out.json").read_text())
    assert np.array(report["latencies"]).shape == (2, 2)
    assert np.min(report["latencies"]) > 0
    assert report["metrics"]["difference"]["median"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-processes", "1"), "--num-processes must be at least 2, not 1"),
        (("--env-id", "NASES-Synthetic-v0"), "takes no|does not take|trains no children"),
    ],
)
def test_wrong_options_are_errors(options: tuple[str, ...], message: str) -> None:
    assert any(part in error_of(run_here(module("benchmarks.latency"), *options)) for part in message.split("|"))
