"""From a folder of images to an int8 ONNX file: ``nases search``, ``nases train``, ``nases export --int8``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import nases_env
from nases_env.cli import export as command
from nases_env.cli import main as cli
from nases_env.model_io.export_int8 import Measured, Quantized
from nases_env.retraining.image_splits import read_splits
from tests.commands import error_of, run_here

NUM_IMAGES = 20  # of each class, for training
NUM_EPOCHS = 15  # after one, the logits of both classes are almost equal, and any rounding changes the class


def write_shades(folder: Path, seed: int = 0) -> None:
    """Write noisy images whose brightness shows their class."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", NUM_IMAGES), ("test", 2)):
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(60 + 80 * label, 120 + 80 * label, size=(12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def nases(*words: object) -> subprocess.CompletedProcess[str]:
    return run_here(cli.main, *map(str, words))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_shades(folder)
    return folder


@pytest.fixture(scope="module")
def run_dir(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "run"
    few = ("--preset", "smoke", "--budget", 2, "--num-envs", 1, "--num-finalists", 0, "--quiet")
    search = ("search", images, "--search-space", "nasbench201", *few, "--run-dir", path)
    for words in (search, ("train", path, "--child.num-epochs", NUM_EPOCHS)):
        result = nases(*words)
        assert result.returncode == 0, result.stderr
    return path


@pytest.fixture
def exports(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run directory, for exports."""
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def test_int8_file_of_a_folder_of_images_is_small_and_classifies_as_the_model_does(images: Path, exports: Path) -> None:
    moved = Path(shutil.copytree(images, exports / "moved"))
    result = nases("export", exports, "--format", "onnx", "--int8", "--data-dir", moved, "--calibration-images", 30)
    assert (result.returncode, result.stderr) == (0, "")
    file = exports / "final" / "seed-0" / "model.int8.onnx"
    assert file.stat().st_size < 25_000
    assert f"{file.stat().st_size / 1000:,.1f} kB" in result.stdout
    assert "of the 4 validation images, which the final training may have used" in result.stdout
    assert "Calibrated on 30 other training images." in result.stdout
    assert f"{file}: 2 classes, int8" in result.stdout

    model = nases_env.load_model(exports)
    paths = sorted((images / "train").rglob("*.png"))
    pixels = torch.cat([model.preprocess(path) for path in paths])
    with torch.inference_mode():
        expected = model(pixels)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(session.run(["logits"], {"images": pixels.numpy()})[0])
    assert len(paths) == 2 * NUM_IMAGES
    assert (logits.argmax(1) == expected.argmax(1)).double().mean() >= 0.95
    assert (logits - expected).abs().max() < 0.3 * (expected.max() - expected.min())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["dark", "light"]


def test_calibration_uses_no_validation_and_no_test_images(images: Path, run_dir: Path, tmp_path: Path) -> None:
    file = run_dir / "final" / "seed-0" / "model.safetensors"
    train, valid = read_splits(file)
    assert (len(train), len(valid)) == (36, 4)
    rows = [image.flatten().tolist() for image in (*train.images, *valid.images)]
    copied = Path(shutil.copytree(images, tmp_path / "images"))
    shutil.rmtree(copied / "test")
    again, _ = read_splits(file, str(copied))
    assert torch.equal(again.images, train.images)
    assert len({tuple(row) for row in rows}) == 40


def test_images_are_those_of_the_final_training(
    exports: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, final = tmp_path / "other", exports / "other"
    write_shades(other, seed=1)
    assert "the images are not" not in (exports / "final" / "report.md").read_text().lower()
    few = ("--child.num-epochs", 1, "--child.num-train-images", 30)
    result = nases("train", exports, "--data-dir", other, *few, "--output", final)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[0] == "note: The images are not those of the search."
    assert "\n\nThe images are not those of the search.\n" in (final / "report.md").read_text()
    assert json.loads((final / "report.json").read_text())["search"]["has_same_images"] is False
    assert json.loads((final / "config.json").read_text())["num_train_images"] == 30

    message = error_of(nases("export", final, "--int8"))
    assert f"the images of {images} are not those of the final training in {final}; pass" in message
    message = error_of(nases("export", exports, "--int8", "--data-dir", other))
    assert f"the images of {other} are not those of the final training in {exports / 'final'}; pass" in message
    assert not list(exports.rglob("*.onnx"))
    export = Mock(return_value=Quantized(Measured(0.9, 4000, 1e-3), Measured(0.9, 2000, 2e-3), 0.9, 36, 4))
    monkeypatch.setattr(command, "export_int8", export)
    result = nases("export", final, "--int8", "--data-dir", other)
    assert result.returncode == 0, result.stderr
    expected = read_splits(final / "seed-0" / "model.safetensors", str(other))
    for split, images_of_split in zip(export.call_args.args[2:], expected, strict=True):
        assert torch.equal(split.images, images_of_split.images)


def test_configuration_next_to_an_architecture_file_is_not_that_of_a_search(
    run_dir: Path, images: Path, tmp_path: Path
) -> None:
    final = Path(shutil.copytree(run_dir / "final", tmp_path / "final"))
    (tmp_path / "config.json").write_text('{"name": "a project"}')
    train, valid = read_splits(final / "seed-0" / "model.safetensors", str(images))
    assert (len(train), len(valid)) == (36, 4)


def test_directory_of_a_table_is_not_that_of_the_images(
    exports: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((exports / "config.json").read_text())
    config["arguments"]["data_dir"] = "tables"
    config["configuration"]["evaluator"] = "nasbench201 table"
    (exports / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("NASES_DATA_DIR", str(images))
    train, _ = read_splits(exports / "final" / "seed-0" / "model.safetensors")
    assert len(train) == 36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8", "--format", "torch-export"], "--int8 is only for --format onnx, not torch-export; omit one of them"),
        (["--int8", "--format", "python"], "--int8 is only for --format onnx, not python; omit one of them"),
        (["--data-dir", "images"], "--data-dir is only for --int8; add --int8, or omit it"),
        (["--calibration-images", "9"], "--calibration-images is only for --int8; add --int8, or omit it"),
        (["--int8", "--calibration-images", "0"], "--calibration-images must be at least 1, not 0"),
        (["--int8", "--data-dir", "absent"], "absent is not a directory of images"),
        (["--int8", "--output", "{run}"], "is a directory; pass a file to --output, such as {run}/model.int8.onnx"),
    ],
)
def test_invalid_options_are_one_line_errors_and_nothing_is_written(options: list[str], message: str, exports: Path) -> None:
    before = sorted(exports.rglob("*"))
    result = nases("export", exports, *(option.format(run=exports) for option in options))
    assert message.format(run=exports) in error_of(result)
    assert sorted(exports.rglob("*")) == before


def test_int8_export_of_a_single_model_file_names_the_run_directory(run_dir: Path, tmp_path: Path) -> None:
    shutil.copy(run_dir / "final" / "seed-0" / "model.safetensors", tmp_path / "model.safetensors")
    message = error_of(nases("export", tmp_path / "model.safetensors", "--int8"))
    assert "is not in the directory of a final training, which names the data set; pass the run directory" in message
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "onnxruntime.quantization"])
def test_missing_package_is_a_one_line_error(package: str, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'nases-env[export]'" in error_of(nases("export", exports, "--int8"))
    assert not list(exports.rglob("*.onnx"))


def test_lower_accuracy_is_stated(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "percentage points lower, which is more than 1: use the float model, or more --calibration-images."
    for accuracy, is_lower in ((0.875, True), (0.895, False)):
        measured = Quantized(Measured(0.9, 4000, 1e-3), Measured(accuracy, 2000, 2e-3), 0.9, 36, 4)
        monkeypatch.setattr(command, "export_int8", Mock(return_value=measured))
        result = nases("export", exports, "--int8")
        assert result.returncode == 0
        assert (f"The accuracy of int8 is 2.5 {text}" in result.stdout) is is_lower
        assert (text in result.stdout) is is_lower
