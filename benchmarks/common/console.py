"""The console on which benchmarks print their tables."""

from __future__ import annotations

from rich.console import Console


def wide_console(min_width: int) -> Console:
    """Return the console; if the output is not a terminal, lines have at least ``min_width`` characters."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, min_width))
