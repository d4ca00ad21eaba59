"""The benchmark of execution: all variants do the same work, and the metrics are correct."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.common.interleave import interleave, paired_ratios
from benchmarks.execution import commands, commits, overhead, resume, scaling
from benchmarks.execution.__main__ import Args, main
from nases_env.cli.main import main as nases
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import Store
from nases_env.search import SearchArgs
from nases_env.search.run_dir import STORE, TRAJECTORY, read_config, read_trajectory
from tests.commands import run_benchmark, run_here
from tests.execution.forked import fork_workers


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Any:
    forkserver.ensure_running()
    before = set(psutil.Process().children(recursive=True))
    yield
    new = set(psutil.Process().children(recursive=True)) - before
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in new)


def test_variants_are_interleaved() -> None:
    order: list[str] = []

    def measure(name: str) -> dict[str, float]:
        order.append(name)
        return {"number": float(len(order))}

    metrics = interleave({name: partial(measure, name) for name in "ab"}, 2, warm_up=True)
    assert order == list("ababab")
    assert metrics == {"a": {"number": [3.0, 5.0]}, "b": {"number": [4.0, 6.0]}}
    assert paired_ratios([3.0, 6.0], [2.0, 3.0]) == [1.5, 2.0]


def count_forked_workers() -> int:
    """Return the number of processes that the server of forked processes has started."""
    this = psutil.Process()
    return len(this.children(recursive=True)) - len(this.children())


@pytest.mark.usefixtures("tiny_children")
def test_all_variants_evaluate_the_same_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of the first variant are new interpreters, those of the others are forked."""
    runs: list[scaling.Run] = []

    def recorded(mode: Callable[..., scaling.Run], *arguments: Any) -> scaling.Run:
        runs.append(mode(*arguments))
        fork_workers(monkeypatch)
        monkeypatch.setattr(scaling, "count_workers", count_forked_workers)
        return runs[-1]

    for mode in (scaling.submit_all, scaling.run_search):
        monkeypatch.setattr(scaling, mode.__name__, partial(recorded, mode))
    output, num_children = tmp_path / "metrics.json", 2
    options: dict[str, Any] = {"num_repeats": 1, "num_workers": (1,), "preset": "smoke", "num_children": num_children}
    main(Args(parts=("scaling",), folder=tmp_path, output=output, **options))
    one, *others = ([replace(evaluation, seconds=0.0) for evaluation in run.evaluations] for run in runs)
    assert others == [one] * 2
    assert len({evaluation.key for evaluation in one}) == num_children
    for run in runs:
        assert run.num_from_store == 0
        assert run.startup_seconds > 0
        assert run.seconds > max(evaluation.seconds for evaluation in run.evaluations)
    metrics = json.loads(output.read_text())["results"]["scaling"]
    assert len(metrics) == 3
    for run, variant in zip(runs, metrics.values(), strict=True):
        assert variant["children_per_minute"]["median"] == pytest.approx(60 * num_children / run.seconds)


def fake_run(seconds: Callable[[int], float], args: SearchArgs, *rest: Any, accuracy: float = 0.5) -> scaling.Run:
    evaluations = [
        Evaluation(f"child {number}", number, Status.OK, valid_accuracy=accuracy, seconds=6.0)
        for number in range(args.budget)
    ]
    return scaling.Run(seconds(rest[-1]), 1.0, evaluations, num_from_store=0)


def test_metrics_of_scaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaling, "submit_all", partial(fake_run, lambda num_workers: 30.0 / num_workers))
    monkeypatch.setattr(scaling, "run_search", partial(fake_run, lambda num_workers: 60.0 / num_workers))
    measure = partial(scaling.measure, tmp_path, num_workers=(1, 2), preset="smoke", num_children=4, num_repeats=2, seed=0)
    metrics = measure()
    assert len(metrics) == 6
    assert metrics["all submitted, workers = 2"] == {
        "children_per_minute": [16.0, 16.0],
        "times_fewest_workers": [2.0, 2.0],
        "times_all_submitted": [1.0, 1.0],
        "busy_share": [0.8, 0.8],
        "seconds_per_child": [6.0, 6.0],
        "startup_seconds": [1.0, 1.0],
    }
    assert metrics["search, 2 in flight per worker, workers = 2"]["times_all_submitted"] == [0.5, 0.5]

    monkeypatch.setattr(scaling, "run_search", partial(fake_run, lambda num_workers: 60.0, accuracy=0.6))
    with pytest.raises(RuntimeError, match="did not evaluate the same children as the other variants"):
        measure()


