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

SPREAD = 2.0  # deviations of the score of uniform architectures that multiply the odds of the reward by e


@dataclass(frozen=True)
class OperatorShareEvaluator(Evaluator):
    """A reward with a known answer and no training: the share of a network's branches that apply one operator.

    The optimum is 1, where every branch applies ``operator``; uniform architectures have one over the number of operators
    in the mean. It depends on the network alone: neither the seed nor the way it is written down matters.

    Raises:
        InputError: if the search space has no such operator.
    """

    search_space: str | SearchSpace
    operator: str

    is_expensive = False

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if self.operator not in space.operators:
            hint = did_you_mean(self.operator, space.operators)
            raise InputError(
                f"unknown operator {self.operator!r}{hint}; {space.name} has {', '.join(space.operators) or 'none'}"
            )

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = get_search_space(self.search_space).cell_graphs(architecture)
        operators = [branch.operator for graph in graphs for node in graph.nodes for branch in node]
        share = operators.count(self.operator) / len(operators)
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=share, train_accuracy=share)


@dataclass(frozen=True)
class RandomLandscapeEvaluator(Evaluator):
    """Rewards operators by where they stand and by what they follow, with normal effects drawn from ``landscape_seed``.

    The score sums, over the branches of all cells, an effect of (cell, depth of the node, operator) and one of (cell,
    operator, operator that it follows) for each branch of the node that it reads, or of (cell, operator, input). It has
    about the deviation 1 over uniform architectures; the reward is the logistic function of half of it. It depends on the
    graph alone: neither the child's seed nor the way in which an architecture is written down matters.

    Attributes:
        search_space: the space, or its name; its architectures must have graphs.
        landscape_seed: the seed of the effects.
    """

    search_space: str | SearchSpace
    landscape_seed: int = 0

    is_expensive = False

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = get_search_space(self.search_space).cell_graphs(architecture)
        num_branches = sum(len(node) for graph in graphs for node in graph.nodes)
        if num_branches == 0:
            raise InputError(f"{architecture.key} has no operators in a graph: there is nothing that could interact")
        score = sum(self._score(graph) for graph in graphs) / math.sqrt(2 * num_branches)
        reward = 1 / (1 + math.exp(-score / SPREAD))
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=reward, train_accuracy=reward)

    def _score(self, graph: CellGraph) -> float:
        depths = [0] * len(graph.inputs)
        score = 0.0
        for node in graph.nodes:
            depths.append(1 + max((depths[branch.source] for branch in node), default=0))
            for operator, source in node:
                score += effect(self.landscape_seed, graph.name, str(depths[-1]), operator)
                if source < len(graph.inputs):
                    score += effect(self.landscape_seed, graph.name, operator, "after", graph.inputs[source])
                    continue
                read = graph.nodes[source - len(graph.inputs)]
                effects = [effect(self.landscape_seed, graph.name, operator, "after", branch.operator) for branch in read]
                score += sum(effects) / math.sqrt(max(1, len(read)))
        return score


@lru_cache(maxsize=65536)
def effect(landscape_seed: int, *names: str) -> float:
    """The standard-normal effect that is called ``names``."""
    return float(numpy_generator(landscape_seed, "interaction", *names).standard_normal())
