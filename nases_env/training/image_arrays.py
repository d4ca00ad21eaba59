"""Arrays of images and labels in a NumPy file, or in a directory of such files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.escaping import printable
from nases_env.training.array_labels import NameOrNumber, read_labels, read_names
from nases_env.training.image_folder import TEST_STEP, train_or_test
from nases_env.training.image_io import resize
from nases_env.training.image_set import ImageSet
from nases_env.training.image_size import ImageSize, target_size
from nases_env.training.image_tiff import MAX_CHANNELS
from nases_env.training.value_range import ValueRange

logger = logging.getLogger(__name__)

ARRAYS = (
    (("train_images", "train_labels"), ("val_images", "val_labels"), ("test_images", "test_labels")),  # MedMNIST
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),  # Keras
)
"""Names of the arrays of images and labels: for training, validation and test. Those for validation are optional, and are
used as training images."""

UNSPLIT_ARRAYS = ("images", "labels")
"""Names of arrays without a split: every fifth image of each class, in their order, is a test image."""

CLASS_NAMES = "class_names"
CHANNELS = "channels"
"""Name of the entry that says whether the axis of the channels is the ``first`` or the ``last`` one."""

_PAIRS = (*(pair for pairs in ARRAYS for pair in pairs), UNSPLIT_ARRAYS)
_KNOWN = {CLASS_NAMES, CHANNELS, *(name for pair in _PAIRS for name in pair)}
_NUM_CONVERTED = 256  # images that are converted at a time

Arrays = dict[str, NDArray[Any]]


def has_arrays(folder: Path) -> bool:
    """Return whether a directory contains ``.npy`` files of images: ``images.npy`` or one with a name in ``ARRAYS``."""
    return any((folder / f"{images}.npy").is_file() for images, _ in (UNSPLIT_ARRAYS, *(train for train, *_ in ARRAYS)))


def read_arrays(path: Path, *, train: bool, image_size: ImageSize | None) -> ImageSet:
    """Read the training images or the test images of an ``.npz`` file, or of a directory of ``.npy`` files.

    It contains the arrays ``images`` and ``labels``, or the arrays in ``ARRAYS``. In a directory, the array ``images`` is
    the file ``images.npy``; such files are memory-mapped, so they may be larger than the main memory.

    - Images have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1 to ``MAX_CHANNELS`` channels. The axis of the
      channels is the one of length 1 or 3, otherwise the one of length at most ``MAX_CHANNELS``. If this holds for both axes
      or for neither, the entry ``channels`` must be ``first`` or ``last``. Any type other than uint8 is converted with the
      ``ValueRange`` of the training images.
    - Labels are integers or texts, shape (N,) or (N, 1), or one-hot, shape (N, classes).
    - ``class_names`` is optional: the name of each label in increasing order.

    Arrays with other names are ignored with a warning.

    Raises:
        InputError: if the files cannot be read, do not contain these arrays, or contain those of two ways to split them.
    """
    split = _read_splits(path, warns=train)
    try:
        return _image_set(split, train, image_size)
    except ValueError as error:
        raise _error(path, error) from None


def count_arrays(path: Path) -> int:
    """Return the number of training images of ``read_arrays``; raise ``InputError`` if they cannot be read."""
    return sum(len(part.indices) for part in _read_splits(path).train)


def measure_arrays(path: Path) -> tuple[int, int]:
    """Return width and height of the training images of ``read_arrays``; raise ``InputError`` if they cannot be read."""
    height, width = _read_splits(path).train[0].images.shape[2:]
    return width, height


def read_image_array(path: Path, size: tuple[int, int], *, channels: int, value_range: ValueRange | None) -> torch.Tensor:
    """Read one image from an ``.npy`` file for a trained model.

    Args:
        path: the file, an array of shape (H, W), (H, W, C) or (C, H, W).
        size: (height, width) in pixels that the image is stretched to.
        channels: C.
        value_range: the range of the values of the training images; None: they were uint8.

    Returns:
        uint8, shape (C, H, W).

    Raises:
        InputError: if the file cannot be read, or its shape or its values are not those of the training images.
    """
    try:
        with open(path, "rb") as file:
            image = np.load(file, allow_pickle=False)
        values = _channels_first(image, channels)
        if value_range is None and values.dtype != np.uint8:
            raise ValueError(f"its type is {values.dtype}, but the training images were uint8")
        if value_range is not None and (error := value_range.scale_error(values)):
            raise ValueError(f"it has {error}")
        pixels = values if value_range is None else value_range.to_uint8(values)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass a file with one image") from None
    except Exception as error:  # a damaged file raises a dozen types
        raise InputError(
            f"{path} is not valid ({one_line(error)}); it must contain one image of {channels} channels, like those of the "
            "training"
        ) from error
    return resize(torch.from_numpy(np.ascontiguousarray(pixels))[None], size)[0]


def _channels_first(image: Any, channels: int) -> NDArray[Any]:
    if not isinstance(image, np.ndarray) or 0 in image.shape:
        raise ValueError("it is not a single array, or an empty one")
    if image.ndim == 2 and channels == 1:
        return image[None]
    axes = [axis for axis in (0, 2) if image.ndim == 3 and image.shape[axis] == channels]
    if len(axes) != 1:
        problem = "two axes" if axes else "no axis"
        raise ValueError(f"its shape is {image.shape}, with {problem} of {channels} channels")
    return np.moveaxis(image, axes[0], 0)


@dataclass(frozen=True)
class _Part:
    """Images of shape (N, C, H, W), their labels, and the indices of those that belong to the split."""

    images: NDArray[Any]
    labels: NDArray[NameOrNumber]
    indices: NDArray[np.integer]

    def batches(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self.indices), _NUM_CONVERTED):
            yield self.images[self.indices[start : start + _NUM_CONVERTED]]


@dataclass(frozen=True)
class _Splits:
    """The arrays of a data set: its parts, and the label and the name of each class."""

    train: list[_Part]
    test: list[_Part]
    classes: NDArray[NameOrNumber]
    class_names: tuple[str, ...]


def _error(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not valid ({one_line(error)}); it must contain the arrays images and labels, or train_images, "
        "train_labels, test_images and test_labels"
    )


def _read_splits(path: Path, *, warns: bool = False) -> _Splits:
    arrays, others = _load(path)
    try:
        splits = _split(arrays)
    except ValueError as error:
        raise _error(path, error) from None
    if others and warns:
        described = (f"{name}{did_you_mean(name, _KNOWN)}" for name in sorted(others))
        logger.warning("ignored the arrays with unknown names in %s: %s", printable(path), printable(", ".join(described)))
    return splits


def _load(path: Path) -> tuple[Arrays, set[str]]:
    """Read the arrays with known names; also return the other names."""
    try:
        if path.is_dir():
            files = {file.stem: file for file in path.glob("*.npy") if not file.name.startswith(".")}
            known = sorted(_KNOWN & {*files})
            return {name: np.load(files[name], mmap_mode="r", allow_pickle=False) for name in known}, {*files} - _KNOWN
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it contains a single array")
            with arrays:
                return {name: arrays[name] for name in arrays.files if name in _KNOWN}, {*arrays.files} - _KNOWN
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {error.filename or path} ({error.strerror}); pass an .npz file") from None
    except Exception as error:  # a damaged archive raises a dozen types
        raise _error(path, error) from error


def _split(arrays: Arrays) -> _Splits:
    for train_names, valid_names, test_names in ARRAYS:
        if set(train_names) <= set(arrays):
            used = [train_names, *([valid_names] if set(valid_names) & set(arrays) else []), test_names]
            *train, test = _parts(arrays, used)
            return _splits(arrays, train, [test])
    (whole,) = _parts(arrays, [UNSPLIT_ARRAYS])
    chosen: dict[bool, list[int]] = {True: [], False: []}
    for label in np.unique(whole.labels):
        of_class = np.flatnonzero(whole.labels == label).tolist()
        if len(of_class) < TEST_STEP:
            raise ValueError(f"the label {label} has fewer than {TEST_STEP} images ({len(of_class)})")
        for is_train, indices in chosen.items():
            indices += train_or_test(of_class, train=is_train)
    train_part, test_part = (
        _Part(whole.images, whole.labels, np.array(chosen[is_train], np.int64)) for is_train in (True, False)
    )
    return _splits(arrays, [train_part], [test_part])


def _splits(arrays: Arrays, train: list[_Part], test: list[_Part]) -> _Splits:
    labels = [part.labels for part in (*train, *test)]
    if len({of_part.dtype.kind == "U" for of_part in labels}) > 1:
        raise ValueError("the labels of one split are texts, and those of another are integers")
    classes = np.unique(np.concatenate(labels))
    untrained = np.setdiff1d(classes, np.concatenate([part.labels for part in train]))
    if len(untrained):
        raise ValueError(f"no training image has the label {untrained[0]}; add some")
    names = read_names(CLASS_NAMES, arrays[CLASS_NAMES]) if CLASS_NAMES in arrays else tuple(map(str, classes.tolist()))
    if len(names) != len(classes):
        raise ValueError(f"{CLASS_NAMES} has the length {len(names)}, but there are {len(classes)} labels")
    return _Splits(train, test, classes, names)


def _parts(arrays: Arrays, names: list[tuple[str, str]]) -> list[_Part]:
    """Return arrays of images and labels; all have the shape and the type of the first one."""
    used = [name for pair in names for name in pair]
    for name in used:
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
    if unused := sorted({*arrays} - {*used, CLASS_NAMES, CHANNELS}):
        raise ValueError(f"it contains {', '.join(unused)} in addition to {', '.join(used)}; remove what is not to be used")
    first_name = names[0][0]
    axis = _channel_axis(first_name, arrays[first_name], _given_axis(arrays))
    parts: list[_Part] = []
    for images_name, labels_name in names:
        given = arrays[images_name]
        if given.dtype != arrays[first_name].dtype or given.ndim != arrays[first_name].ndim:
            raise ValueError(
                f"{images_name} is {given.dtype} with {given.ndim} axes, but {first_name} is {arrays[first_name].dtype} "
                f"with {arrays[first_name].ndim}"
            )
        images = given[:, None] if axis is None else np.moveaxis(given, axis, 1)
        if 0 in images.shape:
            raise ValueError(f"{images_name} is empty: its shape is {given.shape}")
        if parts and images.shape[1:] != parts[0].images.shape[1:]:
            raise ValueError(f"the images of {images_name}, shape {given.shape}, and of {first_name} have different shapes")
        labels = read_labels(labels_name, arrays[labels_name], len(images))
        parts.append(_Part(images, labels, np.arange(len(images))))
    return parts


def _given_axis(arrays: Arrays) -> int | None:
    """Return the axis of the channels that the entry ``channels`` names; None if there is none."""
    if CHANNELS not in arrays:
        return None
    value = arrays[CHANNELS]
    axes = {"first": 1, "last": 3}
    if value.dtype.kind != "U" or value.size != 1 or str(value.item()) not in axes:
        raise ValueError(f"{CHANNELS} is {one_line(value)}, neither the text 'first' nor 'last'")
    return axes[str(value.item())]


def _channel_axis(name: str, images: NDArray[Any], given: int | None) -> int | None:
    """Return the axis of the channels; None if the images have none, and so are grayscale."""
    if images.dtype.kind not in "buif":
        raise ValueError(f"{name} is {images.dtype}, not real numbers")
    if images.ndim == 3 and given is None:
        return None
    if images.ndim != 4:
        raise ValueError(f"{name} has the shape {images.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if given is not None:
        if images.shape[given] > MAX_CHANNELS:
            raise ValueError(f"{name} has {images.shape[given]} channels, more than {MAX_CHANNELS}")
        return given
    for is_likely in (lambda length: length in (1, 3), lambda length: length <= MAX_CHANNELS):
        axes = [axis for axis in (3, 1) if is_likely(images.shape[axis])]
        if len(axes) == 1:
            return axes[0]
        if axes:
            break
    problem = f"no axis of {MAX_CHANNELS} channels or fewer" if not axes else "two axes that can be the channels"
    raise ValueError(
        f"{name} has the shape {images.shape}, with {problem}; add the entry {CHANNELS} with the text 'first' for "
        "(N, C, H, W) or 'last' for (N, H, W, C)"
    )


def _image_set(splits: _Splits, train: bool, image_size: ImageSize | None) -> ImageSet:
    first = splits.train[0].images
    value_range = None
    if first.dtype != np.uint8:
        ranges = [ValueRange.of(batch) for part in splits.train for batch in part.batches()]
        value_range = functools.reduce(ValueRange.union, ranges)
    size = target_size([(first.shape[3], first.shape[2])], image_size)
    parts = splits.train if train else splits.test
    images = torch.empty((sum(len(part.indices) for part in parts), first.shape[1], *size), dtype=torch.uint8)
    done = 0
    for batch in (batch for part in parts for batch in part.batches()):
        pixels = batch if value_range is None else value_range.to_uint8(batch)
        images[done : done + len(batch)] = resize(torch.from_numpy(np.ascontiguousarray(pixels)), size)
        done += len(batch)
    labels = np.concatenate([part.labels[part.indices] for part in parts])
    numbers = torch.from_numpy(np.searchsorted(splits.classes, labels)).long()
    return ImageSet(images, numbers, splits.class_names, value_range)
