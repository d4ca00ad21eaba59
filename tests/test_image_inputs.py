"""Images of many channels, depths and shapes, from the search to a prediction; and data that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import nases_env
from nases_env.cli import main as cli
from nases_env.errors import InputError
from nases_env.model_io import save_model
from nases_env.safetensors_file import load_tensors
from nases_env.training.value_range import ValueRange
from tests.commands import error_of, run_here
from tests.model_io.conftest import tiny_model
from tests.training.images import write_image

pytestmark = pytest.mark.usefixtures("tiny_children")

SMOKE = ("--preset", "smoke", "--budget", "1", "--num-finalists", "0", "--num-envs", "1", "--agent", "random_search")
LABELS = np.arange(20) % 2


def nases(*words: object) -> str:
    result = run_here(cli.main, *map(str, words))
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_deep_images_of_five_channels_from_the_search_to_a_prediction(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(4096, size=(20, 21, 40, 5)).astype(np.uint16)
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    np.save(data / "images.npy", images)
    np.save(data / "labels.npy", np.array(["even", "odd"])[LABELS])
    # The networks of the other search spaces take longer.
    options = ("--child.image-size", "20x11", "--search-space", "nasbench201", "--child.num-epochs", "1")
    output = nases("search", data, *SMOKE, *options, "--run-dir", run)
    assert "2 classes, 16 5-channel training images of 40x21 pixels" in output
    assert "converted to 8 bits" in output
    assert "images of 20x11 pixels" in output
    nases("train", run)
    nases("report", run)
    model = nases_env.load_model(run)
    assert model.image_shape == (5, 11, 20)
    assert model.value_range is not None
    assert max(model.value_range.high) <= 4095
    np.save(tmp_path / "image.npy", images[4])
    tifffile.imwrite(tmp_path / "image.tif", images[4].transpose(2, 0, 1), photometric="minisblack")
    output = nases("predict", run, tmp_path / "image.npy", tmp_path / "image.tif")
    first, second = output.split("image.tif:")
    assert "%  even" in second
    assert first.split(":", 1)[1].split()[:4] == second.split()[:4]
    exported = tmp_path / "model.pt2"
    nases("export", run, "--format", "torch-export", "--output", exported)
    files = {"value_range": ""}
    logits = torch.export.load(exported, extra_files=files).module()(torch.rand(3, 5, 11, 20))
    assert logits.shape == (3, 2)
    assert '"high"' in files["value_range"]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (5, 17)])
@pytest.mark.parametrize("space", ["enas_micro", "enas_micro_sized", "nasbench201", "transnas_micro"])
def test_images_of_any_size_are_searched(space: str, size: tuple[int, int], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(20, *size), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=LABELS)
    pixels = ("--child.image-size", f"{size[1]}x{size[0]}", "--search-space", space)
    output = nases("search", tmp_path / "images.npz", *SMOKE, *pixels, "--run-dir", tmp_path / "run")
    assert f"images of {size[1]}x{size[0]} pixels" in output
    assert "the best of 1 architecture\n" in output


def test_model_file_keeps_the_range_and_old_versions_refuse_it(tmp_path: Path) -> None:
    model = tiny_model(image_shape=(2, 7, 9))
    save_model(model, tmp_path / "narrow.safetensors")
    assert load_tensors(tmp_path / "narrow.safetensors", "model")[0]["format_version"] == 1
    assert "value_range" not in load_tensors(tmp_path / "narrow.safetensors", "model")[0]
    model.value_range = ValueRange((0.0, -1.5), (4095.0, 1.0))
    save_model(model, tmp_path / "deep.safetensors")
    assert load_tensors(tmp_path / "deep.safetensors", "model")[0]["format_version"] == 2
    assert nases_env.load_model(tmp_path / "deep.safetensors").value_range == model.value_range


def test_image_with_other_values_than_the_training_images_is_refused(tmp_path: Path) -> None:
    model = tiny_model(image_shape=(3, 7, 9))
    write_image(tmp_path / "0.png")
    np.save(tmp_path / "0.npy", np.zeros((7, 9, 3), np.uint16))
    with pytest.raises(InputError, match="its type is uint16, but the training images were uint8"):
        model.preprocess(tmp_path / "0.npy")
    np.save(tmp_path / "1.npy", np.zeros((3, 9, 3), np.uint8))
    with pytest.raises(InputError, match="with two axes of 3 channels"):
        model.preprocess(tmp_path / "1.npy")
    model.value_range = ValueRange((0.0,) * 3, (4095.0,) * 3)
    with pytest.raises(InputError, match="has 8 bits per channel, but the model was trained on values from 0 to 4095"):
        model.preprocess(tmp_path / "0.png")
    with Image.open(tmp_path / "0.png") as image, pytest.raises(InputError, match="the image has 8 bits"):
        model.preprocess(image)
    model.value_range = ValueRange((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(InputError, match="has 8 bits per channel, but the model was trained on values from 0 to 1"):
        model.preprocess(tmp_path / "0.png")
    np.save(tmp_path / "2.npy", np.full((7, 9, 3), 200, np.uint8))
    with pytest.raises(InputError, match="it has 8 bits per channel, but the model was trained on values from 0 to 1"):
        model.preprocess(tmp_path / "2.npy")
    np.save(tmp_path / "2.npy", np.full((7, 9, 3), 200, np.int64))
    with pytest.raises(InputError, match="it has values of type int64, but the model was trained on values from 0 to 1"):
        model.preprocess(tmp_path / "2.npy")
    Image.fromarray(np.full((7, 9), 60_000, np.uint16)).save(tmp_path / "2.png")
    with pytest.raises(InputError, match=r"values of type u?int\d+, but the model was trained on values from 0 to 1"):
        model.preprocess(tmp_path / "2.png")
    np.save(tmp_path / "3.npy", np.ones((7, 9, 3), np.uint8))  # a mask
    assert (model.preprocess(tmp_path / "3.npy") == 1).all()
    model.value_range = ValueRange((-2.1,) * 3, (2.6,) * 3)
    with pytest.raises(InputError, match=r"has 8 bits per channel, but the model was trained on values from -2\.1 to"):
        model.preprocess(tmp_path / "0.png")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16, np.uint16])
def test_image_in_memory_has_the_values_of_its_file(dtype: Any, orientation: int, channels: int, tmp_path: Path) -> None:
    values = np.linspace(-3, 3, 63) if dtype == np.float32 else np.linspace(0 if dtype == np.uint16 else -20_000, 32_000, 63)
    if dtype == np.int32:
        values *= 100
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "0.tif", values.astype(dtype).reshape(7, 9), extratags=tags)
    model = tiny_model(image_shape=(channels, 9, 7))
    model.value_range = ValueRange((float(values[0]),) * channels, (float(values[-1]),) * channels)
    expected = model.preprocess(tmp_path / "0.tif")
    assert len(set(expected.flatten().tolist())) > 50
    with Image.open(tmp_path / "0.tif") as image:
        assert torch.equal(model.preprocess(image), expected)


@pytest.mark.parametrize("value_range", [None, ValueRange((0.0,), (65_535.0,))])
def test_16_bit_color_becomes_grayscale(value_range: ValueRange | None, tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(256, size=(7, 9, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "0.tif", colors.astype(np.uint16) * 257, photometric="rgb")
    model = tiny_model(image_shape=(1, 7, 9))
    model.value_range = value_range
    expected = np.array(Image.fromarray(colors).convert("L"))
    difference = 255 * model.preprocess(tmp_path / "0.tif")[0, 0] - torch.from_numpy(expected)
    assert difference.abs().max() < 1.01  # rounded differently


def test_image_in_memory_with_nan_is_a_one_line_error() -> None:
    model = tiny_model(image_shape=(1, 7, 9))
    model.value_range = ValueRange((0.0,), (1.0,))
    with pytest.raises(InputError, match=r"^the image cannot be used \(a value is NaN, infinite"):
        model.preprocess(Image.fromarray(np.full((7, 9), np.nan, np.float32)))


def test_image_in_memory_is_not_changed(tmp_path: Path) -> None:
    write_image(tmp_path / "0.jpg", width=400, height=300)
    model = tiny_model(image_shape=(3, 7, 9))
    with Image.open(tmp_path / "0.jpg") as image:
        whole = np.asarray(image.copy())
        model.preprocess(image)
        assert np.array_equal(np.asarray(image), whole)
    with Image.open(tmp_path / "0.jpg") as image:
        model.preprocess(image)  # not decoded before
        assert np.array_equal(np.asarray(image), whole)


def arrays(**changes: Any) -> Callable[[Path], Path]:
    """Return a function that writes an ``.npz`` file of valid arrays, with ``changes``; None omits an array."""

    def write(folder: Path) -> Path:
        valid = {"images": np.zeros((20, 8, 8), np.uint8), "labels": LABELS}
        values = {name: value for name, value in {**valid, **changes}.items() if value is not None}
        np.savez(folder / "data.npz", **values)
        return folder / "data.npz"

    return write


def table(text: str) -> Callable[[Path], Path]:
    """Return a function that writes a ``.csv`` file next to the images 0.png to 9.png."""

    def write(folder: Path) -> Path:
        for index in range(10):
            write_image(folder / f"{index}.png", seed=index)
        (folder / "data.csv").write_text(text)
        return folder / "data.csv"

    return write


def folder_with(name: str, write_file: Callable[[Path], object]) -> Callable[[Path], Path]:
    """Return a function that writes a folder of valid images, and one more file in the class ``b``."""

    def write(folder: Path) -> Path:
        for class_name in "ab":
            for index in range(5):
                write_image(folder / class_name / f"{index}.png", seed=index)
        write_file(folder / "b" / name)
        return folder

    return write


def directory(**files: Any) -> Callable[[Path], Path]:
    """Return a function that writes ``.npy`` files; bytes are written as they are."""

    def write(folder: Path) -> Path:
        for name, value in files.items():
            if isinstance(value, bytes):
                (folder / f"{name}.npy").write_bytes(value)
            else:
                np.save(folder / f"{name}.npy", value, allow_pickle=True)
        return folder

    return write


def tiff(values: Any, **options: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, values, **options)


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((50, 50, 3), np.uint16), photometric="rgb")
    path.write_bytes(path.read_bytes()[:2000])


def two_kinds(folder: Path) -> Path:
    directory(images=np.zeros((20, 8, 8), np.uint8), labels=LABELS)(folder)
    write_image(folder / "a" / "0.png")
    return folder


ROWS = "".join(f"{index}.png,a\n" for index in range(10))


def splits(test_images: Any, test_labels: Any) -> Callable[[Path], Path]:
    """Return a function that writes an ``.npz`` file of valid training images and of these test images."""
    train = {"train_images": np.zeros((20, 8, 8), np.uint8), "train_labels": LABELS}
    return arrays(images=None, labels=None, **train, test_images=test_images, test_labels=test_labels)


NPY = b"\x93NUMPY\x01\x00v\x00"
NAN = np.full((20, 8, 8), np.nan)

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "too many channels": (arrays(images=np.zeros((20, 40, 40, 17), np.uint8)), "no axis of 16 channels"),
    "two axes of channels": (arrays(images=np.zeros((20, 5, 9, 4), np.uint8)), "add the entry channels"),
    "two axes of 3": (arrays(images=np.zeros((20, 3, 9, 3), np.uint8)), "add the entry channels"),
    "entry channels": (arrays(images=np.zeros((20, 5, 9, 4), np.uint8), channels="middle"), "neither the text 'first'"),
    "17 channels first": (arrays(images=np.zeros((20, 17, 9, 4), np.uint8), channels="first"), "17 channels, more than 16"),
    "two axes in all": (arrays(images=np.zeros((20, 64), np.uint8)), "not (N, H, W)"),
    "five axes": (arrays(images=np.zeros((20, 2, 8, 8, 3), np.uint8)), "not (N, H, W)"),
    "no images": (arrays(images=np.zeros((0, 8, 8), np.uint8), labels=LABELS[:0]), "is empty"),
    "no pixels": (arrays(images=np.zeros((20, 8, 0), np.uint8)), "is empty"),
    "complex": (arrays(images=np.zeros((20, 8, 8), complex)), "not real numbers"),
    "texts as images": (arrays(images=np.full((20, 8, 8), "x")), "not real numbers"),
    "NaN": (arrays(images=NAN), "NaN, infinite"),
    "infinite in float16": (arrays(images=np.full((20, 8, 8), np.inf, np.float16)), "NaN, infinite"),
    "infinite": (arrays(images=np.full((20, 8, 8), np.inf, np.float32)), "NaN, infinite"),
    "objects": (arrays(images=np.array([None] * 20)), "Object arrays cannot be loaded"),
    "no labels": (arrays(labels=None), "the array labels is missing"),
    "too few labels": (arrays(labels=LABELS[:19]), "not one integer or text for each of 20 images"),
    "several labels": (arrays(labels=np.ones((20, 2), int)), "is not one-hot"),
    "fractions as labels": (arrays(labels=LABELS + 0.5), "numbers that are not integers"),
    "dates as labels": (arrays(labels=LABELS.astype("datetime64[s]")), "labels is datetime64[s]"),
    "empty label": (arrays(labels=np.array(["a", ""] * 10)), "is empty or has an invalid character"),
    "label that is not UTF-8": (arrays(labels=np.array([b"a", b"\xff"] * 10)), "not UTF-8"),
    "rare label": (arrays(labels=np.array([0] * 17 + [1] * 3)), "the label 1 has fewer than 5 images (3)"),
    "names of classes": (arrays(class_names=["a", "a"]), "has a name twice"),
    "types of splits": (
        splits(np.zeros((20, 8, 8)), LABELS),
        "test_images is float64",
    ),
    "shapes of splits": (
        splits(np.zeros((20, 9, 8), np.uint8), LABELS),
        "have different shapes",
    ),
    "label without training images": (
        splits(np.zeros((20, 8, 8), np.uint8), LABELS + 1),
        "no training image has the label 2; add some",
    ),
    "labels above 2^63": (arrays(labels=LABELS.astype(np.uint64) + np.uint64(2**63)), "larger than 2^63 - 1"),
    "single label": (arrays(labels=np.zeros(20, int)), "has a single class, 0, but at least two are needed"),
    "truncated npy": (directory(images=NPY, labels=LABELS), "is not valid"),
    "pickled npy": (directory(images=np.array([None]), labels=LABELS), "is not valid"),
    "arrays and folders": (two_kinds, "keep one of them"),
    "missing labels.npy": (directory(images=np.zeros((20, 8, 8), np.uint8)), "the array labels is missing"),
    "no column of files": (table("name,label\n" + ROWS), "lacks a column file"),
    "no column of labels": (table("file,kind\n" + ROWS), "lacks a column label"),
    "file listed twice": (table("FILE,Label\n" + ROWS + "./3.png,a\n"), "line 12 of"),
    "file in two splits": (table("file,label,split\n0.png,a,train\n1.png,a,test\n0.png,a,test\n"), "again, after line 2"),
    "unknown split": (table("file,label,Split\n0.png,a,holdout\n"), "has the split 'holdout'"),
    "missing file": (table("file,label\n" + ROWS + "absent.png,a\n"), "absent.png"),
    "invalid class": (
        table('file,label\n0.png,"\ud800"\n'.encode("utf-8", "replace").decode()),
        "has fewer than 5 images of ? (1)",
    ),
    "TIFF of RGB pages": (
        folder_with("x.tif", tiff(np.zeros((2, 8, 8, 3), np.uint8), photometric="rgb")),
        "is not a grayscale image",
    ),
    "TIFF of many pages": (
        folder_with("x.tif", tiff(np.zeros((20, 8, 8), np.uint8), photometric="minisblack")),
        "it has 20 pages",
    ),
    "TIFF of 17 channels": (
        folder_with("x.tif", tiff(np.zeros((8, 8, 17), np.uint8), photometric="minisblack", planarconfig="contig")),
        "17 channels, more than 16",
    ),
    "truncated TIFF": (folder_with("x.tif", truncated_tiff), "is not a valid PNG, JPEG or TIFF image"),
    "mixed channels": (
        folder_with("x.tif", tiff(np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig")),
        "has 5 channels instead of 3",
    ),
    "mixed types": (folder_with("x.tif", tiff(np.zeros((8, 8), np.uint16))), "values of type uint16 instead of uint8"),
    "truncated PNG": (folder_with("x.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n")), "is not a valid PNG"),
}


@pytest.mark.parametrize("kind", BAD)
def test_data_that_cannot_be_used_is_one_line_and_status_2(kind: str, tmp_path: Path) -> None:
    write, message = BAD[kind]
    data = write(tmp_path)
    result = run_here(cli.main, "search", str(data), "--dry-run", *SMOKE)
    assert message in error_of(result)


@pytest.mark.parametrize("image_size", ["24x", "0x5", "axb", "24X32", "-3", "0"])
def test_invalid_image_size_is_one_line(image_size: str) -> None:
    assert "image_size must be" in error_of(
        run_here(cli.main, "search", "digits", f"--child.image-size={image_size}", *SMOKE)
    )


def test_single_array_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", LABELS)
    assert "is a single array" in error_of(run_here(cli.main, "search", str(tmp_path / "images.npy"), *SMOKE))
