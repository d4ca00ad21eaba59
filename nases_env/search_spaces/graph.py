"""Cells as graphs, for drawing, for synthetic rewards, and to compare architectures."""

from __future__ import annotations

from collections.abc import Set
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


def used_branches(graph: CellGraph, zero_operators: Set[str] = frozenset()) -> list[Branch]:
    """Return the branches on the paths from the inputs to the outputs; ``zero_operators`` remove a branch."""
    is_reached = [True] * len(graph.inputs)  # from an input, for each value
    for node in graph.nodes:
        is_reached.append(any(is_reached[source] for operator, source in node if operator not in zero_operators))
    is_read = [False] * len(is_reached)
    for value in graph.outputs:
        is_read[value] = True
    used: list[Branch] = []
    for value in range(len(is_reached) - 1, len(graph.inputs) - 1, -1):
        if not is_read[value]:
            continue
        for branch in graph.nodes[value - len(graph.inputs)]:
            if branch.operator not in zero_operators and is_reached[branch.source]:
                is_read[branch.source] = True
                used.append(branch)
    return used
