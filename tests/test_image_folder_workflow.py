"""From a folder of images to a prediction: the final network is the one that was searched, with or without a stop."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import nases_env
from nases_env.cli import main as cli
from nases_env.evaluation import PRESETS, TrainingEvaluator, measure_latencies
from nases_env.evaluation.training import SPLIT_CACHE
from nases_env.retraining import folder as final_folder
from nases_env.search.run_dir import best_record
from nases_env.training.datasets import IMAGE_CACHE
from tests.commands import error_of, module, run_here
from tests.search.conftest import report_nothing
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


def test_images_and_working_directory_may_change(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images are needed, wherever they are; another directory of the same name is never used in their place."""
    report_nothing(monkeypatch)
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    shutil.copytree(images, "images")
    run_dir, data = tmp_path / "run", tmp_path / "moved"
    command(search(Path("images"), run_dir).replace("--budget 3", "--budget 1 --num-finalists 0"))
    monkeypatch.chdir(tmp_path / "here")

    (tmp_path / "there" / "images").rename(data)
    write_folder(tmp_path / "there" / "images", per_class=9)  # other images
    IMAGE_CACHE.clear()
    SPLIT_CACHE.clear()
    program = ("--resume", str(run_dir), "--budget", "2")
    error = error_of(run_here(module(AGENT), *program))
    assert f"{run_dir} cannot be resumed: the evaluation settings changed (images); restore them" in error
    error = error_of(run_here(cli.main, "train", str(run_dir)))
    recorded = tmp_path / "there" / "images"
    assert f"the images of {recorded} are not those of the search in {run_dir}; pass their directory (--data-dir)" in error
    assert not (run_dir / "final").exists()
    assert "these settings differ" in error_of(run_here(cli.main, "report", str(run_dir), "--latency"))

    monkeypatch.setitem(measure_latencies.__kwdefaults__ or {}, "round_seconds", 0.0)
    command(f"nases report {run_dir} --latency --data-dir ../moved")
    assert "1 of 1 children were reproduced" in command(f"nases validate {run_dir} --data-dir ../moved")
    config = json.loads((run_dir / "config.json").read_text())
    assert config["arguments"]["data_dir"] == str(recorded)
    config["arguments"]["data_dir"] = "images"  # earlier versions recorded the path as it was given
    (run_dir / "config.json").write_text(json.dumps(config))
    result = run_here(module(AGENT), *program, "--data-dir", "../moved")
    assert result.returncode == 0, result.stderr
    assert Path(json.loads((run_dir / "config.json").read_text())["arguments"]["data_dir"]).samefile(data)


def test_defaults_follow_the_number_and_the_size_of_the_images(images: Path, tmp_path: Path) -> None:
    data = f"--env-id NASES-ImageFolder-v0 --data-dir {images} --search-space nasbench201"  # whose children are small
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
