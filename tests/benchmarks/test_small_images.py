"""The benchmark of small image data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import small_images
from benchmarks.small_images import Args, main
from nases_env.cli import main as cli
from tests.commands import module, run_here
from tests.training.images import write_folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the commands in this process, and return the list of them."""
    started: list[list[str]] = []

    def run(options: list[str]) -> None:
        started.append(options)
        flag, program, *words = options
        result = run_here(module(program) if flag == "-m" else cli.main, *words)
        assert result.returncode == 0, result.stderr

    monkeypatch.setattr(small_images, "_run", run)
    return started


def test_networks_are_compared_with_a_random_forest(tmp_path: Path, commands: list[list[str]]) -> None:
    write_folder(tmp_path / "images", per_class=5)
    options: dict[str, Any] = {"classes": ("cat", "dog"), "num_train_images": 4, "num_test_images": 3, "num_seeds": 2}
    paths: dict[str, Any] = {"data_dir": tmp_path / "images", "work_dir": tmp_path / "work", "output": tmp_path / "out.json"}
    args = Args(**options, **paths, agents=("random_search",), budget=1, preset="smoke")
    main(args)
    content = json.loads(args.output.read_text())
    forest, agent = content["random_forest"], content["agents"]["random_search"]
    accuracies = [result["test_accuracy"] for result in agent["results"]]
    assert agent["difference"]["value"] == pytest.approx(sum(accuracies) / 2 - sum(forest["test_accuracies"]) / 2)
    for seed, result in enumerate(agent["results"]):
        final = json.loads((args.work_dir / f"random_search-{seed}" / "final" / f"seed-{seed}" / "result.json").read_text())
        assert final["num_test_images"] == 6
        assert result["test_accuracy"] == final["test_accuracy"]
    assert len(commands) == 4
    main(args)  # the runs are reused
    assert len(commands) == 4
    assert json.loads(args.output.read_text()) == content
