"""Pareto fronts, their hypervolume and knee, against definitions by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nases_env.pareto import hypervolume, knee, pareto_front


def random_points(seed: int) -> np.ndarray:
    """Return points on a coarse grid, so that many are equal in one or both objectives."""
    return np.random.default_rng(seed).integers(0, 8, size=(25, 2)).astype(float)


@pytest.mark.parametrize("seed", range(20))
def test_front_is_what_no_other_point_dominates(seed: int) -> None:
    points = random_points(seed)
    expected = {
        tuple(point) for point in points if not any((other >= point).all() and (other > point).any() for other in points)
    }
    front = pareto_front(points)
    assert {tuple(points[index]) for index in front} == expected
    assert len(front) == len(expected)
    assert (np.diff(points[front, 0]) < 0).all()


def test_first_of_equal_points_is_on_the_front() -> None:
    assert pareto_front(np.array([[1.0, 1.0], [2.0, 0.0], [2.0, 0.0]])).tolist() == [1, 0]
    assert pareto_front(np.empty((0, 2))).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_hypervolume_is_the_number_of_dominated_unit_squares(seed: int) -> None:
    points, reference = random_points(seed), np.array([1.0, 2.0])
    corners = [(x, y) for x in range(1, 8) for y in range(2, 8)]
    dominated = sum(any((point >= (x + 1, y + 1)).all() for point in points) for x, y in corners)
    assert hypervolume(points, reference) == pytest.approx(dominated)


def test_hypervolume_without_points_is_0() -> None:
    assert hypervolume(np.empty((0, 2)), np.zeros(2)) == 0.0


def test_knee_is_the_point_farthest_above_the_line_between_the_ends() -> None:
    front = np.array([[1.0, -300.0], [0.9, -110.0], [0.5, -105.0], [0.0, -100.0]])
    assert knee(front) == 1
    assert knee(front[[0, 3]]) is None
    assert knee(np.array([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]])) is None  # below the line
