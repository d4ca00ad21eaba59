"""Image folders with one subdirectory per class; decoded images are cached on disk."""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, one_line
from nases_env.escaping import printable
from nases_env.hashing import sha256_hex
from nases_env.paths import cache_dir, escape_name
from nases_env.training.image_io import RGB, ImageFormat, image_size, read_format, read_image, read_values
from nases_env.training.image_set import ImageSet
from nases_env.training.image_tiff import has_transparency, is_tiff
from nases_env.training.value_range import ValueRange

logger = logging.getLogger(__name__)

T = TypeVar("T")
File = os.DirEntry[str] | Path

_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff")
_NUM_MEASURED = 100  # images whose sizes determine the size of all
TEST_STEP = 5  # of the images of a class in a directory without a split, this one is a test image
_CACHE_FORMAT = "3"  # part of the name of a cache file; increment it when decoding changes
_CACHE_FILE = re.compile(r"(images|range)-[0-9a-f]{32}\.safetensors")
_CACHE_DAYS = 30  # without a use, after which a cache file is removed


def read_image_folder(root: Path, *, train: bool, size: tuple[int, int] | None) -> ImageSet:
    """Read the images of ``root/train/<class>/*`` or ``root/test/<class>/*``, sorted by class and file name.

    Images in grayscale and in color become RGB; TIFF files can have other channels. Images of any other type than uint8 are
    converted with the ``ValueRange`` of the training images. If ``root`` has no subdirectory ``train``, it is not split:
    every fifth image of each ``root/<class>/*`` is a test image.

    Args:
        root: the directory.
        train: whether to read the training images or the test images.
        size: (height, width) in pixels that all images are stretched to; None requires images of equal size.

    Raises:
        InputError: if a directory is missing or empty, the classes of ``train`` and ``test`` differ, a file is not a valid
            image, the channels or the types differ, or the sizes differ and ``size`` is None.
    """
    if is_split(root):
        split, other_split = ("train", "test") if train else ("test", "train")
        with _listing(root):
            _require_no_class(root / "train", root / "test")
            class_names = _class_names(root / split)
            if (root / other_split).is_dir():
                _require_same_classes(root, class_names, _class_names(root / other_split))
            files = [_image_files(root / split / name) for name in class_names]
            if train:
                _warn_of_other_splits(root)
        return read_files(root / split, files, class_names, size, training_files(root))
    with _listing(root):
        class_names = _class_names(root)
        files = [_image_files(root / name) for name in class_names]
    for name, of_class in zip(class_names, files, strict=True):
        if len(of_class) < TEST_STEP:
            raise InputError(f"{root / name} has fewer than {TEST_STEP} images ({len(of_class)}); add some to each class")
    chosen = [train_or_test(of_class, train=train) for of_class in files]
    return read_files(root, chosen, class_names, size, training_files(root))


def is_split(root: Path) -> bool:
    """Return whether ``root`` has separate directories for training and test images."""
    return (root / "train").is_dir() or (root / "test").is_dir()


def train_or_test(of_class: Sequence[T], *, train: bool) -> list[T]:
    """Return the training images of a class, or its test images: every fifth one."""
    return [item for index, item in enumerate(of_class) if (index % TEST_STEP == TEST_STEP - 1) != train]


