"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(headings: Sequence[object], *rows: Sequence[object]) -> str:
    """Format a table in Markdown.

    Args:
        headings: the header row.
        *rows: the other rows, each as long as ``headings``.
    """
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
