"""Positions of the items of a cell."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nases_env.cell_layout.columns import Item, arrange, lines_between, reads
from nases_env.search_spaces.graph import CellGraph

NUM_SWEEPS = 8  # the positions converge within a few


class Layout:
    """The columns of a cell from left to right, and the position of each item in its column.

    Args:
        graph: the cell.
        box_height: height of an operator, an input and the output.
        max_height: the items of a column are not farther apart than this allows.
        max_gap: largest distance between two items of a column.

    Attributes:
        columns: the items of each column from top to bottom.
        ys: the vertical position of the center of each item, in the order of ``columns``.
    """

    def __init__(self, graph: CellGraph, *, box_height: float, max_height: float, max_gap: float) -> None:
        self.columns = arrange(graph)
        self._num_operators = {value: len(sources) for value, sources in reads(graph).items() if value >= 0}
        self._lines = lines_between(self.columns, graph)
        self._box_height, self._max_height, self._max_gap = box_height, max_height, max_gap
        self.ys = self._positions()

    def height(self, item: Item) -> float:
        """Return the height of ``item``, which is 0 for a line."""
        return self._box_height * max(1, self._num_operators.get(item.value, 1)) if item.is_here else 0.0

    def _positions(self) -> list[NDArray[np.float64]]:
        """Return the vertical positions: each item is as close to the mean of its neighbors as its column permits."""
        from scipy.optimize import isotonic_regression  # slow to import

        heights = [np.array([self.height(item) for item in column]) for column in self.columns]
        offsets, limits = [], []
        for sizes in heights:
            gap = min(self._max_gap, (self._max_height - sizes.sum()) / max(1, len(sizes) - 1))
            distances = [(above + below) / 2 + gap for above, below in pairwise(sizes)]
            offsets.append(np.concatenate([[0.0], np.cumsum(distances)]))
            limits.append((sizes[0] / 2 - self._max_height / 2, self._max_height / 2 - sizes[-1] / 2 - offsets[-1][-1]))
        ys = [offset - offset[-1] / 2 for offset in offsets]  # downward until the end
        for _ in range(NUM_SWEEPS):
            for index, column in enumerate(self.columns):
                wanted = np.array([self._mean_of_neighbors(index, item, ys) for item in column])
                ordered = isotonic_regression(wanted - offsets[index]).x
                ys[index] = np.clip(ordered, *limits[index]) + offsets[index]
        return [-each for each in ys]

    def _mean_of_neighbors(self, index: int, item: Item, ys: list[NDArray[np.float64]]) -> float:
        sources = [left for left, right in (self._lines[index - 1] if index else ()) if right == item]
        targets = [right for lines in self._lines[index : index + 1] for left, right in lines if left == item]
        near = [self._position(index - 1, source, ys) for source in sources]
        near += [self._position(index + 1, target, ys) for target in targets]
        return float(np.mean(near)) if near else self._position(index, item, ys)

    def _position(self, index: int, item: Item, ys: list[NDArray[np.float64]]) -> float:
        return float(ys[index][self.columns[index].index(item)])
