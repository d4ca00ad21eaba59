"""Pareto fronts of two objectives, which are maximized: the front, its hypervolume, and its knee."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]


def pareto_front(points: Points) -> NDArray[np.int64]:
    """Return the indices of the Pareto-optimal points: no other point is at least as good in both objectives.

    Of equal points, the first one is returned.

    Args:
        points: shape (N, 2).

    Returns:
        Indices in the order of the first objective, best first.
    """
    order = np.lexsort((np.arange(len(points)), -points[:, 1], -points[:, 0]))
    second = points[order, 1]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(second)[:-1]))[: len(second)]
    front: NDArray[np.int64] = order[second > best_before]
    return front


def hypervolume(points: Points, reference: Points) -> float:
    """Return the exact hypervolume: the area that ``points`` dominate, bounded by ``reference``.

    Args:
        points: shape (N, 2); those that are not better than ``reference`` in both objectives add nothing.
        reference: shape (2,).
    """
    gains = np.asarray(points, dtype=np.float64).reshape(-1, 2) - reference
    gains = gains[(gains > 0).all(axis=1)]
    front = gains[pareto_front(gains)]
    return float((front[:, 0] * np.diff(front[:, 1], prepend=0.0)).sum())


def knee(front: Points) -> int | None:
    """Return the index of the knee: the point farthest above the line between both ends of the front, scaled to [0, 1].

    Args:
        front: Pareto-optimal points in the order of the first objective, shape (N, 2).

    Returns:
        None if there are fewer than three points, or none is above the line.
    """
    if len(front) < 3:
        return None
    ends = front[[0, -1]]
    scaled = (front - ends.min(axis=0)) / (ends.max(axis=0) - ends.min(axis=0))
    above = scaled.sum(axis=1)  # 1 on the line
    index = int(above.argmax())
    return index if above[index] > 1 + 1e-9 else None
