"""Labels and names of classes in NumPy arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nases_env.paths import escape_name

NameOrNumber: TypeAlias = Any


def read_labels(name: str, labels: NDArray[Any], num_images: int) -> NDArray[NameOrNumber]:
    """Return labels as an array of shape (N,) of integers or texts.

    Args:
        name: name of the array.
        labels: integers, integers stored as floats, booleans or texts, shape (N,) or (N, 1), or one-hot, shape (N, classes).
        num_images: N.

    Raises:
        ValueError: if the labels have a different form.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_one_hot = labels.ndim == 2 and labels.dtype.kind in "buif"
    if labels.dtype.kind not in "buifSU" or labels.shape[:1] != (num_images,) or not (labels.ndim == 1 or is_one_hot):
        raise ValueError(
            f"{name} is {labels.dtype} of shape {labels.shape}, not one integer or text for each of {num_images} images"
        )
    if is_one_hot:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError(f"{name} of shape {labels.shape} is not one-hot: each row must have one 1 and otherwise 0")
        return np.asarray(labels.argmax(axis=1))
    if labels.dtype.kind in "SU":
        texts = _decode(name, labels)
        require_class_names(name, np.unique(texts).tolist())
        return texts
    if labels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            integers = labels.astype(np.int64)
        if not (integers == labels).all():
            raise ValueError(f"{name} contains numbers that are not integers")
        return integers
    if labels.dtype.kind == "u" and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} contains {labels.max()}, which is larger than 2^63 - 1")
    return labels.astype(np.int64)  # of one type in all splits; NumPy joins int64 and uint64 to floats


def read_names(name: str, names: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the classes in an array of texts or integers, shape (classes,); raise ``ValueError`` otherwise."""
    if names.ndim != 1 or names.dtype.kind not in "SUiu":
        raise ValueError(f"{name} is {names.dtype} of shape {names.shape}, not one text for each class")
    texts = tuple(map(str, (_decode(name, names) if names.dtype.kind in "SU" else names).tolist()))
    require_class_names(name, texts)
    if len(set(texts)) < len(texts):
        raise ValueError(f"{name} has a name twice")
    return texts


def require_class_names(name: str, texts: list[str] | tuple[str, ...]) -> None:
    """Raise ``ValueError`` if one of ``texts`` cannot be the name of a class in a model and a report."""
    for text in texts:
        if not text or "\0" in text or text != escape_name(text):
            raise ValueError(f"{name} has the class {text!r}, which is empty or has an invalid character")


def _decode(name: str, texts: NDArray[Any]) -> NDArray[np.str_]:
    if texts.dtype.kind == "U":
        return np.asarray(texts)
    try:
        return np.char.decode(texts, "utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{name} has a text that is not UTF-8") from None
