"""The examples run. ``custom_search_space.py`` and ``reinforce_single_file.py`` have tests of their own."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nases_env.evaluation import PRESETS
from tests.commands import ROOT, run_here, script

EXAMPLES = ROOT / "examples"
SHORT = (
    "image_folder",
    "optuna_tuning",
    "own_agent",
    "ppo",
    "sb3_callbacks",
    "step_by_step",
    "tianshou_ppo",
    "torchrl_collector",
)

Import = Callable[[str], ModuleType]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Import:
    """Import an example, in an empty working directory."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return importlib.import_module


def gain(rewards: list[float]) -> float:
    """Return the mean of the last quarter of ``rewards`` minus that of the first."""
    quarter = len(rewards) // 4
    return float(np.mean(rewards[-quarter:]) - np.mean(rewards[:quarter]))


def test_steps_are_printed(example: Import, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "cpu", PRESETS["smoke"])
    example("step_by_step").main()
    assert capsys.readouterr().out.count("reward") == 3


def test_ppo_learns(example: Import) -> None:
    """With a learning rate of 0, the gain is between -0.02 and 0.02."""
    module = example("ppo")
    assert gain(module.train(module.Args(num_children=768))) > 0.05


@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
def test_torchrl_learns(example: Import) -> None:
    module = example("torchrl_collector")
    assert gain(module.train(module.Args(num_children=768))) > 0.05


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Tianshou needs Python 3.11")
def test_tianshou_learns(example: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)  # compiling three short loops takes seconds
    module = example("tianshou_ppo")
    assert gain(module.train(module.Args(num_children=768))) > 0.05


def test_sb3_callbacks_write_checkpoints_curves_and_the_best_architecture(example: Import, tmp_path: Path) -> None:
    module = example("sb3_callbacks")
    best = module.train(module.Args(num_children=512, target_reward=0.3, output=tmp_path))
    assert best.best_reward >= 0.3
    assert best.num_timesteps < 512  # stopped at the target
    assert json.loads((tmp_path / "best.json").read_text())["search_space"] == "enas_micro"
    assert list(tmp_path.glob("*/events.out.tfevents.*"))
    module.train(module.Args(num_children=128, target_reward=2.0, output=tmp_path))
    assert list(tmp_path.glob("rl_model_*.zip"))


def test_optuna_finds_hyperparameters_within_their_ranges(example: Import) -> None:
    module = example("optuna_tuning")
    params, default, tuned = module.tune(module.Args(num_trials=3, num_landscapes=2, budget=30))
    assert 2 <= params["sample_size"] <= params["population_size"] <= 100
    assert 0 < default < 1
    assert 0 < tuned < 1


def test_own_agent_is_better_than_random_search(example: Import, capsys: pytest.CaptureFixture[str]) -> None:
    example("own_agent").main(num_seeds=4, budget=150)
    rewards = dict(re.findall(r"^(\w+): (\S+)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert float(rewards["HillClimbing"]) > float(rewards["RandomSearch"]) + 0.05


def test_image_folder_is_written_and_searched(example: Import, tmp_path: Path) -> None:
    few = ("--num-train-images", "8", "--num-test-images", "2", "--preset", "smoke", "--budget", "2")
    result = run_here(script(EXAMPLES / "image_folder.py"), "--data-dir", "images", *few)
    assert result.stdout.startswith("best of 2: validation accuracy "), result.stderr
    assert len(list((tmp_path / "images").glob("*/*/*.png"))) == 4 * (8 + 2)


@pytest.mark.usefixtures("example")
def test_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib.pyplot as plt

    num_shown = 0

    def show() -> None:
        nonlocal num_shown
        num_shown += 1
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    namespace: dict[str, object] = {}
    for cell in code:
        exec(cell.replace('PRESET = "cpu"', 'PRESET = "smoke"').replace("budget=10", "budget=3"), namespace)
    assert num_shown == 3
    printed = capsys.readouterr().out
    assert (printed.count("validation accuracy"), printed.count("reward")) == (1, 4)


@pytest.mark.parametrize("name", SHORT)
def test_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


def test_page_describes_every_example() -> None:
    page = (ROOT / "docs" / "examples.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f"](../examples/{path.name})" in page
