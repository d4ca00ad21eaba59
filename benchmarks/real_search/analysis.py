"""Means over seeds with 95% bootstrap intervals, paired differences, the table and the figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.common import statistics
from benchmarks.common.report import TextTable, format_interval
from benchmarks.real_search.searches import Child
from nases_env.errors import InputError
from nases_env.seeding import numpy_generator

Report = dict[str, Any]

SEARCHED_COLOR, BASELINE_COLOR = "#0072b2", "#666666"
FIGURE_WIDTH, ROW_HEIGHT, MARGIN = 7.2, 0.42, 1.0  # inches
JITTER = 0.28  # vertical distance of the first and the last seed, in rows


@dataclass(frozen=True)
class Row:
    """A finished final training of a method.

    Attributes:
        method: name of the method.
        seed: seed of the search and of the training.
        key: canonical key of the network.
        test_accuracy: test accuracy in [0, 1]; None if the training failed.
        num_params: number of parameters; None if the training failed.
        num_flops: floating-point operations per image; None if the training failed.
        training_seconds: CPU seconds of the final training, or wall time on a GPU; None if it failed.
        reward: reward in the search by which the network was chosen; None without a search.
        num_children: number of children of the search; None without a search.
        num_distinct: number of distinct ones.
        search_seconds: CPU seconds of the search, or wall time on a GPU; None without a search.
    """

    method: str
    seed: int
    key: str
    test_accuracy: float | None
    num_params: int | None
    num_flops: int | None
    training_seconds: float | None
    reward: float | None
    num_children: int | None
    num_distinct: int | None
    search_seconds: float | None

    @classmethod
    def make(
        cls,
        method: str,
        seed: int,
        key: str,
        result: Mapping[str, Any],
        chosen: Child | None,
        children: Sequence[Child] | None,
    ) -> Row:
        """Return the row of the ``result`` of a ``Training``, of the chosen child, and of all children of the search."""
        final = result.get("result", {})
        return cls(
            method=method,
            seed=seed,
            key=key,
            test_accuracy=final.get("test_accuracy"),
            num_params=final.get("num_params"),
            num_flops=final.get("num_flops"),
            training_seconds=result.get("seconds"),
            reward=None if chosen is None else chosen.evaluation.reward,
            num_children=None if children is None else len(children),
            num_distinct=None if children is None else len({child.evaluation.key for child in children}),
            search_seconds=None if children is None else children[-1].seconds,
        )


def analyze(rows: Sequence[Row], reference: str) -> Report:
    """Return the metrics of each method, and its differences from ``reference`` paired by seed; accuracies in [0, 1].

    A training that failed is counted and otherwise left out. Intervals are None with a single seed.

    Raises:
        InputError: if no final training is finished.
    """
    if not any(row.test_accuracy is not None for row in rows):
        raise InputError("no final training is finished; run more jobs with a larger --num-jobs, or without this option")
    rng = numpy_generator(0, "real search", "bootstrap")
    accuracies: dict[str, dict[int, float]] = {}
    for row in rows:
        by_seed = accuracies.setdefault(row.method, {})
        if row.test_accuracy is not None:
            by_seed[row.seed] = row.test_accuracy
    methods: Report = {}
    for method, by_seed in accuracies.items():
        of_method = [row for row in rows if row.method == method]
        pairs = {} if method == reference else accuracies.get(reference, {})
        differences = {seed: value - pairs[seed] for seed, value in by_seed.items() if seed in pairs}
        methods[method] = {
            "num_failed": len(of_method) - len(by_seed),
            "test_accuracy": _summary(by_seed, rng),
            "difference": _summary(differences, rng),
            **{
                name: _mean([getattr(row, name) for row in of_method])
                for name in (
                    *("reward", "num_children", "num_distinct", "search_seconds", "training_seconds"),
                    *("num_params", "num_flops"),
                )
            },
        }
    return {"reference": reference, "methods": methods, "rows": [asdict(row) for row in rows]}


def _summary(by_seed: Mapping[int, float], rng: np.random.Generator) -> Report | None:
    """Return the mean over seeds, its interval and the values; None without a seed."""
    if not by_seed:
        return None
    values = np.array(list(by_seed.values()))
    low, high = statistics.mean(values, rng)[1:] if len(values) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high, "values": {str(seed): by_seed[seed] for seed in by_seed}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def make_table(report: Report, labels: Mapping[str, str]) -> TextTable:
    """Return the table of all methods, best first."""
    settings, on_gpu = report["settings"], "CPU" not in report["device"]
    unit = "seconds" if on_gpu else "CPU seconds"
    reference = labels[report["reference"]]
    headings = ["method", "seeds", "test accuracy in % (95%)", f"minus {reference} (95%)", "reward %", "children"]
    headings += [f"{unit} of search", "of training", "parameters"]
    table_rows = []
    for name, metrics in sorted(report["methods"].items(), key=lambda item: -mean_accuracy(item[1])):
        failed = f" ({metrics['num_failed']} failed)" if metrics["num_failed"] else ""
        table_rows.append(
            [
                labels[name],
                f"{len((metrics['test_accuracy'] or {'values': ()})['values'])}{failed}",
                format_summary(metrics["test_accuracy"]),
                format_summary(metrics["difference"], sign="+"),
                _number(metrics["reward"], 100, ".2f"),
                _number(metrics["num_children"], 1, ".1f"),
                _number(metrics["search_seconds"], 1, ",.0f"),
                _number(metrics["training_seconds"], 1, ",.0f"),
                _number(metrics["num_params"], 1, ",.0f"),
            ]
        )
    unfinished = report["num_unfinished_jobs"]
    title = f"{settings['env_id']}, preset {settings['preset']}, {settings['search_seconds']:g} {unit} per search"
    return TextTable(title + (f"; {unfinished} jobs are not finished" if unfinished else ""), headings, table_rows)


def mean_accuracy(metrics: Report) -> float:
    """Return the mean test accuracy of a method; 0 if none is known."""
    return metrics["test_accuracy"]["mean"] if metrics["test_accuracy"] else 0.0


def format_summary(summary: Report | None, sign: str = "") -> str:
    """Format a mean over seeds, with its interval, in percent; a dash without a seed."""
    if summary is None:
        return "–"
    if summary["low"] is None:
        return f"{100 * summary['mean']:{sign}.2f}"
    return format_interval(summary["mean"], summary["low"], summary["high"], sign=sign)


def _number(value: float | None, scale: float, form: str) -> str:
    return "–" if value is None else format(scale * value, form)


def draw(report: Report, labels: Mapping[str, str], file_format: str) -> bytes:
    """Draw the test accuracy of each method: a point per seed, and the mean with its 95% interval.

    Args:
        report: the analysis.
        labels: label by method.
        file_format: svg, png or pdf.
    """
    methods = {name: metrics["test_accuracy"] for name, metrics in report["methods"].items() if metrics["test_accuracy"]}
    names = sorted(methods, key=lambda name: methods[name]["mean"])  # the best is at the top
    figure = Figure(figsize=(FIGURE_WIDTH, MARGIN + ROW_HEIGHT * len(names)), dpi=120, layout="constrained")
    axes = figure.subplots()
    seeds = sorted({seed for summary in methods.values() for seed in summary["values"]}, key=int)
    for position, name in enumerate(names):
        summary = methods[name]
        searched = report["methods"][name]["num_children"] is not None
        color = SEARCHED_COLOR if searched else BASELINE_COLOR
        heights = [position + JITTER * (seeds.index(seed) / max(1, len(seeds) - 1) - 0.5) for seed in summary["values"]]
        axes.plot([100 * value for value in summary["values"].values()], heights, ".", color=color, alpha=0.45, markersize=6)
        if summary["low"] is not None:
            axes.plot([100 * summary["low"], 100 * summary["high"]], [position] * 2, color=color, linewidth=2)
        axes.plot([100 * summary["mean"]], [position], "o", color=color, markersize=7)
    axes.set_yticks(range(len(names)), [labels[name] for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("test accuracy in % (small: one seed; large: mean with its 95% interval)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "real_search"}):
        figure.savefig(buffer, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()
