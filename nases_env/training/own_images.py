"""Images of the user: a directory, arrays in a NumPy file, or a table of files."""

from __future__ import annotations

from pathlib import Path

from nases_env.errors import InputError
from nases_env.training.image_arrays import read_arrays
from nases_env.training.image_folder import (
    MAX_SIDE,
    MIN_SIDE,
    default_side,
    measure_files,
    read_image_folder,
    training_files,
)
from nases_env.training.image_io import resize
from nases_env.training.image_set import ImageSet
from nases_env.training.image_table import list_table, read_table


def read_own_images(path: Path, *, train: bool, side: int | None) -> ImageSet:
    """Read the training images or the test images in ``path``, stretched to ``side`` x ``side`` pixels.

    Args:
        path: a directory (see ``read_image_folder``), an ``.npz`` file (``read_arrays``) or a ``.csv`` file
            (``read_table``).
        train: whether to read the training images or the test images.
        side: None: the median of the shorter sides of the images, at least 16 and at most 32.

    Raises:
        InputError: if the images cannot be read.
    """
    if path.suffix.lower() == ".npz":
        image_set = read_arrays(path, train=train)
        if side is None:
            side = min(max(min(image_set.image_shape[1:]), MIN_SIDE), MAX_SIDE)
        return ImageSet(resize(image_set.images, (side, side)), image_set.labels, image_set.class_names)
    if path.suffix.lower() == ".csv":
        return read_table(path, train=train, side=side)
    if not path.is_dir():
        raise InputError(f"data_dir {path} is not a directory of images, an .npz file or a .csv file; pass one of these")
    return read_image_folder(path, train=train, side=side or default_side(path))


def count_training_images(path: Path | None) -> int:
    """Return the number of training images in ``path``; 0 if it is None or contains none that can be read."""
    if path is None:
        return 0
    try:
        if path.suffix.lower() == ".npz":
            return len(read_arrays(path, train=True))
        if path.suffix.lower() == ".csv":
            return sum(map(len, list_table(path, train=True).values()))
        return len(training_files(path))
    except InputError:
        return 0  # loading the images raises the error


def measure_own_images(path: Path) -> list[tuple[int, int]]:
    """Return the width and the height in pixels of about a hundred training images of ``read_own_images``.

    Raises:
        InputError: if they cannot be read.
    """
    if path.suffix.lower() == ".npz":
        _, height, width = read_arrays(path, train=True).image_shape
        return [(width, height)]
    if path.suffix.lower() == ".csv":
        return measure_files([file for of_class in list_table(path, train=True).values() for file in of_class])
    return measure_files(training_files(path))
