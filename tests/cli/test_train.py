"""``nases train``: results, reports, errors, and resume."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nases_env
from nases_env.atomic_io import is_fresh
from nases_env.cli import main as cli
from nases_env.cli import train as command
from nases_env.cli.train import _from_file, parse_train, train_command
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, RETRAIN_PRESETS, Limits
from nases_env.networks import build_network
from nases_env.retraining import FinalFolder, folder, report
from nases_env.retraining.report import summarize, write_report
from nases_env.retraining.result import FinalResult
from nases_env.retraining.training import FinalTraining, TrainingFailedError
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.run_dir import TRAJECTORY, RunDir, best_record
from nases_env.search.time_budget import UNLIMITED_BUDGET
from nases_env.training.datasets import IMAGE_CACHE
from tests.commands import module, run_here
from tests.processes import ForkedCommand
from tests.retraining.architectures import LARGE, architecture_file, some_architecture

pytestmark = pytest.mark.usefixtures("tiny_children")

NUM_KILLS = 3
NUM_EPOCHS = 16


def train(*options: object) -> None:
    train_command(parse_train([str(option) for option in options]))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a search and return its run directory."""
    path = tmp_path_factory.mktemp("search") / "run"
    options = ("--preset", "smoke", "--budget", "2", "--num-finalists", "0", "--run-dir", str(path))
    assert run_here(module("nases_agents.random_search"), *options).returncode == 0
    return path


