"""Benchmark of the cost of executors, of the store, and of resuming a search.

    python -m benchmarks.execution --output execution.json

Five parts, which can be measured separately with ``--parts``:

- scaling: children per minute on digits with several worker processes of one thread each. "all submitted" submits all
  children together and waits for them. "search" is a complete search with run directory and store, which receives results
  in proposal order. The start of the workers is not included. All variants evaluate the same children, which is checked.
- overhead: the time that processes and Ray add to a child of 1 ms.
- store: rows per second, committed one by one.
- resume: seconds to resume a search with many recorded children.
- commands: seconds and peak memory of the commands that read such a search: ``nases status``, ``report`` and ``store``.

The variants of a part are interleaved, so that other load on the machine slows all of them equally; ratios are computed
within a repeat.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table

from benchmarks.common.console import wide_console
from benchmarks.common.interleave import Measurements
from benchmarks.env_overhead import median_and_range
from benchmarks.execution import commands, commits, overhead, resume, scaling
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.cpu import torch_threads
from nases_env.errors import InputError

Part = Literal["scaling", "overhead", "store", "resume", "commands"]
PARTS: tuple[Part, ...] = ("scaling", "overhead", "store", "resume", "commands")
MIN_WIDTH = 140  # of the tables in characters, if the output is not a terminal


@dataclass(frozen=True)
class Args:
    """Options of the benchmark."""

    parts: tuple[Part, ...] = PARTS
    """Parts to measure."""
    num_repeats: int = 5
    """Number of measurements of each variant."""
    num_workers: tuple[int, ...] = (1, 2)
    """scaling and store: numbers of processes, in increasing order. overhead: the largest is used."""
    preset: str = "cpu"
    """scaling: preset of the children."""
    num_children: int = 12
    """scaling: number of children per run."""
    num_overhead_children: int = 500
    """overhead: number of children per variant and repeat."""
    num_commits: int = 500
    """store: number of rows per process and repeat."""
    num_rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    """resume and commands: numbers of recorded children."""
    num_searched: int = 1_000
    """resume and commands: number of recorded children that a search evaluates; the others are written directly."""
    folder: Path | None = None
    """Folder for temporary files, on the disk to measure. Default: the temporary folder of the system."""
    seed: int = 0
    """Seed of the children."""
    output: Path | None = None
    """JSON file for the results."""

    def __post_init__(self) -> None:
        for option in ("num_repeats", "num_children", "num_overhead_children", "num_commits", "num_searched"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        if self.folder is not None and not self.folder.is_dir():
            raise InputError(f"--folder must be an existing folder, not {self.folder}")
        for option in ("parts", "num_workers", "num_rows"):
            if not getattr(self, option):
                raise InputError(f"--{option.replace('_', '-')} must have at least one value")
        for option in ("num_workers", "num_rows"):
            values = getattr(self, option)
            if min(values) < 1 or list(values) != sorted(set(values)):
                raise InputError(f"--{option.replace('_', '-')} must be numbers of at least 1 in increasing order")


def make_parts(args: Args, folder: Path) -> dict[Part, Callable[[], dict[str, Measurements]]]:
    """Return the measure functions of ``args.parts`` by name."""
    repeats = {"num_repeats": args.num_repeats}
    searches: dict[str, Any] = {"num_rows": args.num_rows, "num_searched": args.num_searched, "seed": args.seed, **repeats}
    parts: dict[Part, Callable[[], dict[str, Measurements]]] = {
        "scaling": partial(
            scaling.measure,
            folder,
            num_workers=args.num_workers,
            preset=args.preset,
            num_children=args.num_children,
            seed=args.seed,
            **repeats,
        ),
        "overhead": partial(
            overhead.measure, folder, num_workers=max(args.num_workers), num_children=args.num_overhead_children, **repeats
        ),
        "store": partial(commits.measure, folder, num_processes=args.num_workers, num_rows=args.num_commits, **repeats),
        "resume": partial(resume.measure, folder, **searches),
        "commands": partial(commands.measure, folder, **searches),
    }
    return {name: parts[name] for name in dict.fromkeys(args.parts)}


def show(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def make_table(title: str, results: dict[str, dict[str, dict[str, float]]]) -> Table:
    """Return a table with one row per variant: median (min–max), or only the value if it was measured once."""
    table = Table(title=title, title_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in next(iter(results.values())):
        table.add_column(name.replace("_", " "), justify="right")
    for variant, metrics in results.items():
        cells = []
        for metric in metrics.values():
            median, minimum, maximum = (show(metric[statistic]) for statistic in ("median", "min", "max"))
            cells.append(median if minimum == maximum else f"{median} ({minimum}–{maximum})")
        table.add_row(variant, *cells)
    return table


def main(args: Args) -> None:
    """Measure scaling, overhead, the store, resuming, and commands on long searches."""
    console = wide_console(MIN_WIDTH)
    results = {}
    with torch_threads(1), tempfile.TemporaryDirectory(prefix="nases-", dir=args.folder) as folder:
        for name, measure in make_parts(args, Path(folder)).items():
            measurements = measure()
            results[name] = {
                variant: {metric: median_and_range(values) for metric, values in own.items()}
                for variant, own in measurements.items()
            }
            console.print(make_table(f"{name}: median (min–max) of {args.num_repeats} repeats", results[name]))
            if name == "overhead" and not overhead.has_ray():
                console.print("Ray is not installed and was not measured")
    if args.output is not None:
        settings = {option: value for option, value in asdict(args).items() if option not in ("output", "folder")}
        record = {
            "benchmark": "execution",
            "settings": settings,
            "torch": torch.__version__,
            "num_cores": os.cpu_count(),
            "results": results,
        }
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
