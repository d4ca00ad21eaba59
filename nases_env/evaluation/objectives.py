"""The objectives of a search with several: the reward, and costs of a child."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nases_env.errors import InputError, did_you_mean, shown
from nases_env.evaluation.result import Evaluation, Status
from nases_env.units import format_bytes, format_seconds

ACCURACY = "accuracy"
LOWEST_VALUE = -16.0
"""The value of the highest cost, and of a cost that is not known."""


class Cost(NamedTuple):
    """A cost of a child.

    Attributes:
        of: returns it; 0 if it is not known.
        limit: the name of its limit.
        heading: its name in figures.
        unit: its unit in figures, for which prefixes such as k are used; "" for a number.
        form: formats it.
        scale: its smallest unit is 1 / scale: a latency of 1e-9 s counts as 1.
    """

    of: Callable[[Evaluation], float]
    limit: str
    heading: str
    unit: str
    form: Callable[[float], str]
    scale: float = 1.0

    def value(self, cost: float) -> float:
        """Return the value of a cost as an objective, which is maximized: its decimal logarithm, negated, in [-16, 0]."""
        return min(0.0, max(LOWEST_VALUE, -math.log10(cost * self.scale))) if cost > 0 else LOWEST_VALUE


def _format_count(number: float) -> str:
    return f"{number:,.0f}"


COSTS: Mapping[str, Cost] = {
    "params": Cost(lambda child: child.num_params, "max_params", "parameters", "", _format_count),
    "flops": Cost(lambda child: child.num_flops, "max_flops", "FLOPs", "", _format_count),
    "memory": Cost(lambda child: child.activation_bytes, "max_memory", "memory of the activations", "B", format_bytes),
    "latency": Cost(lambda child: child.latency, "max_latency", "latency", "s", format_seconds, scale=1e9),
}
"""The costs that can be objectives, by name."""

OBJECTIVES = (ACCURACY, *COSTS)


def split_objectives(objectives: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of objectives that are given as a sequence, or as one text with commas.

    Raises:
        InputError: if they are neither.
    """
    if not isinstance(objectives, Sequence):
        raise InputError(f"objectives must be names, such as 'accuracy,params', not {shown(objectives)}")
    return tuple(objectives.split(",") if isinstance(objectives, str) else objectives)


def parse_objectives(objectives: str | Sequence[str], known: Sequence[str] = OBJECTIVES) -> tuple[str, ...]:
    """Return the names of objectives.

    Args:
        objectives: the names, or one text with commas, such as ``accuracy,params``.
        known: the names that are allowed.

    Raises:
        InputError: if they are not ``accuracy`` and then at least one cost, all known and distinct.
    """
    names = split_objectives(objectives)
    for name in names:
        if name not in list(known):
            raise InputError(f"unknown objective {shown(name)}{did_you_mean(str(name), known)}; known: {', '.join(known)}")
    if len(names) < 2 or names[0] != ACCURACY or len(set(names)) < len(names):
        raise InputError(
            f"the objectives are {', '.join(names) or 'empty'}; they must be {ACCURACY} and then distinct costs, such as "
            f"{ACCURACY},params"
        )
    return names


def objective_value(name: str, evaluation: Evaluation) -> float:
    """Return the value of an objective, which is maximized: the reward for ``accuracy``, ``Cost.value`` for a cost.

    A child without a result has the lowest value of every objective.
    """
    if name == ACCURACY:
        return evaluation.reward
    return COSTS[name].value(COSTS[name].of(evaluation)) if evaluation.status is Status.OK else LOWEST_VALUE
