"""The benchmark of small image data sets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from benchmarks.small_images import Args, draw_dataset
from nases_env.cli import main as cli
from tests.commands import error_of, module, run_benchmark, run_here
from tests.training.images import write_folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the commands of the benchmark in this process, and return the list of them."""
    started: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        started.append(command)
        _, flag, program, *words = command
        result = run_here(module(program) if flag == "-m" else cli.main, *words)
        assert result.returncode == 0, result.stderr

    monkeypatch.setattr(subprocess, "run", run)
    return started


@pytest.fixture
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    def small_forest(num_trees: int, **options: Any) -> RandomForestClassifier:
        return RandomForestClassifier(num_trees // 100, **options)

    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", small_forest)


@pytest.mark.usefixtures("small_forests")
def test_networks_are_compared_with_a_random_forest(tmp_path: Path, commands: list[list[str]]) -> None:
    write_folder(tmp_path / "images", per_class=5)
    options = (
        *("--data-dir", "images", "--classes", "cat", "dog", "--num-train-images", "4", "--num-test-images", "3"),
        *("--num-seeds", "2", "--agents", "random_search", "--budget", "1", "--preset", "smoke"),
        *("--work-dir", "work", "--output", "out.json"),
    )
    run_benchmark("small_images", options, tmp_path)
    content = json.loads((tmp_path / "out.json").read_text())
    forest, agent = content["random_forest"], content["agents"]["random_search"]
    accuracies = [result["test_accuracy"] for result in agent["results"]]
    assert agent["difference"]["value"] == pytest.approx(sum(accuracies) / 2 - sum(forest["test_accuracies"]) / 2)
    for seed, result in enumerate(agent["results"]):
        final_dir = tmp_path / "work" / f"random_search-{seed}" / "final" / f"seed-{seed}"
        final = json.loads((final_dir / "result.json").read_text())
        assert final["num_test_images"] == 6
        assert result["test_accuracy"] == final["test_accuracy"]
    assert len(commands) == 4
    run_benchmark("small_images", options, tmp_path)  # the runs are reused
    assert len(commands) == 4
    assert json.loads((tmp_path / "out.json").read_text()) == content
    (tmp_path / "work" / "random_search-1" / "benchmark.json").unlink()  # as if the run had been interrupted
    run_benchmark("small_images", options, tmp_path)
    assert len(commands) == 6
    repeated = json.loads((tmp_path / "out.json").read_text())["agents"]["random_search"]["results"]
    assert [result["test_accuracy"] for result in repeated] == accuracies
    result = run_here(module("benchmarks.small_images"), *options, "--work-dir", str(tmp_path / "work"), "--budget", "2")
    assert "work has results with other values of --budget; pass another --work-dir" in error_of(result)


def test_two_processes_can_draw_a_dataset_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "images", per_class=5)
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    args = Args(tmp_path / "images", ("cat", "dog"), num_train_images=4, num_test_images=3, work_dir=work_dir)
    copy = shutil.copy

    def copy_after_another_process(source: Path, folder: Path) -> None:
        monkeypatch.setattr(shutil, "copy", copy)
        draw_dataset(args, 0)
        copy(source, folder)

    monkeypatch.setattr(shutil, "copy", copy_after_another_process)
    assert draw_dataset(args, 0) == work_dir / "images-0"
    assert list(work_dir.iterdir()) == [work_dir / "images-0"]
    assert len(list(work_dir.rglob("*.png"))) == 2 * (4 + 3)
