"""From a folder of images to a prediction: the final network is the one that was searched, with or without a stop."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import nases_env
from nases_env.cli import main as cli
from nases_env.evaluation import PRESETS, TrainingEvaluator
from nases_env.retraining import folder as final_folder
from nases_env.search.run_dir import best_record
from tests.commands import module, run_here
from tests.training.images import write_folder

AGENT = "nases_agents.random_search"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    write_folder(path, per_class=10)
    return path


def command(line: str, status: int = 0) -> str:
    """Run a command in this process and return its output."""
    program, *words = shlex.split(line)
    result = run_here(module(AGENT) if program == AGENT else cli.main, *words)
    assert result.returncode == status, result.stderr
    return result.stdout


def interrupt(line: str, owner: type, method: str, num_calls: int) -> None:
    """Run a command that is interrupted after a number of calls of ``owner.method``."""
    original = getattr(owner, method)
    calls: list[None] = []

    def call(*args: Any, **options: Any) -> Any:
        if len(calls) == num_calls:
            raise KeyboardInterrupt
        calls.append(None)
        return original(*args, **options)

    with mock.patch.object(owner, method, call):
        command(line, status=130)


def search(images: Path, run_dir: Path) -> str:
    size = "--child.num-filters 3 --child.cells-per-stage 2 --child.image-size 10"
    data = f"--env-id NASES-ImageFolder-v0 --data-dir {images} --search-space nasbench201"  # whose children are small
    return f"{AGENT} {data} --preset smoke --budget 3 {size} --run-dir {run_dir}"


def check_network(run_dir: Path, model_dir: Path) -> None:
    """Check that the model is the best network of the search: same cells, N, F, image size and number of parameters."""
    best = best_record(run_dir)
    assert best is not None
    model = nases_env.load_model(model_dir)
    assert model.architecture.key == best["key"]
    assert (model.settings.num_filters, model.settings.cells_per_stage) == (3, 2)
    assert model.image_shape == (3, 10, 10)
    assert {name: model.description[name] for name in ("num_params", "num_flops")} == {
        name: best[name] for name in ("num_params", "num_flops")
    }


def test_final_network_is_the_one_that_was_searched(images: Path, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    command(search(images, straight))
    command(f"nases train {straight}")
    check_network(straight, straight)

    interrupt(search(images, stopped), TrainingEvaluator, "evaluate", 2)
    early = tmp_path / "early"
    assert "stopped after 2 of 3 children" in command(f"nases train {stopped} --child.num-epochs 1 --output {early}")
    check_network(stopped, early)
    command(f"{AGENT} --resume {stopped}")
    interrupt(f"nases train {stopped}", final_folder._Curves, "write", 1)
    assert "seed 0: 1 of 3 epochs, stopped" in command(f"nases status {stopped / 'final'}")
    assert "stopped after" not in command(f"nases train {stopped}")
    check_network(stopped, stopped)

    image = next((images / "test" / "cat").iterdir())
    predictions = [command(f"nases predict {run_dir} {image}") for run_dir in (straight, stopped)]
    assert predictions[0] == predictions[1]
    assert "%  cat" in predictions[0]


def test_defaults_follow_the_number_and_the_size_of_the_images(images: Path, tmp_path: Path) -> None:
    data = f"--env-id NASES-ImageFolder-v0 --data-dir {images}"
    size = "--child.num-filters 2 --child.cells-per-stage 1"
    command(f"{AGENT} {data} --budget 1 {size} --child.min-steps 3 --child.batch-size 6 --run-dir {tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["arguments"]["preset"] == "small"
    assert config["configuration"]["settings"]["weight_decay"] == PRESETS["small"].weight_decay
    (record,) = (json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines())
    assert record["num_epochs"] == 2  # the minimum; 3 steps of 6 images are one epoch of the 18 training images
    output = command(f"nases train {tmp_path} --child.min-steps 9")
    assert "min_steps 3 -> 9" in output
    assert "num_epochs 2 -> 15" in output
    model = nases_env.load_model(tmp_path)
    assert model.image_shape == (3, 16, 16)  # the images have 12 pixels
    assert model.description["num_epochs"] == 15
