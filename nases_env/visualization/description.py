"""Text descriptions of cells and decisions."""

from __future__ import annotations

from nases_env.cell_layout import drawn_graphs, node_lines
from nases_env.search_spaces import Architecture, SearchSpace


def describe(search_space: SearchSpace, architecture: Architecture) -> str:
    """Describe the cells of an architecture, one line per node, or its decisions if the search space has no cell graphs.

    The summary of the architecture is the first line, if the search space has one.
    """
    lines = []
    for graph in drawn_graphs(search_space, architecture):
        lines += [graph.name, *(f"  {line}" for line in node_lines(graph))]
    if not lines:
        prefix = "" if search_space.decision_names else "decision "
        lines = [prefix + text for text in describe_decisions(search_space, architecture)]
    summary = search_space.summary(architecture)
    return "\n".join([summary, *lines] if summary else lines)


def describe_decisions(search_space: SearchSpace, architecture: Architecture) -> list[str]:
    """Describe each decision of an architecture by its name and its choice."""
    return [_describe_decision(search_space, index, choice) for index, choice in enumerate(architecture.decisions)]


def longest_description(search_space: SearchSpace) -> int:
    """Return the number of characters in the longest description of a decision, over all architectures."""
    return max(
        len(_describe_decision(search_space, index, choice))
        for index, size in enumerate(search_space.decision_sizes)
        for choice in range(size)
    )


def _describe_decision(search_space: SearchSpace, index: int, choice: int) -> str:
    names, choices = search_space.decision_names, search_space.choice_names
    described = choices[index][choice] if choices else f"{choice} of 0..{search_space.decision_sizes[index] - 1}"
    return f"{names[index] if names else index}: {described}"
