"""Range checks of command-line options; the error messages name the flag."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from nases_env.cpu import MAX_THREADS
from nases_env.errors import InputError


def require_at_least(args: object, minimum: int, *options: str) -> None:
    """Raise ``InputError`` if one of ``options``, attributes of ``args``, is less than ``minimum``; None is skipped."""
    for option in options:
        value = getattr(args, option)
        _require(value is None or value >= minimum, option, f"be at least {minimum}", value)


def require_num_threads(args: Any) -> None:
    """Raise ``InputError`` if the attribute ``num_threads`` of ``args`` is not in [1, ``MAX_THREADS``]; None is skipped."""
    require_at_least(args, 1, "num_threads")
    value = args.num_threads
    _require(value is None or value <= MAX_THREADS, "num_threads", f"be at most {MAX_THREADS}", value)


def require_positive(args: object, *options: str) -> None:
    """Raise ``InputError`` if one of ``options``, attributes of ``args``, is not a positive number; None is skipped."""
    for option in options:
        value = getattr(args, option)
        _require(value is None or 0 < value < math.inf, option, "be a positive number", value)


def require_non_negative(args: object, *options: str) -> None:
    """Raise ``InputError`` if one of ``options``, attributes of ``args``, is negative or not finite."""
    for option in options:
        value = getattr(args, option)
        _require(0 <= value < math.inf, option, "be 0 or a positive number", value)


def require_fraction(args: object, *options: str) -> None:
    """Raise ``InputError`` if one of ``options``, attributes of ``args``, is not in [0, 1)."""
    for option in options:
        value = getattr(args, option)
        _require(0 <= value < 1, option, "be in [0, 1)", value)


def require_default(args: Any, reason: str, *options: str) -> None:
    """Raise ``InputError`` if one of ``options``, attributes of the dataclass ``args``, is not its default.

    Args:
        args: the options of the command.
        reason: why the options have no effect, such as "with --controller independent".
        *options: names of fields of ``args``.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for option in options:
        if getattr(args, option) != defaults[option]:
            raise InputError(f"--{option.replace('_', '-')} has no effect {reason}; omit it")


def _require(condition: bool, option: str, requirement: str, value: Any) -> None:
    if not condition:
        raise InputError(f"--{option.replace('_', '-')} must {requirement}, not {value}")
