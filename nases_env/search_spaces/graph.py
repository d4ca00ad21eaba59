"""A cell as a graph: what a picture of it is drawn from."""

from __future__ import annotations

from typing import NamedTuple


class Branch(NamedTuple):
    """One operator applied to one value."""

    operator: str
    source: int
    """The value that it reads: inputs are 0, 1, …, then come the nodes in their order."""


class CellGraph(NamedTuple):
    """A directed acyclic graph of values; each node is the sum of its branches."""

    name: str
    inputs: tuple[str, ...]
    """The names of the values that come from outside."""
    nodes: tuple[tuple[Branch, ...], ...]
    outputs: tuple[int, ...]
    """The values that leave the cell."""