@pytest.fixture(scope="module")
def custom_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a search whose children differ from the preset; its trajectory is enough for the final training."""
    path = tmp_path_factory.mktemp("custom") / "run"
    changed = ("--child.num-filters", "3", "--child.momentum", "0.5", "--max-params", "100k")
    options = ("--preset", "smoke", *changed, "--budget", "2", "--num-finalists", "0", "--run-dir", str(path))
    assert run_here(module("nases_agents.random_search"), *options).returncode == 0
    (path / "best.json").unlink()
    return path


@pytest.fixture(scope="module")
def final_dir(run_dir: Path) -> Path:
    """Train the best architecture with two seeds, the second in a separate command."""
    train(run_dir, "--child.cutout-length", 2)
    train(run_dir, "--child.cutout-length", 2, "--seed", 1)
    return run_dir / "final"


def test_best_architecture_of_a_search_is_trained_and_tested(run_dir: Path, final_dir: Path) -> None:
    config = json.loads((final_dir / "config.json").read_text())["configuration"]
    best = json.loads((run_dir / "best.json").read_text())
    assert {name: config["genotype"][name] for name in ("normal", "reduction")} == {
        name: best[name] for name in ("normal", "reduction")
    }
    assert (config["dataset"], config["settings"]["cutout_length"], config["settings"]["num_epochs"]) == ("digits", 2, 3)
    results = FinalFolder(final_dir).results()
    assert [result.seed for result in results] == [0, 1]
    assert results[0].curve != results[1].curve
    assert not list(final_dir.glob("seed-*/checkpoint*"))


def test_report_describes_the_training(run_dir: Path, final_dir: Path) -> None:
    report = json.loads((final_dir / "report.json").read_text())
    errors = [seed["test_error"] for seed in report["seeds"]]
    assert report["test_error_mean"] == pytest.approx(sum(errors) / 2)
    assert report["num_seeds"] == 2
    assert report["search"]["agent"] == "random_search"
    assert report["search"]["num_children"] == 2
    text = (final_dir / "report.md").read_text()
    assert "64 training images of digits at 8 x 8 pixels at most, 3 epochs, N = 1, F = 2, cutout 2, no drop-path" in text
    assert "best of 2 children of random_search by validation accuracy" in text
    assert "Table 1" not in text  # Table 1 is on CIFAR-10


def test_tensorboard_has_the_curves(final_dir: Path) -> None:
    events = EventAccumulator(str(final_dir / "seed-1")).Reload()
    result = FinalFolder(final_dir).results()[1]
    for name in ("train_loss", "train_accuracy", "learning_rate"):
        recorded = [(event.step, event.value) for event in events.Scalars(f"final/{name}")]
        expected = [(record.epoch, pytest.approx(getattr(record, name))) for record in result.curve]
        assert recorded == expected


def test_directory_of_the_final_training_is_not_a_search(final_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="final is a final training; pass the run directory of its search"):
        train(final_dir)
    (tmp_path / "final").mkdir()
    (tmp_path / TRAJECTORY).touch()
    with pytest.raises(InputError, match="final contains no trained model") as error:
        nases_env.load_model(tmp_path / "final")
    assert str(error.value).endswith(f"`nases train {tmp_path}`")


def test_model_and_genotype_can_be_loaded(run_dir: Path, final_dir: Path) -> None:
    model = nases_env.load_model(run_dir)
    assert model.description["test_accuracy"] == FinalFolder(final_dir).results()[0].test_accuracy
    network = build_network(json.loads((final_dir / "genotype.json").read_text()))
    network.load_state_dict(model.network.state_dict())


def test_finished_seeds_are_not_trained_again(final_dir: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in final_dir.glob("seed-*/*")}
    train(run_dir, "--child.cutout-length", 2, "--seeds", 2)
    assert {path: path.stat().st_mtime_ns for path in final_dir.glob("seed-*/*")} == before
    captured = capsys.readouterr()
    assert "seed 0 is finished" in captured.err
    assert "over 2 seeds" in captured.out


def test_checkpoint_of_a_training_that_was_killed_after_its_result_is_removed(final_dir: Path, run_dir: Path) -> None:
    result, checkpoint = final_dir / "seed-0" / "result.json", final_dir / "seed-0" / "checkpoint.safetensors"
    before = result.read_bytes()
    checkpoint.write_bytes(b"the last epoch")
    assert not FinalFolder(final_dir).is_finished(0)
    train(run_dir, "--child.cutout-length", 2)
    assert not checkpoint.exists()
    assert result.read_bytes() == before


def test_missing_model_is_trained_again(tmp_path: Path) -> None:
    options = (architecture_file(tmp_path), "--dataset", "digits", "--preset", "smoke", "--child.num-epochs", 2)
    train(*options)
    folder, model = tmp_path / "final", tmp_path / "final" / "seed-0" / "model.safetensors"
    before = safetensors.torch.load(model.read_bytes())
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"is damaged .*; copy it again, or remove it and rerun `nases train`"):
        nases_env.load_model(folder)
    model.unlink()
    assert not FinalFolder(folder).is_finished(0)
    train(*options)
    after = safetensors.torch.load(model.read_bytes())
    assert all(torch.equal(after[name], before[name]) for name in before)
    events = EventAccumulator(str(folder / "seed-0")).Reload()
    assert [event.step for event in events.Scalars("final/train_loss")] == [1, 2]


def test_failed_seed_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (architecture_file(tmp_path), "--dataset", "digits", "--preset", "smoke", "--child.num-epochs", 1)
    run = FinalTraining.run

    def run_or_fail(training: FinalTraining, seed: int, *arguments: Any) -> Any:
        if seed < 2:
            raise TrainingFailedError(seed, 1, "diverged")
        return run(training, seed, *arguments)

    monkeypatch.setattr(FinalTraining, "run", run_or_fail)
    with pytest.raises(TrainingFailedError, match=r"^the training with seed 0 failed in epoch 1"):
        train(*options, "--seeds", 2)
    assert not list((tmp_path / "final").glob("report.*"))
    with pytest.raises(TrainingFailedError, match=r"^the training with seed 1 failed in epoch 1"):
        train(*options, "--seeds", 2, "--seed", 1)
    assert [seed["seed"] for seed in json.loads((tmp_path / "final" / "report.json").read_text())["seeds"]] == [2]
    assert "over 1 seed\n" in capsys.readouterr().out


def test_settings_default_to_those_of_the_search(custom_run: Path) -> None:
    final = dataclasses.replace(RETRAIN_PRESETS["smoke"], num_filters=3, momentum=0.5)
    assert parse_train([str(custom_run)]).child == final
    changed = parse_train(["--child.num-epochs", "4", str(custom_run), "--child.auxiliary-head", "True"]).child
    assert changed == dataclasses.replace(final, num_epochs=4, auxiliary_head=True)
    preset = parse_train([str(custom_run), "--preset", "cpu", "--child.lr-min", "0"]).child
    assert preset == dataclasses.replace(RETRAIN_PRESETS["cpu"], lr_min=0)


@pytest.mark.parametrize("options", [[], ["--preset", "cpu"], ["--max-memory", "1MiB"]])
def test_limits_default_to_those_of_the_search(custom_run: Path, options: list[str]) -> None:
    max_memory = 2**20 if "--max-memory" in options else None
    assert parse_train([str(custom_run), *options]).limits == Limits(max_params=100_000, max_memory=max_memory)
    assert not parse_train([str(custom_run), "--max-params", "none"]).limits


@pytest.mark.parametrize(
    ("options", "defaults"),
    [
        (["RUN"], {"num-filters": "3", "num-epochs": "3", "momentum": "0.5"}),
        (["--seeds", "2", "RUN", "--preset", "cpu"], {"num-filters": "8", "num-epochs": "15", "momentum": "0.9"}),
        (["--preset", "cpu"], {"num-filters": "8", "num-epochs": "15", "momentum": "0.9"}),
    ],
)
def test_help_shows_the_resulting_defaults(custom_run: Path, options: list[str], defaults: dict[str, str]) -> None:
    words = [str(custom_run) if word == "RUN" else word for word in options]
    shown = run_here(cli.main, "train", *words, "--help").stdout
    for name, value in defaults.items():
        (text,) = re.findall(rf"--child\.{name} .*?\(default: (.*?)\)", shown, re.DOTALL)
        assert text == value


def test_network_of_the_search_is_trained(custom_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [json.loads(line) for line in (custom_run / "evaluations.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: record["reward"])
    train(custom_run, "--child.num-epochs", 1, "--output", tmp_path / "final")
    report = json.loads((tmp_path / "final" / "report.json").read_text())
    assert report["num_params"] == best["num_params"]
    assert report["changed_settings"] == {
        "num_cycles": [3, 1],
        "schedule": ["triangular", "cosine"],
        "lr_max": [0.1, 0.05],
        "num_train_images": [32, 64],
    }
    changes = "num_cycles 3 -> 1, schedule triangular -> cosine, lr_max 0.1 -> 0.05, num_train_images 32 -> 64"
    assert f"Changed from the search: {changes}.\n" in capsys.readouterr().out
    assert f"Changed from the search: {changes}.\n" in (tmp_path / "final" / "report.md").read_text()


def test_limit_of_the_search_is_enforced(custom_run: Path, tmp_path: Path) -> None:
    options = ("--child.num-epochs", 1, "--output", tmp_path / "final")
    size = ("--preset", "smoke", "--child.num-filters", 30)
    with pytest.raises(InputError, match=r"the final network has [\d,]+ parameters, more than max_params = 100,000;"):
        train(custom_run, *size, *options)
    with pytest.raises(InputError, match="more than max_params = 20;"):
        train(custom_run, "--max-params", 20, *options)
    with pytest.raises(InputError, match=r"the final network has [\d,]+ FLOPs for one image, more than max_flops = 2,000;"):
        train(custom_run, "--max-flops", "2k", *options)
    assert not list(tmp_path.iterdir())
    train(custom_run, *size, "--max-params", "none", *options)
    report = json.loads((tmp_path / "final" / "report.json").read_text())
    assert report["num_params"] > 100_000
    assert report["changed_settings"]["num_filters"] == [3, 30]


def test_search_that_is_resumed_while_it_is_read_is_refused(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "final"
    directory = RunDir(run_dir)

    def best_record_when_resumed(path: Path) -> dict[str, Any] | None:
        directory.lock()
        return best_record(path)

    monkeypatch.setattr(command, "best_record", best_record_when_resumed)
    with contextlib.closing(directory), pytest.raises(InputError, match=r"a search is writing to .*run; wait until it ends"):
        train(run_dir, "--output", output)
    assert not output.exists()


@pytest.mark.parametrize(
    ("budget", "time", "children"), [(30, None, "2 of 30 children"), (UNLIMITED_BUDGET, 600.0, "2 children")]
)
def test_stopped_search_can_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: int, time: float | None, children: str
) -> None:
    args = SearchArgs(preset="smoke", budget=budget, time=time, run_dir=tmp_path / "run")
    assert args.run_dir is not None
    with SearchRun(args, agent="random_search") as run:
        space, rng = run.env.search_space, np.random.default_rng(0)
        run.loop.evaluate_all([space.sample(rng) for _ in range(2)])
        with pytest.raises(InputError, match=r"a search is writing to .*run; wait until it ends, or stop it"):
            train(args.run_dir)
    assert run.loop.best is not None
    (args.run_dir / "best.json").write_text(space.to_json(space.sample(rng)))  # of another child
    train(args.run_dir, "--child.num-epochs", 1)
    sentence = f"The search was stopped after {children}."
    assert sentence in capsys.readouterr().out
    assert sentence in (args.run_dir / "final" / "report.md").read_text()
    report = json.loads((args.run_dir / "final" / "report.json").read_text())
    assert (report["search"]["num_children"], report["search"]["budget"]) == (2, 30 if time is None else None)
    assert f" · {children} · " in (args.run_dir / "report.html").read_text()
    assert report["num_params"] == run.loop.best.evaluation.num_params
    config = json.loads((args.run_dir / "final" / "config.json").read_text())
    assert config["configuration"]["key"] == run.loop.best.architecture.key
    with pytest.raises(InputError, match="is the training of another architecture; choose a different --output"):
        train(architecture_file(tmp_path), "--dataset", "digits", "--output", args.run_dir / "final")


def test_search_without_a_trained_child_is_an_error(tmp_path: Path) -> None:
    diverging = dataclasses.replace(PRESETS["smoke"], lr_max=1e30)
    args = SearchArgs(preset="smoke", budget=2, run_dir=tmp_path / "run", child=diverging)
    with SearchRun(args, agent="random_search") as run:
        run.loop.evaluate_all([run.env.search_space.sample(np.random.default_rng(0))])
    with pytest.raises(InputError, match=r"no child of .*run was trained successfully; resume the search, or run a new one"):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "final").exists()


def write_arrays(path: Path, num_test_images: int) -> None:
    rng = np.random.default_rng(0)
    numbers = {"train": 40, "test": num_test_images}
    arrays: dict[str, Any] = {}
    for split, number in numbers.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (number, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = np.arange(number) % 2
    np.savez(path, **arrays)
    IMAGE_CACHE.clear()  # as in a new process


def test_seeds_have_the_same_test_images(tmp_path: Path) -> None:
    data, final = tmp_path / "data.npz", tmp_path / "final"
    options = ("--dataset", "image_folder", "--data-dir", data, "--preset", "smoke", "--child.num-epochs", 1)
    write_arrays(data, 20)
    train(architecture_file(tmp_path), *options, "--output", final)
    write_arrays(data, 10)
    with pytest.raises(InputError, match="was started with different values of test_images"):
        train(architecture_file(tmp_path), *options, "--output", final, "--seed", 1)
    write_arrays(data, 20)
    config = json.loads((final / "config.json").read_text())
    del config["configuration"]["test_images"]  # as in earlier versions
    (final / "config.json").write_text(json.dumps(config))
    train(architecture_file(tmp_path), *options, "--output", final, "--seed", 1)
    assert json.loads((final / "report.json").read_text())["num_seeds"] == 2


def test_automatic_preset_is_that_of_the_data(tmp_path: Path) -> None:
    write_arrays(tmp_path / "data.npz", 20)
    options = ("--preset", "smoke", "--budget", "1", "--num-finalists", "0", "--run-dir", str(tmp_path / "run"))
    data = ("--env-id", "NASES-ImageFolder-v0", "--data-dir", str(tmp_path / "data.npz"))
    assert run_here(module("nases_agents.random_search"), *options, *data).returncode == 0
    for words in ([tmp_path / "run"], [architecture_file(tmp_path), *data[2:], "--dataset", "image_folder"]):
        assert parse_train([*map(str, words), "--preset", "auto"]).child == RETRAIN_PRESETS["small"]
    assert parse_train([str(tmp_path / "run"), "--preset", "auto", "--dataset", "digits"]).child == RETRAIN_PRESETS["cpu"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--child.num-epochs", 4],
            "different values of num_epochs, cutout_length; restore them to resume it, or choose a different --output",
        ),
        (["--seeds", 0], "--seeds must be at least 1"),
        (["--num-threads", 0], "--num-threads must be at least 1, not 0"),
        (["--num-threads", 100000], "--num-threads must be at most 1024, not 100000"),
        (["--max-latency", "2ms"], "--max-latency limits searches only; pass it to the search, or limit the costs"),
        (["--preset", "papr"], "unknown preset 'papr' .did you mean 'paper'"),
        (["--child.num-valid-images", 9], "--child.num-valid-images has no effect on a final training"),
        (["--child.reward-signal", "training_speed"], "--child.reward-signal has no effect on a final training; omit it"),
        (["--child.flops-exponent", 0.5], "--child.flops-exponent has no effect on a final training; omit it"),
        (
            ["--child.schedule", "triangular", "--child.num-cycles", 2],
            "--child.num-cycles has no effect with the schedule triangular; omit it",
        ),
        (
            ["--child.schedule", "triangular", "--child.lr-min", 0.01],
            "--child.lr-min has no effect with the schedule triangular; omit it",
        ),
        (["--search-space", "enas_micro"], "--search-space is only for an architecture file"),
        (["--child.batch-size", 1], "batch_size must be at least 2, not 1"),
        (["--dataset", "digit", "--output", "new"], "unknown data set 'digit' .did you mean 'digits'"),
    ],
)
def test_invalid_input_is_a_one_line_error(
    run_dir: Path, final_dir: Path, options: list[object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        train(run_dir, *options)
    assert not list(tmp_path.iterdir())


def test_invalid_source_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .* pass a run directory or an architecture file"):
        train(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"is not a run directory"):
        train(tmp_path)
    path = architecture_file(tmp_path)
    with pytest.raises(InputError, match="does not specify a data set; pass --dataset: cifar10"):
        train(path)
    with pytest.raises(InputError, match="exists and is not a final training; choose a different --output"):
        train(path, "--dataset", "digits", "--preset", "smoke", "--output", tmp_path)
    path.write_text("{}")
    with pytest.raises(InputError, match="genotype of enas_micro"):
        train(path, "--dataset", "digits")
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.json"]


def test_genotype_of_a_model_can_be_trained(final_dir: Path, tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--preset", "smoke", "--child.num-epochs", 1, "--output", tmp_path / "final")
    train(final_dir / "genotype.json", *options)
    before, after = (json.loads((folder / "genotype.json").read_text()) for folder in (final_dir, tmp_path / "final"))
    assert before == after


def test_concurrent_training_of_a_seed_is_an_error(tmp_path: Path) -> None:
    options = (architecture_file(tmp_path), "--dataset", "digits", "--preset", "smoke", "--child.num-epochs", 1)
    train(*options, "--seed", 1)
    with _locked(tmp_path / "final" / "seed-0"), pytest.raises(InputError, match=r"another process is training in .*seed-0"):
        train(*options)
    train(*options)


def test_two_commands_can_start_in_a_new_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = parse_train([str(architecture_file(tmp_path)), "--dataset", "digits", "--preset", "smoke"])
    training, final = _from_file(args), FinalFolder(tmp_path / "final")
    other = threading.Thread(target=lambda: final.open(training))

    def is_fresh_while_another_starts(*arguments: Any) -> bool:
        if not other.ident:
            other.start()
            other.join(0.5)
        return is_fresh(*arguments)

    monkeypatch.setattr(folder, "is_fresh", is_fresh_while_another_starts)
    final.open(training)
    other.join()
    assert {path.name for path in final.path.iterdir()} == {"config.json", "genotype.json"}


def test_report_has_the_seeds_that_finish_while_it_is_written(
    final_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = FinalFolder(tmp_path / "final")
    shutil.copytree(final_dir, final.path)
    num_seeds = len(final.results())
    other = threading.Thread(target=lambda: write_report(final, None))

    def summarize_while_another_finishes(results: Sequence[FinalResult]) -> dict[str, Any]:
        if not other.ident:
            values = {**json.loads((final.path / "seed-0" / "result.json").read_text()), "seed": 7}
            (final.path / "seed-7").mkdir()
            (final.path / "seed-7" / "result.json").write_text(json.dumps(values))
            other.start()
            other.join(0.5)
        return summarize(results)

    monkeypatch.setattr(report, "summarize", summarize_while_another_finishes)
    write_report(final, None)
    other.join()
    assert len(json.loads((final.path / "report.json").read_text())["seeds"]) == num_seeds + 1


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """After SIGKILL at random times, weights, result and curves are bit-identical to those of an uninterrupted training."""
    path = architecture_file(tmp_path, LARGE)
    options: list[object] = [path, "--dataset", "digits", "--preset", "smoke", "--child.num-epochs", NUM_EPOCHS]
    options += ["--child.num-train-images", 32, "--child.drop-path-prob", 0.4]
    options += ["--child.cutout-length", 3, "--child.flip", True]
    train(*options, "--output", tmp_path / "uninterrupted")

    rng = random.Random(0)
    checkpoint = tmp_path / "killed" / "seed-0" / "checkpoint.safetensors"
    arguments = [str(option) for option in (*options, "--output", tmp_path / "killed")]
    for _ in range(NUM_KILLS):
        before = _mtime(checkpoint)
        process = ForkedCommand(cli.main, "train", *arguments, folder=tmp_path)
        deadline = time.monotonic() + 120
        while _mtime(checkpoint) == before and process.is_running() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait().returncode == -signal.SIGKILL, "the training finished before it was killed"
    assert FinalFolder(tmp_path / "killed").results() == []
    time.sleep(1)  # TensorBoard orders event files by their time in seconds
    train(*options, "--output", tmp_path / "killed")

    models = [
        safetensors.torch.load_file(tmp_path / name / "seed-0/model.safetensors") for name in ("uninterrupted", "killed")
    ]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    results = [FinalFolder(tmp_path / name).results()[0] for name in ("uninterrupted", "killed")]
    assert dataclasses.replace(results[0], seconds=0.0) == dataclasses.replace(results[1], seconds=0.0)
    steps = [event.step for event in EventAccumulator(str(checkpoint.parent)).Reload().Scalars("final/train_loss")]
    assert steps == list(range(1, NUM_EPOCHS + 1))
    assert sorted(entry.name.split(".")[0] for entry in checkpoint.parent.iterdir() if "events" not in entry.name) == [
        "model",
        "result",
    ]
    assert results[0].num_correct > 0
    config = json.loads((tmp_path / "killed" / "config.json").read_text())
    assert some_architecture(LARGE).key == config["configuration"]["key"]


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
