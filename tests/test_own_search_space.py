"""The tutorial on a search space of one's own, as a person reads and runs it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nases_env.networks import NetworkSettings, count_parameters

EXAMPLES = Path(__file__).parents[1] / "examples"
SPACE = "own_search_space:WidthsAndKernels"


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("own_search_space")


def test_it_pretrains_searches_and_shows_the_best(tutorial: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tutorial.main(num_children=2, num_pretraining_steps=150)
    shown = capsys.readouterr().out
    kept, by_chance = map(int, re.findall(r"(\d+)%", shown.splitlines()[0]))
    assert kept > by_chance + 20
    rewards = re.findall(r"^validation accuracy (0\.\d+), ", shown, flags=re.MULTILINE)
    assert len(rewards) == 2
    assert f"the best of 2: validation accuracy {float(max(rewards)):.2%}, " in shown
    assert "decision 8: " in shown


def test_every_decision_changes_the_network(tutorial: ModuleType) -> None:
    space = tutorial.WidthsAndKernels()
    settings = NetworkSettings()
    smallest = space.build(space.architecture([0] * 9), settings, num_classes=10, image_shape=(1, 8, 8))
    assert smallest(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    for index in range(9):
        decisions = [0] * 9
        decisions[index] = 1
        changed = space.build(space.architecture(decisions), settings, num_classes=10, image_shape=(1, 8, 8))
        if index % 3 == 2:
            assert [str(layer) for layer in changed.modules()] != [str(layer) for layer in smallest.modules()]
        else:
            assert count_parameters(changed) > count_parameters(smallest)


def test_its_command_lines_work_in_its_folder(tmp_path: Path) -> None:
    weights = tmp_path / "widths_and_kernels.safetensors"
    run_dir = tmp_path / "run"
    nases = Path(sys.executable).parent / "nases"
    quick = ["--preset", "smoke", "--budget", "2", "--run-dir", str(run_dir)]
    run(nases, "pretrain", "--search-space", SPACE, "--output", weights, "--num-steps", "2")
    run(sys.executable, "../agents/reinforce.py", "--search-space", SPACE, "--embedding", weights, *quick)
    shown = run(nases, "draw", "--search-space", SPACE, run_dir / "best.json")
    assert shown.startswith("decision 0: ")


def run(*command: str | Path) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=EXAMPLES, env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout
