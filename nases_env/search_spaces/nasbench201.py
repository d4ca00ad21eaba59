"""The search space of NAS-Bench-201: one cell of six edges, each with one of five operators (Dong and Yang, 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from nases_env.errors import InputError
from nases_env.networks import NasBench201Network, NetworkSettings
from nases_env.networks.genotype import format_nasbench201, parse_nasbench201, read_nasbench201
from nases_env.networks.nasbench201 import EDGES, NUM_NODES, OPERATORS
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph


@dataclass(frozen=True)
class NasBench201(SearchSpace):
    """The search space of NAS-Bench-201, m = 6: the operators of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

    Node 0 is the input of the cell; nodes 1, 2 and 3 add their edges, and node 3 is the output. Choice ``c`` is the operator
    ``operators[c]``. A cell has the same key and the same genotype for every order of the operators.

    Each of the 5^6 = 15,625 rows of the table has its own key. Cells that differ only in the names of their nodes, or in
    unused edges, were trained separately with different results, so they have different keys.

    A genotype is ``{"cell": string}`` in the notation of NAS-Bench-201: an operator and its source for each edge, as in
    ``|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|``.

    Attributes:
        operators: the five operators in the order of their choices. In the natural order the middle choices are the
            convolutions, which favors agents that prefer middle choices; permute the operators to compare agents.

    Raises:
        InputError: if ``operators`` is not a permutation of the five operators.
    """

    name = "nasbench201"
    decisions_per_timestep = 3
    zero_operators = frozenset({"none"})
    identity_operators = frozenset({"skip_connect"})

    operators: tuple[str, ...] = OPERATORS  # type: ignore[misc]  # the base class has one order for all instances

    def __post_init__(self) -> None:
        if not isinstance(self.operators, tuple) or sorted(map(str, self.operators)) != sorted(OPERATORS):
            raise InputError(
                f"the operators of {self.name} are a tuple of {', '.join(OPERATORS)} in any order, not {self.operators!r}"
            )

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        """``(5, 5, 5, 5, 5, 5)``."""
        return (len(OPERATORS),) * len(EDGES)

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the decisions of the same cell with the natural order of the operators."""
        return tuple(OPERATORS.index(self.operators[choice]) for choice in decisions)

    def cell(self, architecture: Architecture) -> tuple[str, ...]:
        """Return the operator of each of the six edges."""
        return tuple(self.operators[choice] for choice in architecture.decisions)

    def to_string(self, architecture: Architecture) -> str:
        """Format ``architecture`` in the notation of NAS-Bench-201."""
        return format_nasbench201(self.cell(architecture))

    def from_string(self, text: str) -> Architecture:
        """Parse an architecture in the notation of NAS-Bench-201.

        Raises:
            InputError: if ``text`` is not in this notation.
        """
        return self._from_cell(parse_nasbench201(text))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        return {"cell": self.to_string(architecture)}

    def from_genotype(self, genotype: Any) -> Architecture:
        return self._from_cell(read_nasbench201(genotype))

    def _from_cell(self, cell: tuple[str, ...]) -> Architecture:
        return self.architecture([self.operators.index(name) for name in cell])

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        """Return the cell; every node has a branch for each of its edges, including those with ``none``."""
        nodes: list[list[Branch]] = [[] for _ in range(NUM_NODES)]
        for (node, source), name in zip(EDGES, self.cell(architecture), strict=True):
            nodes[node - 1].append(Branch(name, source))
        return (CellGraph("cell", ("input",), tuple(map(tuple, nodes)), outputs=(NUM_NODES,)),)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        return NasBench201Network(self.cell(architecture), settings, num_classes=num_classes, image_shape=image_shape)
