"""Paths are equal if branches have no effect, and do not depend on the order of nodes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nases_env.search_spaces import Architecture, EnasMicro, SearchSpace, count_paths
from nases_env.search_spaces.graph import Branch, CellGraph
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator

ENAS, NASBENCH = EnasMicro(), NasBench201()


def paths_of(cell: str) -> Counter[tuple[str, ...]]:
    return count_paths(NASBENCH, NASBENCH.from_string(cell))


def test_paths_are_counted_from_the_input_to_the_output() -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    assert paths_of(cell) == {
        ("cell", "input"): 1,
        ("cell", "input", "nor_conv_3x3", "nor_conv_1x1"): 1,
        ("cell", "input", "nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1"): 1,
    }


def test_cells_that_differ_in_branches_without_effect_have_equal_paths() -> None:
    unused_node = "|{}~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
    assert paths_of(unused_node.format("avg_pool_3x3")) == paths_of(unused_node.format("none"))
    first = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
    second = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"
    assert paths_of(first) == paths_of(second) == {("cell", "input", "nor_conv_3x3", "nor_conv_1x1"): 1}


def test_cell_without_a_connection_has_no_paths() -> None:
    assert not paths_of("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_paths_do_not_depend_on_the_order_of_nodes(seed: int) -> None:
    architecture = ENAS.sample(numpy_generator(seed, "test"))
    canonical = ENAS.architecture(ENAS.canonicalize(architecture.decisions))
    paths = count_paths(ENAS, architecture)
    assert paths == count_paths(ENAS, canonical)
    assert {path[:2] for path in paths} <= {
        (f"{cell} cell", f"cell {source}") for cell in ("normal", "reduction") for source in ("k-2", "k-1")
    }
    assert all("identity" not in path for path in paths)


def test_search_space_without_cells_has_no_paths() -> None:
    class Widths(SearchSpace):
        name = "widths"
        decision_sizes = (4, 4)

    space = Widths()
    assert not count_paths(space, space.architecture([1, 2]))


class Dense(SearchSpace):
    """Each node reads the input and all nodes before it, so the number of paths doubles with each node."""

    name = "dense"
    decision_sizes = (3,) * 12

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        nodes = [
            tuple(Branch(f"op{choice}", source) for source in range(index + 1))
            for index, choice in enumerate(architecture.decisions)
        ]
        return (CellGraph("cell", ("input",), tuple(nodes), (len(nodes),)),)


@pytest.mark.parametrize("maximum", [1, 50, 300])
def test_only_the_shortest_paths_of_a_cell_with_many_paths_are_counted(
    maximum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Dense()
    architecture = space.sample(numpy_generator(0, "test"))
    monkeypatch.setattr("nases_env.search_spaces.cell_paths.MAX_PATHS", 10_000)
    everything = count_paths(space, architecture)
    monkeypatch.setattr("nases_env.search_spaces.cell_paths.MAX_PATHS", maximum)
    shortest = sorted(everything, key=lambda path: (len(path), path))[:maximum]
    assert sum(everything.values()) == 2**11
    assert count_paths(space, architecture) == {path: everything[path] for path in shortest}
