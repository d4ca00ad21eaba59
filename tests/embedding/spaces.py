"""Small search spaces that train in no time."""

from __future__ import annotations

from typing import Any

from torch import nn

from nases_env.networks import NetworkSettings
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph


class ListSpace(SearchSpace):
    """Any list of decision sizes; every list of decisions is an architecture of its own."""

    name = "list"

    def __init__(self, sizes: tuple[int, ...], decisions_per_step: int = 1) -> None:
        self._decision_sizes = sizes
        self.decisions_per_step = decisions_per_step  # type: ignore[misc]

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        return self._decision_sizes

    def canonical(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        return decisions

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        return {"decisions": list(architecture.decisions)}

    def from_genotype(self, genotype: Any) -> Architecture:
        return self.architecture(genotype["decisions"])

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        return nn.Flatten()

    def graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        return ()
