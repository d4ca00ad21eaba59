from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from nases_env.errors import InputError
from nases_env.training import DATASETS, datasets, load_images
from tests.training.images import write_folder

REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")


def test_datasets_and_their_flips() -> None:
    assert {name: dataset.flip for name, dataset in DATASETS.items()} == {
        "cifar10": True,
        "cifar100": True,
        "fashion_mnist": True,
        "svhn": False,
        "digits": False,
        "image_folder": True,
    }


def test_digits_equal_scikit_learns() -> None:
    train, test = load_images("digits", train=True), load_images("digits", train=False)
    for image_set in (train, test):
        assert image_set.images.dtype == torch.uint8
        assert image_set.labels.dtype == torch.int64
        assert image_set.image_shape == (1, 8, 8)
        assert image_set.class_names == tuple("0123456789")
        assert (image_set.images.min().item(), image_set.images.max().item()) == (0, 255)

    def rows(images: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[bytes]:
        return sorted(np.rint(image).astype(np.uint8).tobytes() for image in images)

    ours = torch.cat((train.images, test.images))[:, 0].numpy() * (16 / 255)
    assert rows(ours) == rows(load_digits().images)
    for label, count in enumerate(np.bincount(load_digits().target)):
        num_test = int((test.labels == label).sum())
        assert num_test == count // 5
        assert num_test + int((train.labels == label).sum()) == count


def test_digits_without_scikit_learns_data_file(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets._digits_table()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    np.testing.assert_array_equal(datasets._digits_table(), table)


def test_images_are_cached() -> None:
    assert load_images("digits", train=True) is load_images("digits", train=True)
    assert load_images("digits", train=True) is not load_images("digits", train=False)


def test_images_are_only_shrunk() -> None:
    assert load_images("digits", train=True, image_size=4).image_shape == (1, 4, 4)
    assert load_images("digits", train=True, image_size=32).image_shape == (1, 8, 8)


def test_image_folder_is_resized_to_image_size(tmp_path: Path) -> None:
    write_folder(tmp_path, side=20)
    assert load_images("image_folder", train=True, data_dir=tmp_path).image_shape == (3, 20, 20)
    assert load_images("image_folder", train=True, data_dir=str(tmp_path), image_size=9).image_shape == (3, 9, 9)


def test_cifar10_from_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "cifar10", classes=("airplane", "frog"), side=32)
    from_argument = load_images("cifar10", train=False, data_dir=tmp_path)
    assert from_argument.image_shape == (3, 32, 32)
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert torch.equal(load_images("cifar10", train=False).images, from_argument.images)
    assert load_images("cifar10", train=False, image_size=16).image_shape == (3, 16, 16)


@pytest.mark.skipif(
    REAL_DATA_DIR is None or not Path(REAL_DATA_DIR, "cifar10").is_dir(), reason="NASES_DATA_DIR contains no cifar10 folder"
)
def test_real_cifar10(tmp_path: Path) -> None:
    """The first 50 test images of each class."""
    assert REAL_DATA_DIR is not None
    for folder in Path(REAL_DATA_DIR, "cifar10", "test").iterdir():
        copy = tmp_path / "cifar10" / "test" / folder.name
        copy.mkdir(parents=True)
        for file in sorted(folder.iterdir())[:50]:
            (copy / file.name).symlink_to(file)
    image_set = load_images("cifar10", train=False, data_dir=tmp_path, download=False)
    assert image_set.images.shape == (500, 3, 32, 32)
    assert torch.bincount(image_set.labels).tolist() == [50] * 10
    assert image_set.class_names[0] == "airplane"
    assert image_set.class_names[9] == "truck"
    for index in (0, 499):
        name = image_set.class_names[int(image_set.labels[index])]
        path = sorted(Path(REAL_DATA_DIR, "cifar10", "test", name).iterdir())[index % 50]
        assert torch.equal(image_set.images[index].permute(1, 2, 0), torch.from_numpy(np.array(Image.open(path))))


def message_of(dataset: str, data_dir: Path | None = None, image_size: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_images(dataset, train=True, data_dir=data_dir, image_size=image_size, download=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_dataset_lists_the_available_ones() -> None:
    assert message_of("cifar-10").startswith(
        "unknown data set 'cifar-10' (did you mean 'cifar10'?); available: cifar10, cifar100"
    )
    assert "did you mean" not in message_of("xyz")


def test_image_size_0_is_rejected() -> None:
    assert message_of("digits", image_size=0).startswith("image_size must be at least 1, not 0")


def test_image_folder_requires_data_dir() -> None:
    assert message_of("image_folder").startswith(
        "image_folder requires a directory of images; set data_dir or NASES_DATA_DIR"
    )


@pytest.mark.parametrize("dataset", ["cifar10", "svhn", "image_folder"])
def test_missing_data_dir_is_an_error(tmp_path: Path, dataset: str) -> None:
    assert message_of(dataset, tmp_path / "nowhere").startswith(f"data_dir {tmp_path / 'nowhere'} is not a directory")


def test_digits_do_not_need_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path / "nowhere"))
    assert len(load_images("digits", train=True)) == 1442


def test_missing_files_error_explains_both_remedies(tmp_path: Path) -> None:
    message = message_of("cifar10", tmp_path)
    assert f"CIFAR-10 is not in {tmp_path}" in message
    assert "cifar-10-batches-py" in message
    assert "cifar10/train/<class>/" in message
    assert "connect to the internet and run again" in message
    assert "set data_dir or NASES_DATA_DIR" in message
    assert list(tmp_path.glob("*")) == []
    assert "<class>" not in message_of("cifar100", tmp_path)


def test_default_folder_is_the_user_cache() -> None:
    assert f"CIFAR-100 is not in {Path.home() / '.cache/nases/data'}" in message_of("cifar100")
    assert not Path.home().exists()


class Touch:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        ("cifar10", [f"cifar-10-batches-py/{name}" for name in ("batches.meta", "test_batch", "data_batch_1")]),
        ("cifar100", [f"cifar-100-python/{name}" for name in ("meta", "test", "train")]),
        ("fashion_mnist", [f"FashionMNIST/processed/{name}.pt" for name in ("training", "test")]),
    ],
)
def test_pickle_of_a_data_set_that_is_not_the_original_is_not_loaded(dataset: str, files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(pickle.dumps(Touch(tmp_path / "loaded"), protocol=2))
    with pytest.raises(InputError, match="is damaged or incomplete"):
        load_images(dataset, train=True, data_dir=tmp_path)
    assert not (tmp_path / "loaded").exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / "loaded")))
    assert (tmp_path / "loaded").exists()
