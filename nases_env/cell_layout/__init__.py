"""The layout of a cell, from left to right, and the names of operators, for all drawings of cells."""

from nases_env.cell_layout.columns import (
    OUTPUT,
    Item,
    arrange,
    drawn_graphs,
    lines_between,
    num_crossings,
    operator_name,
    reads,
)
from nases_env.cell_layout.positions import Layout

__all__ = [
    "OUTPUT",
    "SHORT_NAMES",
    "Item",
    "Layout",
    "arrange",
    "drawn_graphs",
    "lines_between",
    "num_crossings",
    "operator_name",
    "reads",
    "short_name",
]

SHORT_NAMES = {
    "identity": "identity",
    "skip_connect": "skip",
    "sep_conv_3x3": "sep 3×3",
    "sep_conv_5x5": "sep 5×5",
    "nor_conv_1x1": "conv 1×1",
    "nor_conv_3x3": "conv 3×3",
    "avg_pool_3x3": "avg 3×3",
    "max_pool_3x3": "max 3×3",
}
"""Names of operators in their boxes."""


def short_name(operator: str) -> str:
    """Return the name of an operator in its box, which is its full name if there is no short one."""
    return SHORT_NAMES.get(operator) or operator_name(operator)
