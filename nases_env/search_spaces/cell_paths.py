"""Paths through the cells of an architecture, to compare what architectures compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph

Path = tuple[str, ...]
"""The name of a cell, the name of its input, and the operators from this input to the output of the cell."""

MAX_PATHS = 1000  # of a cell; those of the built-in search spaces have fewer than 100


def count_paths(search_space: SearchSpace, architecture: Architecture) -> Counter[Path]:
    """Count the paths from the inputs to the outputs of all cells; empty if the search space has no cell graphs.

    ``zero_operators`` of the search space remove a branch, and ``identity_operators`` are left out of a path. Therefore,
    architectures that differ only in branches without effect have equal paths. Of a cell with more than ``MAX_PATHS``
    different paths, the shortest ones are counted, in alphabetical order if they are equally long.
    """
    paths: Counter[Path] = Counter()
    for graph in search_space.cell_graphs(architecture):
        paths.update(_count_paths(graph, search_space.zero_operators, search_space.identity_operators))
    return paths


def _count_paths(graph: CellGraph, zeros: Set[str], identities: Set[str]) -> dict[Path, int]:
    ending: list[dict[Path, int]] = [{(graph.name, name): 1} for name in graph.inputs]  # at each value
    for branches in graph.nodes:
        node: dict[Path, int] = {}  # faster than a Counter
        for operator, source in branches:
            if operator in zeros:
                continue
            operators = () if operator in identities else (operator,)
            for path, count in ending[source].items():
                longer = path + operators
                node[longer] = node.get(longer, 0) + count
        ending.append(_shortest(node))
    total: dict[Path, int] = {}
    for value in graph.outputs:
        for path, count in ending[value].items():
            total[path] = total.get(path, 0) + count
    return _shortest(total)


def _shortest(paths: dict[Path, int]) -> dict[Path, int]:
    """Return the first ``MAX_PATHS`` paths by length and name.

    The first paths to a node continue the first paths to the nodes that it reads, so the others are not needed.
    """
    if len(paths) <= MAX_PATHS:
        return paths
    return {path: paths[path] for path in sorted(paths, key=lambda path: (len(path), path))[:MAX_PATHS]}
