"""A reward with interactions between decisions and no training: a random landscape that every search space has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from nases_env.errors import InputError
from nases_env.evaluation.evaluation import Evaluation, Status
from nases_env.evaluation.evaluators import Evaluator
from nases_env.search_spaces import Architecture, SearchSpace, make_search_space
from nases_env.search_spaces.graph import CellGraph
from nases_env.seeding import numpy_generator

SPREAD = 2.0  # deviations of the score of uniform architectures that multiply the odds of the reward by e


@dataclass(frozen=True)
class InteractionEvaluator(Evaluator):
    """Rewards operators by where they stand and by what they follow, with normal effects drawn from ``landscape``.

    The score sums, over the branches of all cells, an effect of (cell, depth of the node, operator) and one of (cell,
    operator, operator that it follows) for each branch of the node that it reads, or of (cell, operator, input). It has
    about the deviation 1 over uniform architectures; the reward is the logistic function of half of it. It depends on the
    graph alone: neither the child's seed nor the way in which an architecture is written down matters.

    Attributes:
        search_space: the space, or its name; its architectures must have graphs.
        landscape: the seed of the effects.
    """

    search_space: str | SearchSpace
    landscape: int = 0

    is_dear = False

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = make_search_space(self.search_space).graphs(architecture)
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
                score += effect(self.landscape, graph.name, str(depths[-1]), operator)
                if source < len(graph.inputs):
                    score += effect(self.landscape, graph.name, operator, "after", graph.inputs[source])
                    continue
                read = graph.nodes[source - len(graph.inputs)]
                effects = [effect(self.landscape, graph.name, operator, "after", branch.operator) for branch in read]
                score += sum(effects) / math.sqrt(max(1, len(read)))
        return score


@lru_cache(maxsize=65536)
def effect(landscape: int, *names: str) -> float:
    """The standard-normal effect that is called ``names``."""
    return float(numpy_generator(landscape, "interaction", *names).standard_normal())
