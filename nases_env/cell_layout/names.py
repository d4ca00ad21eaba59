"""Names of operators in drawings, and nodes as text."""

from __future__ import annotations

from nases_env.search_spaces.graph import CellGraph

ZERO = "zero"
"""Label of a node without branches."""

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


def operator_name(operator: str) -> str:
    """Format the name of an operator for display: "sep_conv_3x3" becomes "sep conv 3×3"."""
    words = operator.split("_")
    return " ".join(word.replace("x", "×") if word[:1].isdigit() else word for word in words)


def short_name(operator: str) -> str:
    """Return the name of an operator in its box, which is its full name if there is no short one."""
    return SHORT_NAMES.get(operator) or operator_name(operator)


def node_lines(graph: CellGraph) -> list[str]:
    """Return one line per node of a cell, such as "node 1 = sep conv 3×3(input 1) + identity(input 2)", and its output."""
    names = [*graph.inputs, *(f"node {index}" for index in range(1, len(graph.nodes) + 1))]
    lines = []
    for name, branches in zip(names[len(graph.inputs) :], graph.nodes, strict=True):
        terms = [f"{operator_name(branch.operator)}({names[branch.source]})" for branch in branches]
        lines.append(f"{name} = {' + '.join(terms) or ZERO}")
    return [*lines, f"output = {', '.join(names[value] for value in graph.outputs)}"]
