"""Arrays of images and labels in a NumPy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nases_env.errors import InputError, one_line
from nases_env.training.image_folder import TEST_STEP, train_or_test
from nases_env.training.image_set import ImageSet

ARRAYS = (
    (("train_images", "train_labels"), ("test_images", "test_labels")),  # MedMNIST, with val_images and val_labels
    (("x_train", "y_train"), ("x_test", "y_test")),  # Keras
)
"""Names of the arrays of training images, training labels, test images and test labels."""

VALID_ARRAYS = ("val_images", "val_labels")
"""Names of the arrays of validation images, which are used as training images."""

UNSPLIT_ARRAYS = ("images", "labels")
"""Names of arrays without a split: every fifth image of each class, in their order, is a test image."""

CLASS_NAMES = "class_names"

Arrays = dict[str, NDArray[Any]]


def read_arrays(path: Path, *, train: bool) -> ImageSet:
    """Read the training images or the test images of an ``.npz`` file.

    It contains the arrays ``images`` and ``labels``, or the arrays in ``ARRAYS``; images as uint8, shape (N, H, W) or
    (N, H, W, C) with 1 or 3 channels, labels as integers, shape (N,) or (N, 1). ``class_names`` is optional: the name of
    each label in increasing order.

    Raises:
        InputError: if the file cannot be read or does not contain these arrays.
    """
    arrays = _load(path)
    try:
        return _read(arrays, train=train)
    except ValueError as error:
        raise _error(path, error) from None


def _load(path: Path) -> Arrays:
    """Read the arrays with known names."""
    known = {name for names in (*ARRAYS, (VALID_ARRAYS, UNSPLIT_ARRAYS, (CLASS_NAMES,))) for part in names for name in part}
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it contains a single array")
            with arrays:
                return {name: arrays[name] for name in arrays.files if name in known}
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass an .npz file") from None
    except Exception as error:  # a damaged archive raises a dozen types
        raise _error(path, error) from error


def _error(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not valid ({one_line(error)}); it must contain the arrays images and labels, or train_images, "
        "train_labels, test_images and test_labels"
    )


def _read(arrays: Arrays, *, train: bool) -> ImageSet:
    for names in ARRAYS:
        if set(names[0]) <= set(arrays):
            parts = [_part(arrays, *names[0 if train else 1])]
            if train and set(VALID_ARRAYS) <= set(arrays):
                parts.append(_part(arrays, *VALID_ARRAYS))
            # Both splits are read for the names of the classes.
            _, other = _part(arrays, *names[1 if train else 0])
            images, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            return _image_set(arrays, images, labels, np.concatenate((labels, other)))
    images, labels = _part(arrays, *UNSPLIT_ARRAYS)
    chosen: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label).tolist()
        if len(of_class) < TEST_STEP:
            raise ValueError(f"the label {label} has {len(of_class)} images, fewer than {TEST_STEP}")
        chosen += train_or_test(of_class, train=train)
    return _image_set(arrays, images[chosen], labels[chosen], labels)


def _part(arrays: Arrays, images_name: str, labels_name: str) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Return images of shape (N, H, W, C) and labels of shape (N,)."""
    for name in (images_name, labels_name):
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
    images, labels = arrays[images_name], arrays[labels_name]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"{images_name} is {images.dtype} of shape {images.shape}, not uint8 of shape (N, H, W, 1 or 3)")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_name} is {labels.dtype} of shape {labels.shape}, not one integer for each image")
    return images, labels


def _image_set(
    arrays: Arrays, images: NDArray[np.uint8], labels: NDArray[np.integer], all_labels: NDArray[np.integer]
) -> ImageSet:
    known = np.unique(all_labels)
    names = tuple(map(str, known.tolist()))
    if CLASS_NAMES in arrays:
        names = tuple(map(str, arrays[CLASS_NAMES].tolist()))
        if len(names) != len(known):
            raise ValueError(f"{CLASS_NAMES} has {len(names)} names for {len(known)} labels")
    return ImageSet(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(np.searchsorted(known, labels)).long(), names
    )
