"""Successive halving on recorded learning curves: what a rung schedule saves, and what its choice loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RungSchedule:
    """Epochs after which only the best networks are trained further.

    Attributes:
        rungs: numbers of epochs in increasing order; the last one is the whole training.
        reduction_factor: each rung keeps this fraction of the networks, 1 / reduction_factor, rounded up.
    """

    rungs: tuple[int, ...]
    reduction_factor: int

    @property
    def name(self) -> str:
        """The schedule in the notation of the tables, such as ``1, 3, 15 (1/3)``."""
        return f"{', '.join(map(str, self.rungs))} (1/{self.reduction_factor})"


class Choice(NamedTuple):
    """The network that a schedule chooses, and the cost.

    Attributes:
        network: index of the network.
        seconds: seconds of all epochs that were trained.
    """

    network: int
    seconds: float


def make_schedules(ends: Sequence[int]) -> list[RungSchedule]:
    """Return all schedules whose rungs are among ``ends``, always with the last, for reduction factors of 2, 3 and 4.

    Args:
        ends: numbers of epochs in increasing order.
    """
    *early, last = ends
    subsets = [[end for bit, end in enumerate(early) if mask >> bit & 1] for mask in range(1, 2 ** len(early))]
    return [RungSchedule((*subset, last), factor) for subset in subsets for factor in (2, 3, 4)]


def choose(schedule: RungSchedule, scores: Numbers, seconds: Numbers) -> Choice:
    """Run successive halving on recorded trainings.

    Args:
        schedule: the rung schedule; its last rung is the number of recorded epochs.
        scores: what the rungs rank by, after each epoch, larger is better, shape (networks, epochs).
        seconds: seconds from the start until the end of each epoch, shape (networks, epochs).
    """
    survivors = np.arange(len(scores))
    spent = np.zeros(len(scores))
    for position, rung in enumerate(schedule.rungs):
        spent[survivors] = seconds[survivors, rung - 1]
        ranked = survivors[np.argsort(-scores[survivors, rung - 1], kind="stable")]
        is_last = position == len(schedule.rungs) - 1
        survivors = ranked[: 1 if is_last else math.ceil(len(ranked) / schedule.reduction_factor)]
    return Choice(int(survivors[0]), float(spent.sum()))


def describe_schedule(
    schedule: RungSchedule,
    scores: Numbers,
    seconds: Numbers,
    accuracies: Numbers,
    rng: np.random.Generator,
    *,
    num_subsets: int,
    subset_size: int,
) -> dict[str, Any]:
    """Return regret and cost of a schedule, over random subsets of the networks.

    Args:
        schedule: the rung schedule.
        scores: see ``choose``.
        seconds: see ``choose``.
        accuracies: final accuracies in [0, 1], with other seeds than those of ``scores``, shape (networks,).
        rng: generator of the subsets.
        num_subsets: number of subsets.
        subset_size: networks per subset, drawn without replacement.

    Returns:
        ``regret``: mean, and 2.5% and 97.5% quantiles over the subsets, of the accuracy of the best network minus that of
        the chosen one. ``cost``: mean seconds, relative to training all networks of the subset to the end.
    """
    regrets, costs = [], []
    for _ in range(num_subsets):
        subset = rng.choice(len(scores), min(subset_size, len(scores)), replace=False)
        choice = choose(schedule, scores[subset], seconds[subset])
        regrets.append(accuracies[subset].max() - accuracies[subset][choice.network])
        costs.append(choice.seconds / seconds[subset, -1].sum())
    low, high = np.quantile(regrets, [0.025, 0.975])
    return {
        "name": schedule.name,
        "regret": [float(np.mean(regrets)), float(low), float(high)],
        "cost": float(np.mean(costs)),
    }