def read_files(
    root: Path,
    files: Sequence[Sequence[File]],
    class_names: tuple[str, ...],
    size: tuple[int, int] | None,
    training: Sequence[Path],
) -> ImageSet:
    """Read image files of one ``ImageFormat``.

    The decoded images are cached in ``cache_dir()``, under a digest of the paths, sizes, modification times and change times
    of the files. What was not used for ``_CACHE_DAYS`` is removed from there.

    Args:
        root: a directory that contains the files.
        files: the files of each class.
        class_names: the name of each class.
        size: as in ``read_image_folder``.
        training: all training images; the first one has the format, and all of them the range of the values.

    Raises:
        InputError: if a file is not a valid image, the formats differ, or the sizes differ and ``size`` is None.
    """
    paths = [Path(file) for of_class in files for file in of_class]
    first = training[0] if training else paths[0]
    image_format = read_format(first)
    if is_tiff(first) and has_transparency(first):
        logger.warning(
            "ignored the transparency of TIFF files such as %s; to use it as a channel, save them with ExtraSamples = 0",
            printable(first),
        )
    value_range = None if image_format.dtype == "uint8" else _value_range(root, training or paths, image_format)
    cache_file = cache_dir() / f"images-{_digest(root, files, size, image_format, value_range)}.safetensors"
    labels = torch.repeat_interleave(torch.arange(len(files)), torch.tensor([len(of_class) for of_class in files]))
    images = _read_cache(cache_file, len(labels))
    if images is None:
        logger.info("decoding %d images of %s", len(labels), root)
        images = _decode_all(paths, size, image_format, value_range)
        _write_cache(cache_file, {"images": images})
    return ImageSet(images, labels, class_names, value_range)


def measure_files(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Return the width and the height of about ``_NUM_MEASURED`` upright images in pixels.

    Raises:
        InputError: if a file is not a valid image.
    """
    return [image_size(path) for path in files[:: max(1, len(files) // _NUM_MEASURED)]]


def training_files(root: Path) -> list[Path]:
    """Return the training images of an image folder, as ``read_image_folder`` reads them; empty if it has none."""
    pattern = "train/[!.]*/[!.]*" if is_split(root) else "[!.]*/[!.]*"
    with _listing(root):
        files = sorted(path for path in root.glob(pattern) if path.suffix.lower() in _SUFFIXES and path.is_file())
    if is_split(root):
        return files
    by_class = itertools.groupby(files, key=lambda path: path.parent)
    return [path for _, of_class in by_class for path in train_or_test(list(of_class), train=True)]


@contextmanager
def _listing(root: Path) -> Iterator[None]:
    """Raise ``InputError`` if a directory below ``root`` cannot be listed, or a link in it points to itself."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename or root} ({error.strerror}); check its permissions, or remove it"
        ) from error


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory; put the images into {folder}/<class>/, one directory per class")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(
            f"{folder} contains no class directories; put the images into {folder}/<class>/, one directory per class"
        )
    for name in names:
        if name != escape_name(name):  # models and reports contain it
            raise InputError(f"the name {folder / name} is not UTF-8; rename the directory")
    return tuple(names)


def _require_no_class(*splits: Path) -> None:
    """Raise ``InputError`` if one of ``splits`` contains images but no directories: it is a class of this name."""
    for folder in splits:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
        if any(entry.suffix.lower() in _SUFFIXES for entry in entries) and not any(entry.is_dir() for entry in entries):
            raise InputError(
                f"{folder} contains images, but train and test are reserved names of directories that contain the classes; "
                f"if it is a class, rename it, otherwise move the images into {folder}/<class>/"
            )


def _require_same_classes(root: Path, class_names: tuple[str, ...], other_names: tuple[str, ...]) -> None:
    different = sorted(set(class_names) ^ set(other_names))
    if different:
        raise InputError(
            f"the classes of {root / 'train'} and {root / 'test'} differ: only one of them has {', '.join(different)}; "
            "both must have the same class directories"
        )