@pytest.mark.usefixtures("forked_workers")
def test_overhead_is_the_worker_time_beyond_the_serial_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(overhead, "has_ray", lambda: False)
    metrics = overhead.measure(tmp_path, num_workers=2, num_children=4, num_repeats=2)
    assert list(metrics) == ["serial", "processes, one at a time", "processes, all in flight"]
    serial = metrics["serial"]["milliseconds_per_child"]
    assert min(serial) >= 1.0
    assert metrics["serial"]["overhead_milliseconds"] == [0.0, 0.0]
    for name, num_sharing in (("processes, one at a time", 1), ("processes, all in flight", 2)):
        own = metrics[name]
        assert own["startup_seconds"][0] > 0
        for value, added, here in zip(own["milliseconds_per_child"], own["overhead_milliseconds"], serial, strict=True):
            assert added == pytest.approx(num_sharing * value - here)


@pytest.mark.parametrize("leases", [False, True])
def test_rows_are_committed(leases: bool, tmp_path: Path) -> None:
    assert commits.write_rows(tmp_path / "store.sqlite", 1, 5, leases) > 0
    with Store(tmp_path / "store.sqlite") as store:
        assert [row["seed"] for row in store.rows()] == [5, 6, 7, 8, 9]
        assert not store.leases()
        assert store.get(commits.EVALUATION.key, commits.DIGEST, 5) == replace(commits.EVALUATION, seed=5)


@pytest.mark.usefixtures("forked_processes")
def test_processes_write_to_one_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with commits.writers(2) as pool:
        assert len(pool.write(path, 5, leases=True)) == 2
    with Store(path) as store:
        assert sorted(row["seed"] for row in store.rows()) == list(range(10))


def test_extended_run_directory_equals_that_of_a_search(tmp_path: Path) -> None:
    real, extended = tmp_path / "real", tmp_path / "extended"
    resume.make_run_dir(real, 12, 12, 0)
    resume.make_run_dir(extended, 12, 4, 0)
    assert list(read_trajectory(extended)) == list(read_trajectory(real))
    assert read_config(extended)["configuration"] == read_config(real)["configuration"]
    rows = []
    for path in (real, extended):
        with Store(path / STORE) as store:
            rows.append([{**row, "created": ""} for row in store.rows()])
            assert len(rows[-1]) == 12
    assert rows[0] == rows[1]


def test_search_is_resumed_until_its_first_new_child(tmp_path: Path) -> None:
    resume.make_run_dir(tmp_path / "run", 12, 4, 0)
    trajectory = (tmp_path / "run" / TRAJECTORY).read_bytes()
    for _ in range(2):
        metrics = resume.resume(tmp_path / "run", 13)
        assert (tmp_path / "run" / TRAJECTORY).read_bytes() == trajectory
        assert metrics["seconds"] == pytest.approx(metrics["reading_seconds"] + metrics["replaying_seconds"])
        assert min(metrics[name] for name in ("reading_seconds", "replaying_seconds", "opening_store_seconds")) > 0
    with pytest.raises(RuntimeError, match="12 children were replayed, not 13"):
        resume.resume(tmp_path / "run", 14)


def test_commands_on_a_long_search_are_measured(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    resume.make_run_dir(run_dir, 12, num_searched=5, seed=0)
    for options in commands.commands(run_dir).values():
        assert run_here(nases, *options).returncode == 0, options
    assert (run_dir / "merged.sqlite").exists()
    assert (run_dir / "export.csv").read_text().count("\n") == 13
    metrics = commands.run(["--version"], run_dir)
    assert metrics["cpu_seconds"] > 0
    assert 5 < metrics["peak_mib"] < 500
    with pytest.raises(RuntimeError, match="nases no-command ended with status 2"):
        commands.run(["no-command"], run_dir)


@pytest.mark.usefixtures("forked_processes")
def test_selected_parts_are_measured(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    output = tmp_path / "out" / "metrics.json"
    parts = ("--parts", "store", "resume", "--folder", "disk", "--output", str(output))
    few = ("--num-repeats", "1", "--num-workers", "1", "--num-commits", "3", "--num-rows", "5", "--num-searched", "3")
    printed = run_benchmark("execution", (*parts, *few), tmp_path).stdout
    metrics = json.loads(output.read_text())
    assert list(metrics["results"]) == ["store", "resume"]
    assert list(metrics["results"]["store"]) == [
        "lines of a file, processes = 1",
        "put, processes = 1",
        "lease and put, processes = 1",
    ]
    assert list(metrics["results"]["resume"]) == ["5 children"]
    for results in metrics["results"].values():
        for variant in results.values():
            for name, spread in variant.items():
                assert spread["min"] <= spread["median"] <= spread["max"]
                assert spread["max"] > 0, name
    assert metrics["settings"]["num_commits"] == 3
    assert metrics["num_cores"] == os.cpu_count()
    assert not list((tmp_path / "disk").iterdir())
    assert "lease and put, processes = 1" in printed
    assert "5 children" in printed


@pytest.mark.parametrize(
    "options",
    [
        {"num_repeats": 0},
        {"num_children": 0},
        {"parts": ()},
        {"folder": Path("absent")},
        {"num_workers": ()},
        {"num_workers": (2, 1)},
        {"num_rows": (0,)},
    ],
)
def test_invalid_options_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
