"""The one exception for input that a person can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Input that is wrong and that the person who gave it can mend.

    ``str(error)`` is one line: what is wrong, and what to do next. Command lines print that line without a traceback and
    exit with status 2.
    """
