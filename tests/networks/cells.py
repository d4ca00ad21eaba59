"""Cells for the tests of the networks."""

from __future__ import annotations

import numpy as np

from nases_env.networks import OPERATORS, Cell


def random_cell(rng: np.random.Generator, num_nodes: int = 5) -> Cell:
    """Sample every decision of a cell uniformly."""
    return tuple(
        (
            int(rng.integers(index + 2)),
            int(rng.integers(len(OPERATORS))),
            int(rng.integers(index + 2)),
            int(rng.integers(len(OPERATORS))),
        )
        for index in range(num_nodes)
    )


def from_enas(text: str) -> Cell:
    """Parse a cell in the notation of ENAS: operators 0 to 4 are sep 3x3, sep 5x5, average pool, max pool, identity."""
    numbers = [int(number) for number in text.split()]
    return tuple(
        (a, (operator_a + 1) % 5, b, (operator_b + 1) % 5)
        for a, operator_a, b, operator_b in zip(*[iter(numbers)] * 4, strict=True)
    )


ENAS_NORMAL = from_enas("0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1")
ENAS_REDUCTION = from_enas("1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1")
"""The cells of ``scripts/cifar10_micro_final.sh`` in the ENAS repository."""
