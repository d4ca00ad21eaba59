"""Regret curves: difference between the optimum and the best of the first n children, averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common.records import Record
from benchmarks.common.statistics import Numbers, mean_band
from nases_env.seeding import numpy_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_POINTS = 60
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"),
    *("#882255", "#332288", "#999933", "#44aa99", "#8c510a", "#aa4499", "#117733", "#6699cc"),
    *("#bcbd22", "#ff9da7", "#4d4d4d", "#b07aa1", "#ddcc77"),
)
"""The palette of Okabe and Ito, which color-blind readers can distinguish, and further colors for dashed lines."""
HEADINGS = {
    "reward": "reward of the best so far",
    "test_accuracy": "test accuracy of the best so far by reward",
}
STYLES = ("-", "--", ":", "-.")  # each for SAME_STYLE agents
SAME_STYLE = 8
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_WIDTH = 5.2, 4.4, 3.4  # inches


@dataclass(frozen=True)
class Curve:
    """Mean regret in percentage points after n children, with 95% intervals; shapes (points,)."""

    mean: Numbers
    low: Numbers
    high: Numbers

    def to_dict(self) -> dict[str, list[float]]:
        """Return the arrays as JSON values."""
        return {"mean": self.mean.tolist(), "low": self.low.tolist(), "high": self.high.tolist()}


def log_spaced(budget: int) -> list[int]:
    """Return numbers of children from 1 to ``budget``, about evenly spaced on a logarithmic axis."""
    points: list[int] = np.unique(np.geomspace(1, budget, NUM_POINTS).round().astype(int)).tolist()
    return points


def curves(
    records: Mapping[str, Sequence[Record]],
    points: Sequence[int],
    optimum: Mapping[str, float | Sequence[float]],
    seed: int,
) -> dict[str, dict[str, Curve]]:
    """Compute the regret curve of each agent for each measure in ``optimum``.

    Args:
        records: records by agent.
        points: numbers of children.
        optimum: "reward" and, if known, "test_accuracy", in [0, 1]; a sequence has the optimum of each seed.
        seed: seed of the bootstrap.
    """
    rng = numpy_generator(seed, "search quality", "regret")
    panels: dict[str, dict[str, Curve]] = {}
    for measure, best in optimum.items():
        for agent, rows in records.items():
            regrets = 100 * (np.reshape(best, (-1, 1)) - np.stack([getattr(record, measure)(points) for record in rows]))
            panels.setdefault(measure, {})[agent] = Curve(regrets.mean(axis=0), *mean_band(regrets, rng))
    return panels


def draw(
    title: str,
    points: Sequence[int],
    panels: Mapping[str, Mapping[str, Curve]],
    groups: Sequence[Sequence[str]],
    labels: Mapping[str, str],
) -> Figure:
    """Draw regret curves: one row of panels per group of agents, one column per measure.

    Args:
        title: printed above the panels.
        points: numbers of children.
        panels: curves by measure and agent.
        groups: the agents of each row; all of them have different colors if there are at most 21,
            and different colors or styles if there are at most 32.
        labels: text of each agent in the legend.
    """
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    num_rows, num_columns = len(groups), len(panels)
    size = (PANEL_WIDTH * num_columns + LEGEND_WIDTH, PANEL_HEIGHT * num_rows)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    agents = list(dict.fromkeys(agent for group in groups for agent in group))
    all_axes = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey="col")
    for row, group in zip(all_axes, groups, strict=True):
        for axes, (measure, panel) in zip(row, panels.items(), strict=True):
            # The legend lists the agents from top to bottom in the order of the right ends of the curves of the last panel.
            for agent in sorted(group, key=lambda agent: -panel[agent].mean[-1]):
                index, curve = agents.index(agent), panel[agent]
                color, style = COLORS[index % len(COLORS)], STYLES[index // SAME_STYLE % len(STYLES)]
                axes.plot(points, curve.mean, color=color, linestyle=style, linewidth=1.6, label=labels[agent])
                axes.fill_between(points, curve.low, curve.high, color=color, alpha=0.1, linewidth=0)
            axes.set(xscale="log", yscale="log", xlim=(points[0], points[-1]), xlabel="children evaluated")
            axes.set_title(HEADINGS[measure], fontsize=10)
            axes.set_ylabel("mean regret in percentage points (band: 95%)")
            axes.tick_params(labelbottom=True)
            axes.grid(color="#dddddd", linewidth=0.5)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9)
    return figure
