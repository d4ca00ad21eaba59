"""The order of the items of a cell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nases_env.cell_layout import OUTPUT, Item, arrange, drawn_graphs, lines_between, node_lines, num_crossings
from nases_env.search_spaces import Architecture, EnasMicro, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph
from nases_env.search_spaces.nasbench201 import NasBench201

MAX_ORDERS = 2000


@pytest.mark.parametrize("seed", range(12))
def test_no_other_order_has_fewer_crossings(seed: int) -> None:
    space = EnasMicro()
    for graph in drawn_graphs(space, space.sample(np.random.default_rng(seed))):
        columns = arrange(graph)
        lines = lines_between(columns, graph)
        found = num_crossings(columns, lines)
        if found and math.prod(math.factorial(len(column)) for column in columns) <= MAX_ORDERS:
            for orders in itertools.product(*(itertools.permutations(column) for column in columns)):
                assert found <= num_crossings([list(order) for order in orders], lines)


def test_inputs_are_in_their_order_and_the_output_is_last() -> None:
    space = EnasMicro()
    for seed in range(20):
        for graph in drawn_graphs(space, space.sample(np.random.default_rng(seed))):
            first, *_, last = arrange(graph)
            assert first == (Item(0), Item(1))
            assert last == (Item(OUTPUT),)


def test_line_passes_through_the_columns_between() -> None:
    space = NasBench201()
    (graph,) = drawn_graphs(space, space.architecture([3, 0, 3, 1, 0, 3]))  # a chain, and the input is read by the last node
    assert [set(column) for column in arrange(graph)] == [
        {Item(0)},
        {Item(1), Item(0, is_here=False)},
        {Item(2), Item(0, is_here=False)},
        {Item(3)},
        {Item(OUTPUT)},
    ]


class Choices(SearchSpace):
    """Has one node per decision, whose operator reads the input."""

    name = "choices"
    operators = ("off", "none")
    zero_operators = frozenset({"off"})
    decision_sizes = (2, 2)

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        nodes = tuple((Branch(self.operators[choice], 0),) for choice in architecture.decisions)
        return (CellGraph("cell", ("input",), nodes, (1, 2)),)


def test_only_branches_with_zero_operators_of_the_search_space_are_not_drawn() -> None:
    space = Choices()
    (graph,) = drawn_graphs(space, space.architecture([0, 1]))
    assert graph.nodes == ((), (Branch("none", 0),))


def test_nodes_are_written_as_sums_of_their_branches() -> None:
    space = NasBench201()
    (graph,) = drawn_graphs(space, space.architecture([3, 0, 0, 1, 0, 2]))
    assert node_lines(graph) == [
        "node 1 = nor conv 3×3(input)",
        "node 2 = zero",
        "node 3 = skip connect(input) + nor conv 1×1(node 2)",
        "output = node 3",
    ]
