"""Base class of the search spaces of one cell of six edges, as in NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import nn

from nases_env.errors import InputError
from nases_env.networks import NasBench201Network, NetworkSettings
from nases_env.networks.genotype import format_six_edges, parse_six_edges, read_six_edges
from nases_env.networks.nasbench201 import EDGES, NUM_NODES, count_nasbench201_parameters
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph
from nases_env.seeding import numpy_generator


@dataclass(frozen=True)
class SixEdgeCell(SearchSpace):
    """A search space of one cell, m = 6: the operators of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

    Node 0 is the input of the cell; nodes 1, 2 and 3 add their edges, and node 3 is the output. Choice ``c`` is the operator
    ``operators[c]``. A cell has the same key and the same genotype for every order of the operators, and no other cell has
    this key.

    A genotype is ``{"cell": string}`` in the notation of NAS-Bench-201: an operator and its source for each edge.

    Attributes:
        operators: the operators in the order of their choices.

    Raises:
        InputError: if ``operators`` is not a permutation of ``natural_operators``.
    """

    decisions_per_timestep = 3
    zero_operators = frozenset({"none"})
    identity_operators = frozenset({"skip_connect"})
    operator_sizes: ClassVar[Mapping[str, float]] = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}

    natural_operators: ClassVar[tuple[str, ...]]
    """The operators in the order in which keys number them."""

    operators: tuple[str, ...]  # type: ignore[misc]  # the base class has one order for all instances

    def __post_init__(self) -> None:
        natural = self.natural_operators
        if not isinstance(self.operators, tuple) or sorted(map(str, self.operators)) != sorted(natural):
            raise InputError(
                f"the operators of {self.name} are a tuple of {', '.join(natural)} in any order, not {self.operators!r}"
            )

    @classmethod
    def order_operators(cls, seed: int | None) -> tuple[str, ...]:
        """Return the operators in a random order; None: in their natural order."""
        if seed is None:
            return cls.natural_operators
        return tuple(numpy_generator(seed, "operator order").permutation(cls.natural_operators).tolist())

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        """The number of operators, for each edge."""
        return (len(self.natural_operators),) * len(EDGES)

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the decisions of the same cell with the natural order of the operators."""
        return tuple(map(self._natural_choices.__getitem__, decisions))

    @cached_property
    def _natural_choices(self) -> tuple[int, ...]:
        """The choice of each operator in their natural order."""
        return tuple(map(self.natural_operators.index, self.operators))

    def cell(self, architecture: Architecture) -> tuple[str, ...]:
        """Return the operator of each of the six edges."""
        return tuple(self.operators[choice] for choice in architecture.decisions)

    def from_cell(self, cell: tuple[str, ...]) -> Architecture:
        """Return the architecture with these operators of the six edges."""
        return self.architecture([self.operators.index(name) for name in cell])

    def to_string(self, architecture: Architecture) -> str:
        """Format ``architecture`` in the notation of NAS-Bench-201."""
        return format_six_edges(self.cell(architecture))

    def from_string(self, text: str) -> Architecture:
        """Parse an architecture in the notation of NAS-Bench-201.

        Raises:
            InputError: if ``text`` is not in this notation.
        """
        return self.from_cell(parse_six_edges(text, self.name, self.natural_operators))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        return {"cell": self.to_string(architecture)}

    def from_genotype(self, genotype: Any) -> Architecture:
        return self.from_cell(read_six_edges(genotype, self.name, self.natural_operators))

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        """Return the cell; every node has a branch for each of its edges, including those with ``none``."""
        nodes: list[list[Branch]] = [[] for _ in range(NUM_NODES)]
        for (node, source), name in zip(EDGES, self.cell(architecture), strict=True):
            nodes[node - 1].append(Branch(name, source))
        return (CellGraph("cell", ("input",), tuple(map(tuple, nodes)), outputs=(NUM_NODES,)),)

    def count_parameters(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> int:
        """Return the number of parameters of the network; see ``SearchSpace.count_parameters``."""
        cell = self.cell(architecture)
        return count_nasbench201_parameters(cell, settings, num_classes=num_classes, image_shape=image_shape)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        """Build the network of NAS-Bench-201 with this cell; see ``SearchSpace.build``."""
        return NasBench201Network(self.cell(architecture), settings, num_classes=num_classes, image_shape=image_shape)
