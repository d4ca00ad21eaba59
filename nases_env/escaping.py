"""Escapes for text that a file, a name or a message may contain, before it is printed or written to a report."""

from __future__ import annotations

import re
import shlex

_MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", **{character: f"\\{character}" for character in "\\`*[]|"}})
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word does not begin an emphasis


def printable(text: object) -> str:
    """Return ``text`` on one line, with escapes in place of line breaks, control sequences of a terminal and the like."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def quoted(path: object) -> str:
    """Return ``path`` as one word of a command for a shell."""
    return shlex.quote(str(path))


def escape_markdown(text: object) -> str:
    """Return ``text`` as Markdown that shows it unchanged on one line: neither markup, nor HTML, nor a new table cell."""
    return _EMPHASIS.sub(r"\\_", printable(text).translate(_MARKDOWN))
