"""The layout of a cell, from left to right, for all drawings of it."""

from __future__ import annotations

import numpy as np

from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph

NO_OPERATOR = "none"  # its output is zero, so its branches are not drawn
OUTPUT = -1  # index of the output in the layout

Item = tuple[int, bool]
"""An item of a column: a value, and whether its node is in this column, or only its line passes through."""


def operator_name(operator: str) -> str:
    """Format the name of an operator for display: "sep_conv_3x3" becomes "sep conv 3×3"."""
    words = operator.split("_")
    return " ".join(word.replace("x", "×") if word[:1].isdigit() else word for word in words)


def drawn_graphs(search_space: SearchSpace, architecture: Architecture) -> tuple[CellGraph, ...]:
    """Return the cell graphs without the branches with "none"."""
    return tuple(
        graph._replace(
            nodes=tuple(tuple(branch for branch in node if branch.operator != NO_OPERATOR) for node in graph.nodes)
        )
        for graph in search_space.cell_graphs(architecture)
    )


def arrange(graph: CellGraph) -> list[list[Item]]:
    """Return the items of each column from top to bottom: layers of Sugiyama's method, ordered by barycenters."""
    depth = dict.fromkeys(range(len(graph.inputs)), 0)
    for index, branches in enumerate(graph.nodes):
        depth[len(graph.inputs) + index] = 1 + max((depth[branch.source] for branch in branches), default=0)
    last = 1 + max(depth.values())
    depth[OUTPUT] = last
    reads = {len(graph.inputs) + index: [branch.source for branch in node] for index, node in enumerate(graph.nodes)}
    reads[OUTPUT] = list(graph.outputs)

    reach = dict(depth)  # last column of the line of each value
    for value, sources in reads.items():
        for source in sources:
            reach[source] = max(reach[source], depth[value])
    columns: list[list[Item]] = [[] for _ in range(last + 1)]
    for value in sorted(depth):
        columns[depth[value]].append((value, True))
        for column in range(depth[value] + 1, reach[value]):
            columns[column].append((value, False))

    rows: dict[int, float] = {}
    for items in columns:
        weights = {
            item: float(np.mean([rows[source] for source in reads.get(item[0], [])] or [item[0]]))
            if item[1]
            else rows[item[0]]
            for item in items
        }
        items.sort(key=lambda item: (weights[item], item))
        rows.update({item[0]: row - (len(items) - 1) / 2 for row, item in enumerate(items)})
    return columns
