"""The layout of a cell, from left to right, and the names of operators and nodes, for all drawings of cells."""

from nases_env.cell_layout.columns import (
    OUTPUT,
    Item,
    arrange,
    drawn_graphs,
    lines_between,
    num_crossings,
    reads,
)
from nases_env.cell_layout.names import ZERO, node_lines, operator_name, short_name
from nases_env.cell_layout.positions import Layout

__all__ = [
    "OUTPUT",
    "ZERO",
    "Item",
    "Layout",
    "arrange",
    "drawn_graphs",
    "lines_between",
    "node_lines",
    "num_crossings",
    "operator_name",
    "reads",
    "short_name",
]
