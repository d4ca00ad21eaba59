"""Tables and their entries."""

from __future__ import annotations

from collections.abc import Sequence

from nases_env.escaping import escape_markdown

UNKNOWN = "–"
"""The text of a value that is not known."""


def markdown_table(headings: Sequence[object], *rows: Sequence[object]) -> str:
    """Format a table in Markdown; the cells are shown as they are."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines)


def format_known(value: float, spec: str, is_known: bool) -> str:
    """Format ``value`` by the format specification ``spec``, or return a dash if the value is not known."""
    return format(value, spec) if is_known else UNKNOWN
