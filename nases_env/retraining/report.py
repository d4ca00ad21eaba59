"""The final phase in figures: every seed, their mean and deviation, and a row for the paper's Table 1."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from nases_env.retraining.result import FinalResult


@dataclass(frozen=True)
class TableRow:
    """A row of Table 1: CIFAR-10.

    Attributes:
        method: what found the network.
        error: test error in percent, with its deviation over seeds where there are several.
        params: millions of parameters.
        days: GPU days of the search.
    """

    method: str
    error: str
    params: str
    days: str


PAPER_ROWS = (
    TableRow("DenseNet-BC", "3.46", "25.6", "–"),
    TableRow("AmoebaNet-B + cutout", "2.13", "34.9", "3150"),
    TableRow("hierarchical evolution", "3.75", "15.7", "300"),
    TableRow("PNAS + cutout", "3.41", "3.2", "225"),
    TableRow("DARTS + cutout", "2.83", "4.6", "4"),
    TableRow("ENAS", "3.54", "4.6", "0.45"),
    TableRow("ENAS + cutout", "2.89", "4.6", "0.45"),
    TableRow("NAONet-WS", "3.53", "2.5", "0.3"),
    TableRow("NAONet-WS + cutout", "2.87", "2.5", "0.3"),
    TableRow("NASES", "3.45", "4.7", "0.15"),
    TableRow("NASES + cutout", "2.85", "4.7", "0.15"),
)
"""Table 1 of the paper: what the paper claims, measured by others in other ways."""


@dataclass(frozen=True)
class SearchCost:
    """What finding an architecture took.

    Attributes:
        agent: what found it.
        num_children: how many were evaluated.
        seconds: wall time of the evaluations, summed.
        on_gpu: whether they ran on one.
        valid_accuracy: of the best child, in the search, in [0, 1]: what it was chosen by.
    """

    agent: str
    num_children: int
    seconds: float
    on_gpu: bool
    valid_accuracy: float


def search_days(costs: Sequence[SearchCost]) -> str:
    """GPU days of a search, the mean over ``costs``; where it was no GPU, that is said."""
    seconds = statistics.mean(cost.seconds for cost in costs)
    return f"{seconds / 86400:.2g}" + ("" if costs[0].on_gpu else " (CPU)")


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation; the deviation of one value is None."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def percent(mean: float, std: float | None, sign: str = "") -> str:
    """A share in [-1, 1] in percent: mean ± standard deviation. ``sign`` is "+" to show that of a positive mean."""
    return f"{100 * mean:{sign}.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def summarize(results: Sequence[FinalResult]) -> dict[str, Any]:
    """Mean and standard deviation of the test error over seeds, in [0, 1], as JSON values; the deviation of one is None."""
    mean, std = mean_and_std([result.test_error for result in results])
    return {
        "num_seeds": len(results),
        "test_error_mean": mean,
        "test_error_std": std,
        "num_params": results[0].num_params,
        "num_flops": results[0].num_flops,
        "hours": sum(result.hours for result in results),
        "on_gpu": results[0].on_gpu,
    }


def error_text(results: Sequence[FinalResult]) -> str:
    """The test error in percent: mean ± standard deviation over the seeds."""
    return percent(*mean_and_std([result.test_error for result in results]))


def table_1_row(method: str, results: Sequence[FinalResult], cutout: int, days: str) -> TableRow:
    """The row of these results. ``days`` is what the search took, as a text."""
    params = results[0].num_params / 1e6
    return TableRow(method + (" + cutout" if cutout else ""), error_text(results), f"{params:.2g}", days)


def seed_rows(results: Sequence[FinalResult]) -> list[list[str]]:
    """Headings, and a line for each seed."""
    rows = [["seed", "test error %", "95 % interval", "train %", "params", "MFLOPs", "epochs", "GPU h"]]
    if not results[0].on_gpu:
        rows[0][-1] = "CPU h"
    for result in results:
        low, high = result.test_error_interval
        rows.append(
            [
                str(result.seed),
                f"{100 * result.test_error:.2f}",
                f"{100 * low:.2f}–{100 * high:.2f}",
                f"{100 * result.train_accuracy:.2f}",
                f"{result.num_params:,}",
                f"{result.num_flops / 1e6:,.1f}",
                str(result.num_epochs),
                f"{result.hours:.2g}",
            ]
        )
    return rows


def seeds_table(results: Sequence[FinalResult]) -> Table:
    """``seed_rows`` for a terminal."""
    table = Table(title="final training, tested once", title_justify="left")
    headings, *rows = seed_rows(results)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=heading == "95 % interval")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(headings: Sequence[object], *rows: Sequence[object]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def table_1(rows: Sequence[TableRow]) -> str:
    """Table 1 in Markdown with ``rows`` below the paper's."""
    sources = [(row, "as the paper states it") for row in PAPER_ROWS] + [(row, "measured here") for row in rows]
    return markdown_table(
        ["", "test error %", "parameters, M", "search, GPU days", ""],
        *([row.method, row.error, row.params, row.days, source] for row, source in sources),
    )


def conditions(configuration: Mapping[str, Any], results: Sequence[FinalResult]) -> str:
    """In one sentence how the results came about, for whoever compares them with others."""
    settings = configuration["settings"]
    images = settings["num_train_images"]
    options = [
        "no cutout" if not settings["cutout"] else f"cutout {settings['cutout']}",
        "no drop-path" if settings["drop_path_keep"] == 1 else f"drop-path keep {settings['drop_path_keep']:g}",
        "with auxiliary head" if settings["auxiliary_head"] else "no auxiliary head",
    ]
    size = settings["image_size"]
    return (
        f"Trained on {'all' if images is None else images} training images of {configuration['dataset']}"
        f"{'' if size is None else f' at {size} x {size} pixels at most'}, {settings['num_epochs']} epochs, N = "
        f"{settings['cells_per_stage']}, F = {settings['num_filters']}, {', '.join(options)}, on {results[0].device}; "
        "tested once, after the last epoch."
    )