def _warn_of_other_splits(root: Path) -> None:
    folders = (entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    others = sorted(name for name in folders if name not in ("train", "test"))
    if others:
        logger.warning(
            "ignored the directories %s in %s; to use their images, move them to train or test",
            printable(", ".join(others)),
            printable(root),
        )


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scanned:
        entries = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=_name)
    images = [entry for entry in entries if entry.is_file() and entry.name.lower().endswith(_SUFFIXES)]
    if not images:
        raise InputError(f"{folder} contains no PNG, JPEG or TIFF files; add images of this class or remove the directory")
    if len(images) < len(entries):
        used = set(images)
        others = [entry.name for entry in entries if entry not in used]
        logger.warning(
            "ignored %d files or directories in %s that are not PNG, JPEG or TIFF files, such as %s",
            len(others),
            printable(folder),
            printable(others[0]),
        )
    return images


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _value_range(root: Path, training: Sequence[Path], image_format: ImageFormat) -> ValueRange:
    """Return the range of the values of the training images, which is cached like the images."""
    cache_file = cache_dir() / f"range-{_digest(root, [training], None, image_format, None)}.safetensors"
    bounds = _read_tensors(cache_file)
    if bounds is not None and {"low", "high"} <= set(bounds):
        return ValueRange(tuple(bounds["low"].tolist()), tuple(bounds["high"].tolist()))
    logger.info("reading the range of the values of %d images of %s", len(training), root)
    value_range: ValueRange | None = None
    for path in training:
        values = read_values(path, image_format)
        try:
            of_file = ValueRange.of(values[None])
        except ValueError as error:
            raise InputError(f"{path} cannot be used ({one_line(error)}); replace or remove it") from None
        value_range = of_file if value_range is None else value_range.union(of_file)
    assert value_range is not None, "there is a file"
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (value_range.low, value_range.high))
    _write_cache(cache_file, {"low": low, "high": high})
    return value_range


def _digest(
    folder: Path,
    files: Sequence[Sequence[File]],
    size: tuple[int, int] | None,
    image_format: ImageFormat,
    value_range: ValueRange | None,
) -> str:
    """Return the name of a cache file. It is never recorded with results, which have digests of the pixels.

    Files that were unpacked over others can have the same sizes and modification times, but not the same change times.
    """
    side = size[0] if size is not None and size[0] == size[1] else size
    parts = [f"{_CACHE_FORMAT}\0{side}\0{folder.resolve()}"]
    if image_format != RGB:
        parts.append(f"\0{image_format}\0{value_range}")
    for file in (file for of_class in files for file in of_class):
        try:
            status = file.stat()
        except OSError as error:
            raise InputError(
                f"cannot read {os.fspath(file)} ({error.strerror}); restore the file, or do not list it"
            ) from None
        times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
        parts.append(f"\0{os.path.relpath(file, folder)}\0{status.st_size}\0{times}")
    return sha256_hex(*parts)[:32]


def _decode_all(
    paths: list[Path], size: tuple[int, int] | None, image_format: ImageFormat, value_range: ValueRange | None
) -> torch.Tensor:
    first = read_image(paths[0], size, image_format=image_format, value_range=value_range)
    images = torch.empty((len(paths), *first.shape), dtype=torch.uint8)
    for index, path in enumerate(paths):
        image = read_image(path, size, image_format=image_format, value_range=value_range)
        if image.shape != first.shape:
            raise InputError(
                f"{path} is {_size(image)} pixels, but {paths[0]} is {_size(first)}; "
                "resize the images to one size, or use the data set image_folder, which resizes them"
            )
        images[index] = image
    return images


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _read_cache(cache_file: Path, num_images: int) -> torch.Tensor | None:
    tensors = _read_tensors(cache_file)
    if tensors is None:
        return None
    images = tensors.get("images")
    if images is None or images.dtype != torch.uint8 or images.dim() != 4 or len(images) != num_images:
        logger.warning("the cached images in %s have an unexpected shape; decoding the files again", cache_file)
        return None
    return images


def _read_tensors(cache_file: Path) -> dict[str, torch.Tensor] | None:
    try:
        tensors = load_file(cache_file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("cannot read the cached images in %s (%s); decoding the files again", cache_file, error)
        return None
    with suppress(OSError):  # the file of another user
        os.utime(cache_file)
    return tensors


def _write_cache(cache_file: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        write_atomically(cache_file, save(tensors))  # ``save_file`` writes files that only the user can read
        _remove_unused(cache_file.parent)
    except InputError as error:
        logger.warning("cannot cache the images in %s (%s); they will be decoded again next time", cache_file, error)


def _remove_unused(folder: Path) -> None:
    """Remove the files of directories that have changed since, or are no longer used."""
    for path in folder.glob("*.safetensors"):
        with suppress(OSError):  # removed by another process, or the file of another user
            if _CACHE_FILE.fullmatch(path.name) and path.stat().st_mtime < time.time() - _CACHE_DAYS * 86_400:
                path.unlink()
