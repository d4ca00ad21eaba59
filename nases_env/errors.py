"""The exception for user errors, and helpers for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Error caused by user input.

    ``str(error)`` is one line that says what is wrong and how to fix it. Commands print that line without a traceback and
    exit with status 2. It is not a ``ValueError``, because tyro catches those and reformats them.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))  # a message may quote a value, such as an array or the name of a file


MAX_LENGTH = 1000
"""Characters of an error message; one may quote a value from a file."""


def one_line(error: object) -> str:
    """Return the message of ``error`` on one line, without the middle of a long one; the type name if it is empty."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH // 2]} ... {text[-MAX_LENGTH // 2 :]}"


def shown(value: object) -> str:
    """Return ``repr(value)`` for a message; the type of a value that has none, such as a list of thousands of levels."""
    try:
        return repr(value)
    except (RecursionError, ValueError):  # the second one: an integer of thousands of digits
        return f"<{type(value).__name__}>"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean '...'?)`` with the ``known`` word closest to ``word``, or "" if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def require_minimum(minimum: float, **values: float | None) -> None:
    """Raise ``InputError`` unless each of ``values``, by name, is None or at least ``minimum``."""
    for name, value in values.items():
        if value is not None and not value >= minimum:  # also rejects NaN
            raise InputError(f"{name} must be at least {minimum}, not {value}")
