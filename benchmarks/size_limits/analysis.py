"""Test accuracies by limit, hypervolumes over the limits, the tables and the figure."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.common import statistics
from benchmarks.common.report import TextTable
from benchmarks.real_search import analysis
from benchmarks.real_search.analysis import Report, Row
from nases_env.errors import InputError
from nases_env.pareto import hypervolume
from nases_env.seeding import numpy_generator

REFERENCE_FACTOR = 10  # the cost of the reference point, relative to the highest limit
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def analyze(rows: Mapping[int, Sequence[Row]], reference: str) -> Report:
    """Return the metrics of each method under each limit, and the hypervolume of each method by seed.

    The hypervolume is that of the test accuracies and the decimal logarithm of the numbers of parameters of one seed. Its
    reference point has the lowest test accuracy of all networks and ten times as many parameters as the highest limit. Only
    seeds that are finished under all limits count.

    Args:
        rows: the finished final trainings by limit.
        reference: name of the method to which the others are compared.

    Raises:
        InputError: if no final training is finished.
    """
    known = [row for of_limit in rows.values() for row in of_limit if row.test_accuracy is not None]
    if not known:
        raise InputError("no final training is finished; run more jobs with a larger --num-jobs, or without this option")
    limits = {
        str(limit): analysis.analyze(of_limit, reference)
        for limit, of_limit in rows.items()
        if any(row.test_accuracy is not None for row in of_limit)
    }
    worst = np.array([min(_point(row)[0] for row in known), -math.log10(REFERENCE_FACTOR * max(rows))])
    hypervolumes: dict[str, dict[int, float]] = {}
    for method in dict.fromkeys(row.method for row in known):
        for seed in sorted({row.seed for row in known if row.method == method}):
            points = [_point(row) for row in known if (row.method, row.seed) == (method, seed)]
            if len(points) == len(rows):
                hypervolumes.setdefault(method, {})[seed] = hypervolume(np.array(points), worst)
    rng = numpy_generator(0, "size limits", "bootstrap")
    areas: Report = {}
    for method, by_seed in hypervolumes.items():
        others = {} if method == reference else hypervolumes.get(reference, {})
        differences = [value - others[seed] for seed, value in by_seed.items() if seed in others]
        areas[method] = {
            "mean": _mean(list(by_seed.values()), rng),
            "difference": _mean(differences, rng),
            "values": by_seed,
        }
    return {"limits": limits, "hypervolume": areas, "hypervolume_reference": worst.tolist()}


def _point(row: Row) -> tuple[float, float]:
    assert row.test_accuracy is not None
    assert row.num_params is not None
    return row.test_accuracy, -math.log10(row.num_params)


def _mean(values: Sequence[float], rng: np.random.Generator) -> dict[str, float | None] | None:
    """Return the mean with its interval, which is None with a single value; None without a value."""
    if not values:
        return None
    if len(values) == 1:
        return {"value": values[0], "low": None, "high": None}
    return dict(statistics.mean(np.array(values), rng)._asdict())


def make_table(report: Report, labels: Mapping[str, str]) -> list[TextTable]:
    """Return the table of all limits and methods, best first, and that of the hypervolumes."""
    settings = report["settings"]
    unit = "CPU seconds" if "CPU" in report["device"] else "seconds"
    rows = [
        [
            f"{int(limit):,}",
            labels[name],
            *(analysis.format_summary(metrics[key], sign) for key, sign in (("test_accuracy", ""), ("difference", "+"))),
            *(_number(metrics[key]) for key in ("num_params", "num_flops", "num_children", "training_seconds")),
        ]
        for limit, of_limit in report["limits"].items()
        for name, metrics in sorted(of_limit["methods"].items(), key=lambda item: -analysis.mean_accuracy(item[1]))
    ]
    unfinished = report["num_unfinished_jobs"]
    title = f"{settings['env_id']}, {settings['search_seconds']:g} {unit} per search"
    title += f"; {unfinished} jobs are not finished" if unfinished else ""
    headings = [
        "limit",
        "method",
        "test accuracy in % (95%)",
        "minus random search (95%)",
        "parameters",
        "FLOPs",
        "children",
    ]
    areas = [
        [labels[name], _area(area["mean"]), _area(area["difference"], "+")]
        for name, area in sorted(report["hypervolume"].items(), key=lambda item: -item[1]["mean"]["value"])
    ]
    return [
        TextTable(title, [*headings, f"{unit} of training"], rows),
        TextTable("hypervolume over all limits", ["method", "mean (95%)", "minus random search (95%)"], areas),
    ]


def _area(area: Mapping[str, float | None] | None, sign: str = "") -> str:
    if area is None:
        return "–"
    interval = "" if area["low"] is None else f" ({area['low']:{sign}.3f} to {area['high']:{sign}.3f})"
    return f"{area['value']:{sign}.3f}{interval}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def draw(report: Report, labels: Mapping[str, str], file_format: str) -> bytes:
    """Draw the test accuracy by the number of parameters: a point per seed and limit, and a line through the means.

    Args:
        report: the analysis.
        labels: label by method.
        file_format: svg, png or pdf.
    """
    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, label), color in zip(labels.items(), COLORS, strict=False):
        means = []
        for of_limit in report["limits"].values():
            points = [
                (row["num_params"], 100 * row["test_accuracy"])
                for row in of_limit["rows"]
                if row["method"] == name and row["test_accuracy"] is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), ".", color=color, alpha=0.45)
                means.append(np.mean(points, axis=0))
        if means:
            axes.plot(*zip(*means, strict=True), "o-", color=color, label=label)
    for limit in report["limits"]:
        axes.axvline(int(limit), color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([int(limit) for limit in report["limits"]], [f"{int(limit):,}" for limit in report["limits"]])
    axes.minorticks_off()
    axes.set_xlabel("parameters (dotted: the limits; small: one seed; large: mean)")
    axes.set_ylabel("test accuracy in %")
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.legend()
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "size_limits"}):
        figure.savefig(buffer, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    return buffer.getvalue()
