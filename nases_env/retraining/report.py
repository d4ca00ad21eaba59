"""The report on a final training: every seed, their mean and deviation, and a row for Table 1 of the paper."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.escaping import escape_markdown
from nases_env.evaluation import ChildSettings
from nases_env.report.text import duration
from nases_env.retraining.folder import REPORT, FinalFolder
from nases_env.retraining.result import FinalResult
from nases_env.retraining.search_record import OTHER_IMAGES, SearchRecord, changed_settings, describe_changes
from nases_env.tables import markdown_table


@dataclass(frozen=True)
class TableRow:
    """A row of Table 1 (CIFAR-10).

    Attributes:
        method: name of the method.
        error: test error in percent, with its standard deviation if there are several seeds.
        params: parameters in millions.
        days: GPU days of the search.
    """

    method: str
    error: str
    params: str
    days: str


SIZES = ("num_params", "num_flops", "activation_bytes", "file_bytes")
"""Attributes of a result; they differ between seeds if each seed has its own search."""

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
"""Table 1 of the paper. Other authors measured its rows with different code and training."""

TABLE_1_HEADING = "## Comparison with Table 1 of the paper"


def write_report(folder: FinalFolder, search: SearchRecord | None) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md`` on all finished seeds of ``folder``.

    Args:
        folder: the output directory of the final training.
        search: the search; None if the architecture is from a file.

    Returns:
        The content of ``report.json``; ``sentence`` is a summary.

    Raises:
        InputError: if there is no result, or a file cannot be written.
    """
    with folder.locked():  # a report of another process with fewer seeds must not replace this one
        results = folder.results()
        if not results:
            raise InputError(f"{folder.path} has no finished training run to report on; run `nases train` again")
        config = folder.read_config()
        configuration = config["configuration"]
        sentence = f"test error {format_test_error(results)}% over {len(results)} seed{'s' * (len(results) > 1)}"
        report = {
            **summarize(results),
            "sentence": sentence,
            "conditions": describe_training(config, results),
            "search": None if search is None else asdict(search),
            "changed_settings": None if search is None else changed_settings(search.settings, _settings(configuration)),
            "seeds": [{name: value for name, value in result.to_dict().items() if name != "curve"} for result in results],
        }
        write_atomically(folder.path / "report.json", (json.dumps(report, indent=2) + "\n").encode())
        write_atomically(
            folder.path / REPORT, _to_markdown(report, configuration, results, search).encode(errors="backslashreplace")
        )
    return report


def _settings(configuration: Mapping[str, Any]) -> ChildSettings:
    return ChildSettings(**configuration["settings"])


def _to_markdown(
    report: dict[str, Any],
    configuration: dict[str, Any],
    results: Sequence[FinalResult],
    search: SearchRecord | None,
) -> str:
    conditions = escape_markdown(report["conditions"])
    parts = ["# Final training", conditions, markdown_table(*seed_rows(results)), f"Mean: {report['sentence']}."]
    if search is not None:
        device = "GPU" if search.on_gpu else "CPU"
        parts += [
            f"{escape_markdown(search.describe())} Evaluating them took {duration(search.seconds)} on a {device} "
            "(wall time, summed).",
            escape_markdown(describe_changes(report["changed_settings"])),
        ]
        if not search.has_same_images:
            parts.append(OTHER_IMAGES)
    if configuration["dataset"] == "cifar10":
        days = "–" if search is None else search_days([search])
        method = "architecture of a file" if search is None else search.agent
        row = table_1_row(method, results, configuration["settings"]["cutout_length"], days)
        parts += [TABLE_1_HEADING, table_1([row])]
    return "\n\n".join(parts) + "\n"


