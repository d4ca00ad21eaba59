"""Tables of image files and their classes."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from nases_env.errors import InputError, one_line
from nases_env.training.array_labels import require_class_names
from nases_env.training.image_folder import TEST_STEP, File, measure_files, read_files, train_or_test
from nases_env.training.image_set import ImageSet
from nases_env.training.image_size import ImageSize, target_size

FILE_COLUMNS = ("file", "filename", "file_name", "path", "image")
LABEL_COLUMNS = ("label", "class", "target")
SPLIT_COLUMN = "split"
SPLITS = {"train": True, "training": True, "val": True, "valid": True, "validation": True, "test": False}
"""Values of the column ``split``: whether the image is a training image. A search splits off its own validation images."""


def read_table(path: Path, *, train: bool, image_size: ImageSize | None) -> ImageSet:
    """Read the training images or the test images that a ``.csv`` file lists.

    It has a header and a column with the names of the files, relative to its directory, a column with their classes, and
    optionally the column ``split`` with ``train`` or ``test``. Without it, every fifth image of each class, in the order of
    the rows, is a test image. Each file is listed once. The names of the columns may be in upper case.

    Args:
        path: the file.
        train: whether to read the training images or the test images.
        image_size: see ``target_size``, with the sizes of about a hundred training images.

    Raises:
        InputError: if the file or an image cannot be read, or a column is missing.
    """
    training = list_table(path, train=True)
    names = sorted(training)
    files = training if train else list_table(path, train=False)
    in_order = [file for name in names for file in training[name]]
    size = target_size([] if isinstance(image_size, str) else measure_files(in_order), image_size)
    listed: list[list[File]] = [list(files[name]) for name in names]
    return read_files(path.parent, listed, tuple(names), size, in_order)


def list_table(path: Path, *, train: bool) -> dict[str, list[Path]]:
    """Return the training images or the test images of each class; see ``read_table``."""
    rows = _read_rows(path)
    _, first_row = rows[0]
    file_column, label_column = (_column(path, first_row, known) for known in (FILE_COLUMNS, LABEL_COLUMNS))
    by_class: dict[str, list[Path]] = {}
    chosen: dict[str, list[Path]] = {}
    lines: dict[str, int] = {}
    for number, row in rows:
        name, label = row[file_column], (row[label_column] or "").strip()
        if not name or not label:
            raise InputError(f"line {number} of {path} lacks a file or a class; complete or remove it")
        first = lines.setdefault(os.path.abspath(path.parent / name), number)
        if first != number:  # in two splits, it would be trained on and tested
            raise InputError(f"line {number} of {path} lists {name} again, after line {first}; remove one of them")
        try:
            require_class_names(f"line {number} of {path}", [label])
        except ValueError as error:
            raise InputError(f"{error}; rename it") from None
        by_class.setdefault(label, []).append(path.parent / name)
        if SPLIT_COLUMN in row:
            split = (row[SPLIT_COLUMN] or "").strip().lower()
            if split not in SPLITS:
                raise InputError(f"line {number} of {path} has the split {split!r}; use train or test")
            if SPLITS[split] is train:
                chosen.setdefault(label, []).append(path.parent / name)
    for label, files in by_class.items():
        if SPLIT_COLUMN not in first_row:
            if len(files) < TEST_STEP:
                raise InputError(f"{path} has fewer than {TEST_STEP} images of {label} ({len(files)}); add some")
            chosen[label] = train_or_test(files, train=train)
        elif label not in chosen:
            raise InputError(f"{path} has no {'training' if train else 'test'} image of {label}; add some")
    return chosen


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows and the numbers of their lines."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]  # it skips blank lines
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass a CSV file with the columns file and label") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a valid CSV file ({one_line(error)}); save it as UTF-8 with commas") from None
    if not rows:
        raise InputError(f"{path} lists no images; it needs a header with the columns file and label, and one row per image")
    return rows


def _column(path: Path, row: dict[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in row:
            return name
    raise InputError(f"{path} lacks a column {names[0]}; its first line must be a header with the columns file and label")
