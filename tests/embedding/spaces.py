"""Small search spaces for fast tests, and the decisions of many vectors."""

from __future__ import annotations

import numpy as np

from nases_env.search_spaces import SearchSpace


class ListSpace(SearchSpace):
    """A search space with given decision sizes; distinct decisions are distinct architectures."""

    name = "list"

    def __init__(self, sizes: tuple[int, ...], decisions_per_timestep: int | None = None) -> None:
        self._decision_sizes = sizes
        self._decisions_per_timestep = decisions_per_timestep

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        return self._decision_sizes

    @property
    def decisions_per_timestep(self) -> int:
        return self._decisions_per_timestep or super().decisions_per_timestep


class DefaultSpace(ListSpace):
    """A search space that can be created without arguments."""

    def __init__(self, sizes: tuple[int, ...] = (2, 3)) -> None:
        super().__init__(sizes)


def decisions(space: SearchSpace, vectors: np.ndarray) -> np.ndarray:
    return np.array([space.decode(vector).decisions for vector in vectors])
