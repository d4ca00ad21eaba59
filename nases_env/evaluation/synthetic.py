"""Synthetic rewards without training: the share of one operator, and a random landscape with interactions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.search_spaces.graph import CellGraph
from nases_env.seeding import numpy_generator

LOGISTIC_SCALE = 2.0  # scores (standard deviation about 1) are divided by this before the logistic function


@dataclass(frozen=True)
class OperatorShareEvaluator(Evaluator):
    """Rewards the share of a network's branches that apply one operator; a sanity check with a known optimum.

    The optimum is 1: every branch applies ``operator``. The mean over uniform architectures is 1 / (number of operators).
    The reward depends only on the network, not on the seed or on how the architecture is encoded.

    Attributes:
        search_space: the search space, or its name.
        operator: the name of the operator.

    Raises:
        InputError: if the search space has no such operator.
    """

    search_space: str | SearchSpace
    operator: str

    is_expensive = False
    is_noisy = False

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if self.operator not in space.operators:
            hint = did_you_mean(str(self.operator), space.operators)
            raise InputError(
                f"unknown operator {self.operator!r}{hint}; {space.name} has {', '.join(space.operators) or 'none'}"
            )

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = _cell_graphs(self.search_space, architecture)
        operators = [branch.operator for graph in graphs for node in graph.nodes for branch in node]
        share = operators.count(self.operator) / len(operators)
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=share, train_accuracy=share)


@dataclass(frozen=True)
class RandomLandscapeEvaluator(Evaluator):
    """Rewards operators by their position and their predecessors, with random weights drawn from ``landscape_seed``.

    The score is a sum over the branches of all cells. Each branch contributes a standard-normal weight for (cell, depth of
    the node, operator) and one for (cell, operator, predecessor), where the predecessor is an input of the cell or each
    operator of the node that the branch reads. The sum is scaled to a standard deviation of about 1 over uniform
    architectures. The reward is logistic(score / 2). It depends only on the graph, not on the child's seed or on how the
    architecture is encoded.

    Attributes:
        search_space: the search space, or its name; its architectures must have cell graphs.
        landscape_seed: seed of the weights.
    """

    search_space: str | SearchSpace
    landscape_seed: int = 0

    is_expensive = False
    is_noisy = False

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = _cell_graphs(self.search_space, architecture)
        num_branches = sum(len(node) for graph in graphs for node in graph.nodes)
        score = sum(self._score(graph) for graph in graphs) / math.sqrt(2 * num_branches)
        reward = 1 / (1 + math.exp(-score / LOGISTIC_SCALE))
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=reward, train_accuracy=reward)

    def _score(self, graph: CellGraph) -> float:
        depths = [0] * len(graph.inputs)
        score = 0.0
        for node in graph.nodes:
            depths.append(1 + max((depths[branch.source] for branch in node), default=0))
            for operator, source in node:
                score += interaction_weight(self.landscape_seed, graph.name, str(depths[-1]), operator)
                if source < len(graph.inputs):
                    score += interaction_weight(self.landscape_seed, graph.name, operator, "after", graph.inputs[source])
                    continue
                predecessors = graph.nodes[source - len(graph.inputs)]
                weights = [
                    interaction_weight(self.landscape_seed, graph.name, operator, "after", branch.operator)
                    for branch in predecessors
                ]
                score += sum(weights) / math.sqrt(max(1, len(predecessors)))
        return score


def _cell_graphs(search_space: str | SearchSpace, architecture: Architecture) -> tuple[CellGraph, ...]:
    """Return the cells of an architecture.

    Raises:
        InputError: if they have no branches.
    """
    graphs = get_search_space(search_space).cell_graphs(architecture)
    if not any(node for graph in graphs for node in graph.nodes):
        raise InputError(f"{architecture.key} has no cell graph with operators; use a different search space")
    return graphs


@lru_cache(maxsize=65536)
def interaction_weight(landscape_seed: int, *names: str) -> float:
    """Return the standard-normal weight that ``names`` identify."""
    return float(numpy_generator(landscape_seed, "interaction", *names).standard_normal())
