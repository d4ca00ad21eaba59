"""ENAS's micro search space: two cells of five nodes, each node two inputs and two operators (the paper, section 3.2)."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

from torch import nn

from nases_env.networks import OPERATORS, Cell, EnasMicroNetwork, NetworkSettings
from nases_env.networks.enas_micro import loose_ends
from nases_env.networks.enas_micro_sized import count_enas_micro_parameters
from nases_env.networks.genotype import CELLS, NUM_CELL_INPUTS, NUM_NODES, canonical_cell, read_enas_micro
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph

NODE_DIMS = 4  # input, operator, input, operator


class EnasMicro(SearchSpace):
    """The micro search space of ENAS, m = 40.

    The decisions of each node are (input, operator, input, operator). Inputs 0 and 1 are the outputs of the cell before the
    previous one and of the previous cell, input ``i + 2`` is node ``i``; a node adds its two branches. The normal cell
    precedes the reduction cell. The output of a cell concatenates all values that no node reads, as in the code of ENAS.

    A genotype is ``{"normal": [node, …], "reduction": [node, …]}`` with ``node = [[operator, input], [operator, input]]``.
    """

    name = "enas_micro"
    decisions_per_timestep = NODE_DIMS
    operators = OPERATORS
    identity_operators = frozenset({"identity"})

    @cached_property
    def decision_sizes(self) -> tuple[int, ...]:
        """``(i + 2, 5, i + 2, 5)`` for node ``i`` of each cell."""
        nodes = [(node + NUM_CELL_INPUTS, len(OPERATORS)) * 2 for node in range(NUM_NODES)]
        return tuple(size for node in nodes for size in node) * len(CELLS)

    def cells(self, architecture: Architecture) -> tuple[Cell, Cell]:
        """Return the normal and the reduction cell with the nodes in the order of the decisions."""
        return split_cells(architecture.decisions)

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the decisions with the nodes and branches of both cells in canonical order."""
        normal, reduction = map(canonical_cell, split_cells(decisions))
        return tuple(itertools.chain.from_iterable(normal + reduction))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        return {
            name: [[[OPERATORS[op_a], a], [OPERATORS[op_b], b]] for a, op_a, b, op_b in cell]
            for name, cell in zip(CELLS, self.cells(architecture), strict=True)
        }

    def from_genotype(self, genotype: Any) -> Architecture:
        return self.architecture([number for cell in read_enas_micro(genotype) for node in cell for number in node])

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        return tuple(_graph(name, cell) for name, cell in zip(CELLS, self.cells(architecture), strict=True))

    def count_parameters(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> int:
        """Return the number of parameters of the network; see ``SearchSpace.count_parameters``."""
        normal, reduction = self.cells(architecture)
        return count_enas_micro_parameters(normal, reduction, settings, num_classes=num_classes, image_shape=image_shape)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        normal, reduction = split_cells(self.canonicalize(architecture.decisions))
        return EnasMicroNetwork(normal, reduction, settings, num_classes=num_classes, image_shape=image_shape)


def split_cells(decisions: tuple[int, ...]) -> tuple[Cell, Cell]:
    """Return the normal and the reduction cell of the decisions on the cells."""
    nodes = tuple(zip(decisions[0::4], decisions[1::4], decisions[2::4], decisions[3::4], strict=True))
    return nodes[:NUM_NODES], nodes[NUM_NODES:]


def _graph(name: str, cell: Cell) -> CellGraph:
    nodes = tuple((Branch(OPERATORS[op_a], a), Branch(OPERATORS[op_b], b)) for a, op_a, b, op_b in cell)
    return CellGraph(f"{name} cell", ("cell k-2", "cell k-1"), nodes, loose_ends(cell))
