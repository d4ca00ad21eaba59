"""ENAS's micro search space: two cells of five nodes, each node two inputs and two operators (the paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

from torch import nn

from nases_env.errors import InputError, did_you_mean
from nases_env.networks import OPERATORS, Cell, EnasMicroNetwork, NetworkSettings
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph

NUM_NODES = 5  # B, in each cell
NUM_CELL_INPUTS = 2  # the outputs of the two cells before
CELLS = ("normal", "reduction")
NODE_DIMS = 4  # input, operator, input, operator


class EnasMicro(SearchSpace):
    """ENAS's micro search space, m = 40.

    The decisions of a cell, node by node, are (input, operator, input, operator). Inputs 0 and 1 are the outputs of the
    cell before the previous one and of the previous one, input ``i + 2`` is node ``i``; a node adds its two branches. The
    normal cell comes first, then the reduction cell. The cell's output concatenates every value that nothing in the cell
    reads, as in ENAS's code.

    A genotype is ``{"normal": [node, …], "reduction": [node, …]}`` with ``node = [[operator, input], [operator, input]]``.
    """

    name = "enas_micro"
    decisions_per_step = NODE_DIMS
    operators = OPERATORS

    @cached_property
    def decision_sizes(self) -> tuple[int, ...]:
        """``(i + 2, 5, i + 2, 5)`` for node ``i``, for both cells."""
        nodes = [(node + NUM_CELL_INPUTS, len(OPERATORS)) * 2 for node in range(NUM_NODES)]
        return tuple(size for node in nodes for size in node) * len(CELLS)

    def cells(self, architecture: Architecture) -> tuple[Cell, Cell]:
        """The normal and the reduction cell, their nodes in the order of the decisions."""
        normal, reduction = _cells(architecture.decisions)
        return normal, reduction

    def canonical(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Both cells with their nodes renumbered and their branches swapped into one fixed order."""
        return tuple(number for cell in _cells(decisions) for node in _canonical_cell(cell) for number in node)

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        return {
            name: [[[OPERATORS[op_a], a], [OPERATORS[op_b], b]] for a, op_a, b, op_b in cell]
            for name, cell in zip(CELLS, self.cells(architecture), strict=True)
        }

    def from_genotype(self, genotype: Any) -> Architecture:
        if not isinstance(genotype, dict) or set(genotype) != set(CELLS):
            raise InputError(f"a genotype of {self.name} is a dict with the cells {' and '.join(CELLS)}, not {genotype!r}")
        return self.architecture([number for name in CELLS for number in _read_cell(name, genotype[name])])

    def graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        return tuple(_graph(name, cell) for name, cell in zip(CELLS, self.cells(architecture), strict=True))

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        normal, reduction = _cells(self.canonical(architecture.decisions))
        return EnasMicroNetwork(normal, reduction, settings, num_classes=num_classes, image_shape=image_shape)


def _cells(decisions: tuple[int, ...]) -> tuple[Cell, Cell]:
    nodes = [
        (decisions[at], decisions[at + 1], decisions[at + 2], decisions[at + 3])
        for at in range(0, len(decisions), NODE_DIMS)
    ]
    return tuple(nodes[:NUM_NODES]), tuple(nodes[NUM_NODES:])


def _graph(name: str, cell: Cell) -> CellGraph:
    nodes = tuple((Branch(OPERATORS[op_a], a), Branch(OPERATORS[op_b], b)) for a, op_a, b, op_b in cell)
    read = {branch.source for node in nodes for branch in node}
    loose_ends = tuple(value for value in range(NUM_CELL_INPUTS + NUM_NODES) if value not in read)
    return CellGraph(f"{name} cell", ("cell k-2", "cell k-1"), nodes, loose_ends)


@lru_cache(maxsize=4096)
def _canonical_cell(cell: Cell) -> Cell:
    """The lexicographically least way to write ``cell``, over all orders of its nodes and of their branches."""
    ways: list[tuple[Cell, dict[int, int]]] = [((), {value: value for value in range(NUM_CELL_INPUTS)})]
    for _ in cell:
        # All ways so far have written the same nodes; the least next node decides which of them go on.
        longer = [
            ((*written, _write_node(cell[node], labels)), {**labels, node + NUM_CELL_INPUTS: len(labels)})
            for written, labels in ways
            for node in range(len(cell))
            if node + NUM_CELL_INPUTS not in labels and _inputs(cell[node]) <= labels.keys()
        ]
        least = min(written for written, _ in longer)
        ways = [way for way in longer if way[0] == least]
    return ways[0][0]


def _inputs(node: tuple[int, int, int, int]) -> set[int]:
    return {node[0], node[2]}


def _write_node(node: tuple[int, int, int, int], labels: dict[int, int]) -> tuple[int, int, int, int]:
    a, b = sorted([(labels[node[0]], node[1]), (labels[node[2]], node[3])])
    return (*a, *b)


def _read_cell(name: str, nodes: Any) -> Iterable[int]:
    if not isinstance(nodes, (list, tuple)) or len(nodes) != NUM_NODES:
        raise InputError(f"the {name} cell of a genotype is a list of {NUM_NODES} nodes, not {nodes!r}")
    for index, node in enumerate(nodes):
        if not isinstance(node, (list, tuple)) or len(node) != 2:
            raise InputError(f"node {index} of the {name} cell must be [[operator, input], [operator, input]], not {node!r}")
        for branch in node:
            if not isinstance(branch, (list, tuple)) or len(branch) != 2:
                raise InputError(f"a branch of node {index} of the {name} cell must be [operator, input], not {branch!r}")
            operator, source = branch
            if operator not in OPERATORS:
                hint = did_you_mean(str(operator), OPERATORS)
                raise InputError(f"unknown operator {operator!r} in the {name} cell{hint}; known: {', '.join(OPERATORS)}")
            if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < index + NUM_CELL_INPUTS:
                raise InputError(
                    f"node {index} of the {name} cell reads input {source!r}; it may read 0..{index + NUM_CELL_INPUTS - 1}"
                )
            yield source
            yield OPERATORS.index(operator)
