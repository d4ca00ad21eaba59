"""The one exception for input that a person can mend, and a hint for a word that is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Input that is wrong and that the person who gave it can mend.

    ``str(error)`` is one line: what is wrong, and what to do next. Command lines print that line without a traceback and
    exit with status 2. It is no ``ValueError``, since what reads command lines takes those for its own and frames them.
    """


def one_line(error: object) -> str:
    """What ``error`` says, with all white space made single spaces: for a message of one line."""
    return " ".join(str(error).split())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean '...'?)`` with the nearest of the ``known`` words; nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
