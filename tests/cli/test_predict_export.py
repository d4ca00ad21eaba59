"""``nases export``, ``nases predict``, and ``nases draw`` for the genotype of a trained model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nases_env.cli import main as cli
from nases_env.errors import InputError
from nases_env.model_io import save_model, write_genotype
from tests.model_io.conftest import tiny_model
from tests.training.images import write_image

Nases = Callable[..., None]


@pytest.fixture
def nases(monkeypatch: pytest.MonkeyPatch) -> Nases:
    """Run ``nases`` with the given arguments."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["nases", *map(str, arguments)])
        cli._main()

    return run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    save_model(tiny_model(), tmp_path / "run" / "final" / "seed-0" / "model.safetensors")
    return tmp_path / "run"


def test_export_writes_next_to_the_model_and_prints_the_difference(
    nases: Nases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "tests.model_io.spaces:TiedWidths"
    save_model(tiny_model(own, genotype={"decisions": [0, 0]}), tmp_path / "seed-0" / "model.safetensors")
    nases("export", tmp_path, "--format", "torch-export", "--batch-size", 2, "--search-space", own)
    file = tmp_path / "seed-0" / "model.pt2"
    assert torch.export.load(file).module()(torch.rand(2, 1, 7, 9)).shape == (2, 3)
    out = capsys.readouterr().out
    size = f"{file.stat().st_size / 1000:,.1f} kB"
    pattern = (
        rf"{file}: 3 classes; {size}; \S+ ms for 2 images with one thread; its logits differ from the model's by at most "
    )
    assert re.match(pattern, out)
    assert float(out.split()[-1]) <= 1e-4


def test_export_rejects_a_directory_and_a_run_without_a_model(nases: Nases, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory; pass a file to --output, such as .*model\.onnx"):
        nases("export", run_dir, "--output", tmp_path)
    with pytest.raises(InputError, match=r"\.py is the suffix of --format python, not onnx; change --output or --format"):
        nases("export", run_dir, "--output", tmp_path / "model.py")
    model = run_dir / "final" / "seed-0" / "model.safetensors"
    before = model.read_bytes()
    with pytest.raises(InputError, match="would replace the file that is read; choose a different file"):
        nases("export", run_dir, "--format", "python", "--output", model)
    assert model.read_bytes() == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"contains no trained model; pass a model\.safetensors or a run directory"):
        nases("export", tmp_path / "empty")


def test_predict_classifies_every_image(
    nases: Nases, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for seed, image in enumerate(images):
        write_image(image, seed=seed)
    nases("predict", run_dir, *images, "--top", 2)
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[3]] == [f"{image}:" for image in images]
    (first, name), (second, _) = (line.split() for line in lines[1:3])
    assert name in ("cat", "dog", "eel")
    assert 0 < float(second[:-1]) <= float(first[:-1]) <= 100
    assert len(lines) == 6


def test_unreadable_image_is_a_one_line_error_and_the_others_are_classified(
    nases: Nases, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "good.png")
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(SystemExit) as caught:
        nases("predict", run_dir, tmp_path / "page.png", tmp_path / "good.png", tmp_path / "absent.png")
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'good.png'}:\n")
    errors = err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"error: {tmp_path / 'page.png'} is not a valid PNG, JPEG or TIFF image")
    assert errors[1].startswith(f"error: cannot read {tmp_path / 'absent.png'}")


def test_predict_requires_an_image_and_a_positive_number(nases: Nases, run_dir: Path) -> None:
    with pytest.raises(InputError, match="no image given"):
        nases("predict", run_dir)
    with pytest.raises(InputError, match="--top must be at least 1"):
        nases("predict", run_dir, "0.png", "--top", 0)


def test_draw_accepts_genotype_json(nases: Nases, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    file = tmp_path / "genotype.json"
    write_genotype(file, model.search_space, model.architecture, model.settings, num_classes=3, image_shape=(1, 7, 9))
    assert json.loads(file.read_text())["num_classes"] == 3
    nases("draw", file)
    assert "node 1 = " in capsys.readouterr().out


def test_python_file_is_written_next_to_the_model(nases: Nases, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nases("export", run_dir, "--format", "python")
    file = run_dir / "final" / "seed-0" / "model.py"
    assert capsys.readouterr().out.startswith(f"{file}: 3 classes; {file.stat().st_size / 1000:,.1f} kB; ")
    assert "def load() -> Network:" in file.read_text()
