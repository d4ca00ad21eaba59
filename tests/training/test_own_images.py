"""Images of the user: directories without a split, NumPy files and tables."""

from __future__ import annotations

import contextlib
import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.errors import InputError
from nases_env.training.own_images import count_training_images, read_own_images
from tests.training.images import write_image

LABELS = np.array([7, 3] * 10)
IMAGES = np.arange(20 * 8 * 6, dtype=np.uint16).astype(np.uint8).reshape(20, 8, 6)
SPLIT = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}


def error_of(path: Path, *, train: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        read_own_images(path, train=train, image_size=8)
    assert "\n" not in str(caught.value)
    assert count_training_images(path) == 0 or not train
    return str(caught.value)


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_fifth_image_of_a_class_is_a_test_image(tmp_path: Path) -> None:
    for name, number in (("cat", 10), ("dog", 6)):
        for index in range(number):
            write_image(tmp_path / name / f"{index:02}.png", seed=index)
    train, test = (read_own_images(tmp_path, train=is_train, image_size=None) for is_train in (True, False))
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0] * 8 + [1] * 5
    assert test.labels.tolist() == [0, 0, 1]
    assert torch.equal(test.images[0], test.images[2])  # the fifth image of each class
    assert not any(torch.equal(image, test.images[0]) for image in train.images)
    assert count_training_images(tmp_path) == len(train)
    assert train.image_shape == (3, 16, 16)


def test_directory_without_a_split_needs_five_images_per_class(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / "cat" / f"{index}.png")
    with pytest.raises(InputError, match=r"cat has fewer than 5 images \(4\); add some to each class"):
        read_own_images(tmp_path, train=True, image_size=8)


@pytest.mark.parametrize("shape", [(20, 8, 6), (20, 8, 6, 1), (20, 8, 2, 3)])
def test_arrays_without_a_split(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    images = IMAGES.reshape(shape)
    np.savez_compressed(path, images=images, labels=LABELS[:, None])
    train, test = (read_own_images(path, train=is_train, image_size=8) for is_train in (True, False))
    assert (len(train), len(test)) == (16, 4)
    assert count_training_images(path) == 16
    assert train.class_names == ("3", "7")
    assert test.labels.tolist() == [0, 0, 1, 1]
    width = shape[2]
    assert train.image_shape == (3 if shape[-1] == 3 else 1, 8, width)
    assert read_own_images(path, train=True, image_size=None).image_shape[1:] == (16, 2 * width)
    assert read_own_images(path, train=True, image_size="7x9").image_shape[1:] == (9, 7)


def test_arrays_keep_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(256, size=(10, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.repeat(np.arange(2, dtype=np.int8), 5), class_names=["dark", "light"])
    test = read_own_images(path, train=False, image_size=None)
    assert test.class_names == ("dark", "light")
    assert torch.equal(test.images, torch.from_numpy(images[[4, 9]]).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("names", "num_train"),
    [
        (("train_images", "train_labels", "test_images", "test_labels"), 12),
        (("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"), 16),
        (("x_train", "y_train", "x_test", "y_test"), 12),
        (("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"), 16),
    ],
)
def test_arrays_of_medmnist_and_keras(names: tuple[str, ...], num_train: int, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    parts = [slice(12), slice(12, 16), slice(16, 20)]
    arrays = [array[part] for part in parts for array in (IMAGES, LABELS)]
    named: dict[str, Any] = dict(zip(names, arrays, strict=False))
    np.savez(path, **named)
    train, test = (read_own_images(path, train=is_train, image_size=8) for is_train in (True, False))
    assert (len(train), len(test)) == (num_train, 4)
    assert train.class_names == test.class_names == ("3", "7")


@pytest.mark.parametrize("is_directory", [False, True])
def test_arrays_with_other_names_are_a_warning(is_directory: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, others = tmp_path / "images.npz", {"class_name": ["a", "b"], "number": np.arange(20)}
    arrays: dict[str, Any] = {"images": IMAGES, "labels": LABELS, **others}
    np.savez(path, **arrays)
    if is_directory:
        path = tmp_path
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    for is_train in (True, False):
        assert read_own_images(path, train=is_train, image_size=8).class_names == ("3", "7")
    (record,) = caplog.records
    names = "class_name (did you mean 'class_names'?), number"
    assert record.getMessage() == f"ignored the arrays with unknown names in {path}: {names}"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "the array images is missing"),
        ({"images": IMAGES}, "the array labels is missing"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "images is complex128, not real numbers"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "images is empty: its shape is (20, 0, 6)"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "labels is int64 of shape (3,), not one integer or text for each of 20"),
        ({"images": IMAGES, "labels": np.arange(20)}, "the label 0 has fewer than 5 images (1)"),
        ({"images": IMAGES, "labels": LABELS, "class_names": ["a"]}, "class_names has the length 1, but there are 2 labels"),
        ({"images": np.array([None]), "labels": LABELS}, "Object arrays cannot be loaded"),
        (
            {"images": IMAGES, "labels": LABELS, "x_train": IMAGES, "val_labels": LABELS},
            "it contains val_labels, x_train in addition to images, labels; remove what is not to be used",
        ),
        ({**SPLIT, "val_images": IMAGES}, "the array val_labels is missing"),
        ({**SPLIT, "x_val": IMAGES, "y_val": LABELS}, "it contains x_val, y_val in addition to train_images"),
    ],
)
def test_invalid_arrays_are_one_line_errors(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    assert message in error_of(path)


def test_integer_labels_of_all_types_are_joined(tmp_path: Path) -> None:
    path, unsigned = tmp_path / "images.npz", LABELS.astype(np.uint64)
    np.savez(path, train_images=IMAGES, train_labels=unsigned, test_images=IMAGES, test_labels=LABELS)
    assert read_own_images(path, train=True, image_size=8).class_names == ("3", "7")


def test_images_of_a_single_class_are_an_error(tmp_path: Path) -> None:
    for index in range(10):
        write_image(tmp_path / "data" / ("cat" if index < 5 else "dog") / f"{index}.png", seed=index)
    assert len(read_own_images(tmp_path / "data", train=True, image_size=8).class_names) == 2
    shutil.rmtree(tmp_path / "data" / "dog")
    rows = [{"file": str(file), "label": "cat"} for file in sorted((tmp_path / "data" / "cat").iterdir())]
    for path in (tmp_path / "data", write_table(tmp_path / "table.csv", rows)):
        with pytest.raises(InputError, match="has a single class, cat, but at least two are needed") as caught:
            read_own_images(path, train=True, image_size=8)
        assert "\n" not in str(caught.value)


def test_damaged_arrays_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(content[: rng.integers(len(content))] if rng.random() < 0.3 else content)
        for index in rng.integers(len(damaged), size=5) if damaged else ():
            damaged[index] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_own_images(path, train=True, image_size=8)
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(path)
    assert "it contains a single array" in error_of(path)
    path.unlink()
    assert "cannot read" in error_of(path)


@pytest.mark.parametrize("columns", [("file", "label"), ("path", "class"), ("filename", "target")])
def test_table_of_files(columns: tuple[str, str], tmp_path: Path) -> None:
    rows = []
    for index in range(10):
        write_image(tmp_path / "images" / f"{index}.png", seed=index, width=20, height=20)
        rows.append({columns[0]: f"images/{index}.png", columns[1]: "dog" if index < 5 else "cat", "size": 20})
    path = write_table(tmp_path / "table.csv", rows)
    train, test = (read_own_images(path, train=is_train, image_size=None) for is_train in (True, False))
    assert train.class_names == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0] * 4 + [1] * 4, [0, 1])
    assert train.image_shape == test.image_shape == (3, 20, 20)
    assert count_training_images(path) == 8


