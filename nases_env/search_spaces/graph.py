"""Cells as graphs, for drawing and for synthetic rewards."""

from __future__ import annotations

from typing import NamedTuple


class Branch(NamedTuple):
    """One operator applied to one value."""

    operator: str
    source: int
    """Index of the value that it reads: the inputs 0, 1, …, followed by the nodes."""


class CellGraph(NamedTuple):
    """A directed acyclic graph of values; each node is the sum of its branches."""

    name: str
    inputs: tuple[str, ...]
    """Names of the inputs."""
    nodes: tuple[tuple[Branch, ...], ...]
    outputs: tuple[int, ...]
    """Indices of the output values."""
