"""Images in folders, one folder a class: found, decoded, and cached on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nases_env.errors import InputError
from nases_env.training.image_io import read_picture
from nases_env.training.image_set import ImageSet

logger = logging.getLogger(__name__)

_SUFFIXES = (".jpeg", ".jpg", ".png")
_CACHE_FORMAT = "1"  # part of every cache file's name: raise it when decoding changes


def read_image_folder(root: Path, *, train: bool, side: int | None) -> ImageSet:
    """The images of ``root/train/<class>/*`` or ``root/test/<class>/*`` as RGB, classes and files in order of their names.

    The decoded images are kept in the cache folder (environment variable NASES_CACHE_DIR, else ``~/.cache/nases``) under a
    digest of the files' paths, sizes and modification times, and read from there the next time.

    Args:
        side: every image is stretched to this height and width in pixels; None: all must have one size, and keep it.

    Raises:
        InputError: if a folder is missing or empty, if the classes of ``train`` and ``test`` differ, if a file is not an
            intact PNG or JPEG, or if sizes differ and ``side`` is None.
    """
    half, other_half = ("train", "test") if train else ("test", "train")
    class_names = _class_names(root / half)
    if (root / other_half).is_dir():
        _require_same_classes(root, class_names, _class_names(root / other_half))
    files = [_image_files(root / half / name) for name in class_names]
    cache_file = cache_folder() / f"images-{_digest(root / half, files, side)}.safetensors"
    labels = torch.repeat_interleave(torch.arange(len(files)), torch.tensor([len(of_class) for of_class in files]))
    images = _read_cache(cache_file, len(labels))
    if images is None:
        logger.info("decoding %d images of %s", len(labels), root / half)
        images = _decode_all([Path(entry.path) for of_class in files for entry in of_class], side)
        _write_cache(cache_file, images)
    return ImageSet(images, labels, class_names)


def cache_folder() -> Path:
    """Where decoded images are kept: the environment variable NASES_CACHE_DIR, else ``~/.cache/nases``."""
    return Path(os.environ.get("NASES_CACHE_DIR") or Path.home() / ".cache" / "nases").expanduser()


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; put the images into {folder}/<class>/, one folder a class")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{folder} holds no class folders; put the images into {folder}/<class>/, one folder a class")
    return tuple(names)


def _require_same_classes(root: Path, class_names: tuple[str, ...], other_names: tuple[str, ...]) -> None:
    odd = sorted(set(class_names) ^ set(other_names))
    if odd:
        raise InputError(
            f"the classes of {root / 'train'} and {root / 'test'} differ: {', '.join(odd)} in one of them only; "
            "give both the same class folders"
        )


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        files = sorted((entry for entry in entries if entry.is_file() and not entry.name.startswith(".")), key=_name)
    images = [entry for entry in files if entry.name.lower().endswith(_SUFFIXES)]
    if not images:
        raise InputError(f"{folder} holds no PNG or JPEG file; add images of this class or remove the folder")
    if len(images) < len(files):
        others = [entry.name for entry in files if not entry.name.lower().endswith(_SUFFIXES)]
        logger.warning("left out %d files of %s that are neither PNG nor JPEG, such as %s", len(others), folder, others[0])
    return images


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _digest(folder: Path, files: list[list[os.DirEntry[str]]], side: int | None) -> str:
    digest = hashlib.sha256(f"{_CACHE_FORMAT}\0{side}\0{folder.resolve()}".encode())
    for entry in (entry for of_class in files for entry in of_class):
        status = entry.stat()
        digest.update(f"\0{os.path.relpath(entry.path, folder)}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _decode_all(paths: list[Path], side: int | None) -> torch.Tensor:
    size = None if side is None else (side, side)
    first = read_picture(paths[0], size)
    images = torch.empty((len(paths), *first.shape), dtype=torch.uint8)
    for index, path in enumerate(paths):
        image = read_picture(path, size)
        if image.shape != first.shape:
            raise InputError(
                f"{path} is {_size(image)} pixels, but {paths[0]} is {_size(first)}; "
                "make all images one size, or use the data set image_folder, which resizes them"
            )
        images[index] = image
    return images


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _read_cache(cache_file: Path, num_images: int) -> torch.Tensor | None:
    try:
        images = load_file(cache_file)["images"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        logger.warning("the cached images in %s cannot be read (%s); decoding them again", cache_file, error)
        return None
    if images.dtype != torch.uint8 or images.dim() != 4 or len(images) != num_images:
        logger.warning("the cached images in %s are of another shape than expected; decoding them again", cache_file)
        return None
    return images


def _write_cache(cache_file: Path, images: torch.Tensor) -> None:
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=cache_file.parent) as folder:
            temporary = Path(folder) / cache_file.name
            save_file({"images": images}, temporary)
            os.replace(temporary, cache_file)
    except (OSError, SafetensorError) as error:
        logger.warning("the images cannot be cached in %s (%s); they will be decoded again next time", cache_file, error)
