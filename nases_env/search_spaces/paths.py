"""Paths through the cells of an architecture, to compare what architectures compute."""

from __future__ import annotations

from collections import Counter

from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph

Path = tuple[str, ...]
"""The name of a cell, the name of its input, and the operators from this input to the output of the cell."""


def count_paths(search_space: SearchSpace, architecture: Architecture) -> Counter[Path]:
    """Count the paths from the inputs to the outputs of all cells; empty if the search space has no cell graphs.

    ``zero_operators`` of the search space remove a branch, and ``identity_operators`` are left out of a path. Therefore,
    architectures that differ only in branches without effect have equal paths.
    """
    paths: Counter[Path] = Counter()
    for graph in search_space.cell_graphs(architecture):
        paths.update(_count_paths(graph, search_space.zero_operators, search_space.identity_operators))
    return paths


def _count_paths(graph: CellGraph, zeros: frozenset[str], identities: frozenset[str]) -> Counter[Path]:
    ending: list[Counter[Path]] = [Counter({(graph.name, name): 1}) for name in graph.inputs]  # at each value
    for branches in graph.nodes:
        node: Counter[Path] = Counter()
        for operator, source in branches:
            if operator in identities:
                node.update(ending[source])
            elif operator not in zeros:
                for path, count in ending[source].items():
                    longer = (*path, operator)
                    node[longer] += count
        ending.append(node)
    total: Counter[Path] = Counter()
    for value in graph.outputs:
        total.update(ending[value])
    return total
