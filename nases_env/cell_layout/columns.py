"""The columns of a cell from left to right, with few crossings of its lines."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph
from nases_env.seeding import numpy_generator

OUTPUT = -1  # index of the output in the layout

NUM_STARTS, SWEEPS_PER_START = 10, 2
MAX_CACHED = 256  # cells of the last drawings; a search draws the same cells several times


class Item(NamedTuple):
    """An item of a column."""

    value: int
    """Index of a value of the graph, or ``OUTPUT``."""
    is_here: bool = True
    """Whether its node is in this column, or only its line passes through."""


def drawn_graphs(search_space: SearchSpace, architecture: Architecture) -> tuple[CellGraph, ...]:
    """Return the cell graphs without the branches with ``zero_operators`` of the search space."""
    zero_operators = search_space.zero_operators
    return tuple(
        graph._replace(
            nodes=tuple(tuple(branch for branch in node if branch.operator not in zero_operators) for node in graph.nodes)
        )
        for graph in search_space.cell_graphs(architecture)
    )


def reads(graph: CellGraph) -> dict[int, list[int]]:
    """Return the values that each node and the output read."""
    found = {len(graph.inputs) + index: [branch.source for branch in node] for index, node in enumerate(graph.nodes)}
    found[OUTPUT] = list(graph.outputs)
    return found


@functools.lru_cache(maxsize=MAX_CACHED)
def arrange(graph: CellGraph) -> tuple[tuple[Item, ...], ...]:
    """Return the items of each column from top to bottom, in an order with few crossings.

    It is Sugiyama's method: columns are sorted by the mean row of their neighbors, from left to right and back, and
    neighbors are swapped if that removes crossings. The first start is the order of the values; the others are random.
    """
    columns = _layers(len(graph.inputs), reads(graph))
    lines = lines_between(columns, graph)
    best, best_columns = num_crossings(columns, lines), [list(column) for column in columns]
    rng = numpy_generator(0, "cell layout")
    for sweep in range(NUM_STARTS * SWEEPS_PER_START):
        if best == 0:
            break
        if sweep and sweep % SWEEPS_PER_START == 0:
            columns = [[column[row] for row in rng.permutation(len(column))] for column in columns]
        is_forward = sweep % 2 == 0
        for index in range(1, len(columns)) if is_forward else reversed(range(len(columns) - 1)):
            _sort_by_neighbors(columns, lines, index, index - 1 if is_forward else index + 1)
        _swap_neighbors(columns, lines)
        if num_crossings(columns, lines) < best:
            best, best_columns = num_crossings(columns, lines), [list(column) for column in columns]
    is_upside_down = best_columns[0][0] > best_columns[0][-1]
    return tuple(tuple(column[::-1] if is_upside_down else column) for column in best_columns)


def lines_between(columns: Sequence[Sequence[Item]], graph: CellGraph) -> list[list[tuple[Item, Item]]]:
    """Return the lines from each column to the next, as often as an operator or the output reads the value."""
    sources = reads(graph)
    lines = []
    for left_items, items in pairwise(columns):
        left = {item.value: item for item in left_items}
        lines.append(
            [
                (left[source], item)
                for item in items
                for source in (sources.get(item.value, []) if item.is_here else [item.value])
                if source in left
            ]
        )
    return lines


def num_crossings(columns: Sequence[Sequence[Item]], lines: list[list[tuple[Item, Item]]]) -> int:
    """Return how many pairs of lines between neighboring columns cross."""
    rows = [{item: row for row, item in enumerate(column)} for column in columns]
    total = 0
    for index, each in enumerate(lines):
        ends = [(rows[index][left], rows[index + 1][right]) for left, right in each]
        total += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(ends, 2))
    return total


def _layers(num_inputs: int, sources: dict[int, list[int]]) -> list[list[Item]]:
    """Return the items of each column: a node is to the right of all that it reads, and the output is last."""
    depth = dict.fromkeys(range(num_inputs), 0)
    for value, read in sources.items():
        if value != OUTPUT:
            depth[value] = 1 + max((depth[source] for source in read), default=0)
    depth[OUTPUT] = 1 + max(depth.values())
    reach = dict(depth)  # last column of the line of each value
    for value, read in sources.items():
        for source in read:
            reach[source] = max(reach[source], depth[value])
    columns: list[list[Item]] = [[] for _ in range(depth[OUTPUT] + 1)]
    for value in sorted(depth):
        columns[depth[value]].append(Item(value))
        for column in range(depth[value] + 1, reach[value]):
            columns[column].append(Item(value, is_here=False))
    return columns


def _sort_by_neighbors(columns: list[list[Item]], lines: list[list[tuple[Item, Item]]], index: int, other: int) -> None:
    rows = {item: row - (len(columns[other]) - 1) / 2 for row, item in enumerate(columns[other])}
    ends = [(right, left) if other < index else (left, right) for left, right in lines[min(index, other)]]
    means = {}
    for row, item in enumerate(columns[index]):
        near = [rows[far] for end, far in ends if end == item]
        means[item] = sum(near) / len(near) if near else row - (len(columns[index]) - 1) / 2
    columns[index].sort(key=means.__getitem__)


def _swap_neighbors(columns: list[list[Item]], lines: list[list[tuple[Item, Item]]]) -> None:
    """Swap neighbors in a column as long as this removes crossings."""
    is_improved = True
    while is_improved:
        is_improved = False
        for index, column in enumerate(columns):
            nearby = columns[max(0, index - 1) : index + 2], lines[max(0, index - 1) : index + 1]
            best = num_crossings(*nearby)
            for row in range(len(column) - 1):
                column[row], column[row + 1] = column[row + 1], column[row]
                if (found := num_crossings(*nearby)) < best:
                    best, is_improved = found, True
                else:
                    column[row], column[row + 1] = column[row + 1], column[row]