def search_days(searches: Sequence[SearchRecord]) -> str:
    """Format the mean GPU days of searches; CPU days are marked "(CPU)"."""
    seconds = statistics.mean(search.seconds for search in searches)
    return f"{seconds / 86400:.2g}" + ("" if searches[0].on_gpu else " (CPU)")


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Compute mean and standard deviation; the deviation of a single value is None."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def format_percent(mean: float, std: float | None, sign: str = "") -> str:
    """Format a share in [-1, 1] in percent as mean ± standard deviation; ``sign="+"`` shows the sign of a positive mean."""
    return f"{100 * mean:{sign}.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def summarize(results: Sequence[FinalResult]) -> dict[str, Any]:
    """Summarize results over seeds as JSON values: mean and standard deviation of the test error in [0, 1], mean sizes."""
    mean, std = mean_and_std([result.test_error for result in results])
    return {
        "num_seeds": len(results),
        "test_error_mean": mean,
        "test_error_std": std,
        **{name: round(statistics.mean(getattr(result, name) for result in results)) for name in SIZES},
        "hours": sum(result.hours for result in results),
        "on_gpu": results[0].on_gpu,
    }


def format_test_error(results: Sequence[FinalResult]) -> str:
    """Format the test error in percent as mean ± standard deviation over seeds."""
    return format_percent(*mean_and_std([result.test_error for result in results]))


def table_1_row(method: str, results: Sequence[FinalResult], cutout_length: int, days: str) -> TableRow:
    """Create the row of ``results`` in Table 1.

    Args:
        method: name of the method.
        results: one result per seed.
        cutout_length: side of the cutout square in the training; 0 is off.
        days: GPU days of the search.
    """
    params = statistics.mean(result.num_params for result in results) / 1e6
    return TableRow(method + (" + cutout" if cutout_length else ""), format_test_error(results), f"{params:.2g}", days)


def seed_rows(results: Sequence[FinalResult]) -> list[list[str]]:
    """Return the cells of a table with one row per seed; the first row contains the headings."""
    rows = [["seed", "test error %", "95% interval", "train %", "params", "MFLOPs", "epochs"]]
    rows[0].append(f"wall time ({'GPU' if results[0].on_gpu else 'CPU'})")
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
                duration(result.seconds),
            ]
        )
    return rows


def seeds_table(results: Sequence[FinalResult]) -> Table:
    """Return ``seed_rows`` as a table for a terminal."""
    table = Table(title="final training, tested once", title_justify="left")
    headings, *rows = seed_rows(results)
    for heading in headings:
        table.add_column(Text(heading.replace(" ", "\n")), justify="right", no_wrap=True)  # fits into 80 columns
    for row in rows:
        table.add_row(*row)
    return table


def table_1(rows: Sequence[TableRow]) -> str:
    """Return Table 1 of the paper in Markdown, followed by ``rows``."""
    sources = [(row, "as stated in the paper") for row in PAPER_ROWS] + [(row, "measured here") for row in rows]
    return markdown_table(
        ["", "test error %", "parameters, M", "search, GPU days", ""],
        *([row.method, row.error, row.params, row.days, source] for row, source in sources),
    )


def describe_training(config: Mapping[str, Any], results: Sequence[FinalResult]) -> str:
    """Describe in one sentence how ``results`` were trained, so that they can be compared with other results.

    Args:
        config: as ``FinalFolder.read_config`` returns it.
        results: the results; the device of the first result is stated.
    """
    configuration = config["configuration"]
    settings = configuration["settings"]
    images = _describe_num_images(config.get("num_train_images"), settings["num_train_images"])
    options = [
        "no cutout" if not settings["cutout_length"] else f"cutout {settings['cutout_length']}",
        "no drop-path" if not settings["drop_path_prob"] else f"drop-path {settings['drop_path_prob']:g}",
        "with auxiliary head" if settings["auxiliary_head"] else "no auxiliary head",
    ]
    size = settings["image_size"]
    pixels = "" if size is None else f" at {size} x {size} pixels at most"
    if isinstance(size, str):
        pixels = f" at {size} pixels"
    return (
        f"Trained on {images} training images of {configuration['dataset']}"
        f"{pixels}, {results[0].num_epochs} epochs, N = "
        f"{settings['cells_per_stage']}, F = {settings['num_filters']}, {', '.join(options)}, on {results[0].device}; "
        "tested once, after the last epoch."
    )


def _describe_num_images(num_images: int | None, limit: int | None) -> str:
    """Describe how many images were used; ``num_images`` is None if an earlier version wrote the configuration."""
    if num_images is None:
        return "all" if limit is None else f"at most {limit}"
    return f"all {num_images}" if limit is None or num_images < limit else str(num_images)