def test_spaces_around_labels_of_a_table_are_ignored(tmp_path: Path) -> None:
    for index in range(20):
        write_image(tmp_path / f"{index}.png", seed=index)
    labels = ["cat", " cat", "dog", "dog "] * 5
    path = write_table(
        tmp_path / "table.csv", [{"file": f"{index}.png", "label": name} for index, name in enumerate(labels)]
    )
    assert read_own_images(path, train=True, image_size=8).class_names == ("cat", "dog")


def test_table_with_a_split(tmp_path: Path) -> None:
    rows = []
    for index, split in enumerate(["train", "test", "val"] * 2):
        write_image(tmp_path / f"{index}.png", seed=index)
        rows.append({"file": f"{index}.png", "label": "dog" if index < 3 else "cat", "split": split})
    path = write_table(tmp_path / "table.csv", rows)
    assert read_own_images(path, train=True, image_size=8).labels.tolist() == [0, 0, 1, 1]
    assert read_own_images(path, train=False, image_size=8).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no images"),
        ("file,label\n", "lists no images"),
        ("name,label\na.png,cat\n", "lacks a column file"),
        ("file,kind\na.png,cat\n", "lacks a column label"),
        ("file,label\na.png\n", "line 2 of"),
        ("file,label\n,cat\n", "line 2 of"),
        ("file,label\na.png,cat\n", "has fewer than 5 images of cat (1)"),
        ("file,label,split\na.png,cat,holdout\n", "has the split 'holdout'; use train or test"),
        ("file,label,split\na.png,cat,test\n", "has no training image of cat"),
        ("file,label,split\na.png,cat,train\nb.png,cat,test\n", "a.png"),
        ("file,label\n\n\na.png, \n", "line 4 of"),
        ("file,label\n\na.png,cat\nb.png,cat\n\n./a.png,dog\n", "line 6 of {path} lists ./a.png again, after line 3"),
        (
            "file,label\na.png,cat\nb.png,cat\n{folder}/a.png,dog\n",
            "line 4 of {path} lists {folder}/a.png again, after line 2",
        ),
        ("file,label\n" + 'a,"' + "x" * 200_000 + '"\n', "is not a valid CSV file"),
        ("file,label\n\udcff,cat\n", "is not a valid CSV file"),
    ],
)
def test_invalid_tables_are_one_line_errors(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text.replace("{folder}", str(tmp_path)).encode(errors="surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_own_images(path, train=True, image_size=8)
    assert message.format(path=path, folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"")
    assert "is not a directory of images, an .npz file or a .csv file" in error_of(path)
    assert "is not a directory of images" in error_of(tmp_path / "missing")
