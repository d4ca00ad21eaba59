"""Arguments of environments, which may be of any type: conversion, or an ``InputError``."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nases_env.errors import InputError, shown


def to_numbers(name: str, actions: Any, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    """Convert actions to an array of float64.

    Raises:
        InputError: if they are not real numbers, or the array does not have ``shape``.
    """
    try:
        array = np.asarray(actions)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"the type is {array.dtype}")
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last one: a tensor that requires a gradient
        raise InputError(f"{name} must be an array of numbers ({error})") from None
    if array.shape != shape:
        raise InputError(f"{name} must have the shape {shape}, not {array.shape}")
    return array


def to_seed(seed: Any) -> int | None:
    """Convert a seed to an integer; None remains None.

    Raises:
        InputError: if it is not an integer, is negative, or has thousands of digits.
    """
    if seed is None:
        return None
    try:
        number = operator.index(seed)
        str(number)  # streams of random numbers are named by its digits
    except (TypeError, ValueError) as error:
        raise InputError(f"a seed must be an integer ({error})") from None
    if number < 0:
        raise InputError(f"a seed must be at least 0, not {number}")
    return number


def to_count(name: str, value: Any, minimum: int = 1) -> int:
    """Convert an argument that counts something to an integer.

    Raises:
        InputError: if it is not an integer, or less than ``minimum``.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be an integer, not {shown(value)}") from None
    if count < minimum:
        raise InputError(f"{name} must be at least {minimum}, not {count}")
    return count


def to_rungs(rungs: Any) -> tuple[Any, ...]:
    """Convert the argument ``rungs`` to a tuple; None is empty. The evaluator rejects values that are not integers.

    Raises:
        InputError: if it is a text, or not a sequence.
    """
    if rungs is None:
        return ()
    if isinstance(rungs, str) or not isinstance(rungs, Iterable):
        raise InputError(f"rungs must be increasing numbers of epochs, such as (1, 3, 7), not {shown(rungs)}")
    return tuple(int(rung) if isinstance(rung, Integral) else rung for rung in rungs)


def to_options(options: Any) -> dict[Any, Any]:
    """Return a copy of the options of ``reset``; empty for None.

    Raises:
        InputError: if they are not a mapping.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise InputError(f"the options of reset must be a dictionary, not {shown(options)}")
    return dict(options)
