"""Images of the user: a directory, arrays in NumPy files, or a table of files."""

from __future__ import annotations

from pathlib import Path

from nases_env.errors import InputError
from nases_env.training.image_arrays import count_arrays, has_arrays, measure_arrays, read_arrays
from nases_env.training.image_folder import measure_files, read_image_folder, training_files
from nases_env.training.image_set import ImageSet
from nases_env.training.image_size import ImageSize, target_size
from nases_env.training.image_table import list_table, read_table


def read_own_images(path: Path, *, train: bool, image_size: ImageSize | None) -> ImageSet:
    """Read the training images or the test images in ``path``, all resized to one size.

    Args:
        path: a directory of images (see ``read_image_folder``), an ``.npz`` file or a directory of ``.npy`` files
            (``read_arrays``), or a ``.csv`` file (``read_table``).
        train: whether to read the training images or the test images.
        image_size: see ``target_size``, with the sizes of about a hundred training images.

    Raises:
        InputError: if the images cannot be read, or are of a single class.
    """
    images = _read(path, train=train, image_size=image_size)
    if len(images.class_names) == 1:
        raise InputError(
            f"{path} has a single class, {images.class_names[0]}, but at least two are needed; add another class, or, for "
            "directories of images, pass the parent directory of the class directories"
        )
    return images


def _read(path: Path, *, train: bool, image_size: ImageSize | None) -> ImageSet:
    if _is_arrays(path):
        return read_arrays(path, train=train, image_size=image_size)
    if path.suffix.lower() == ".csv":
        return read_table(path, train=train, image_size=image_size)
    if path.suffix.lower() == ".npy":
        raise InputError(f"data_dir {path} is a single array; pass the directory that contains images.npy and labels.npy")
    if not path.is_dir():
        raise InputError(
            f"data_dir {path} is not a directory of images, an .npz file or a .csv file; pass one of these, or a directory "
            "with images.npy and labels.npy"
        )
    sizes = [] if isinstance(image_size, str) else measure_files(training_files(path))
    return read_image_folder(path, train=train, size=target_size(sizes, image_size))


def count_training_images(path: Path | None) -> int:
    """Return the number of training images in ``path``; 0 if it is None or contains none that can be read."""
    if path is None:
        return 0
    try:
        if _is_arrays(path):
            return count_arrays(path)
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
    if _is_arrays(path):
        return [measure_arrays(path)]
    if path.suffix.lower() == ".csv":
        return measure_files([file for of_class in list_table(path, train=True).values() for file in of_class])
    return measure_files(training_files(path))


def _is_arrays(path: Path) -> bool:
    """Return whether ``path`` contains arrays; raise ``InputError`` if it also contains directories of images."""
    if not path.is_dir():
        return path.suffix.lower() == ".npz"
    if not has_arrays(path):
        return False
    if training_files(path):
        raise InputError(f"{path} contains arrays (.npy) as well as directories of images; keep one of them")
    return True
