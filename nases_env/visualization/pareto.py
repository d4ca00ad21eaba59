"""A figure of a Pareto front of accuracy and a cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

WIDTH, HEIGHT = 6.4, 4.0  # inches
MAX_VECTORS = 5000  # children; more are drawn as pixels, also in an SVG or PDF file
FRONT_COLOR, LIMIT_COLOR = "tab:blue", "tab:red"


def draw_front(
    costs: NDArray[np.float64],
    rewards: NDArray[np.float64],
    front: Sequence[int],
    *,
    labels: tuple[str, str],
    unit: str,
    knee: int | None = None,
    limit: float | None = None,
) -> Figure:
    """Draw children, with their front as steps: the highest reward up to each cost.

    Args:
        costs: the cost of each child, on a logarithmic axis.
        rewards: the reward of each child.
        front: the children on the front.
        labels: the labels of both axes.
        unit: the unit of the costs; "" if it is a number.
        knee: the child at the knee of the front.
        limit: the limit of the cost; higher costs are shaded.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(front, key=lambda index: costs[index])
    axes.scatter(costs, rewards, s=9, color="0.7", rasterized=len(costs) > MAX_VECTORS, label="children")
    axes.plot(
        costs[ordered], rewards[ordered], "o-", color=FRONT_COLOR, markersize=4, drawstyle="steps-post", label="Pareto front"
    )
    if knee is not None:
        axes.plot(costs[knee], rewards[knee], "o", color=FRONT_COLOR, fillstyle="none", markersize=11, label="knee")
    axes.set_xscale("log")
    is_wide = costs.max() >= 10 * costs.min()  # otherwise, there may be no 1, 2 or 5 in the range
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if is_wide else MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(unit))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if limit is not None:
        left, right = axes.get_xlim()
        right = max(right, 1.2 * limit)
        axes.axvspan(limit, right, color=LIMIT_COLOR, alpha=0.12, linewidth=0, label="above the limit")
        axes.set_xlim(left, right)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
