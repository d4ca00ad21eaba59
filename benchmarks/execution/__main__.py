"""What it costs to evaluate children elsewhere, to keep what is found, and to go on with a search.

    python -m benchmarks.execution --output execution.json

Four parts, each of which can be measured alone:

- scaling: children of the digits a minute with several worker processes, each with one thread. "all at once" hands all
  over and waits; the searches are whole ones, with run folder and store, and are told of children in the order in which
  they asked. All variants evaluate the same children, which is checked. The start of the workers is left out.
- overhead: what processes and Ray add to a child of a millisecond.
- store: rows a second that are committed one by one.
- resume: seconds until a search with many children behind it goes on.

The variants of a part take turns, so that other work on the machine slows all alike; ratios are taken within a repeat.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common.interleave import Figures
from benchmarks.env_overhead import spread
from benchmarks.execution import commits, overhead, resume, scaling
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.cpu import torch_threads
from nases_env.errors import InputError

Part = Literal["scaling", "overhead", "store", "resume"]
PARTS: tuple[Part, ...] = ("scaling", "overhead", "store", "resume")
MIN_WIDTH = 140  # characters of the tables, where no terminal says how wide it is


@dataclass(frozen=True)
class Args:
    """What is measured."""

    parts: tuple[Part, ...] = PARTS
    """What is measured."""
    num_repeats: int = 5
    """Times that each variant is measured."""
    num_workers: tuple[int, ...] = (1, 2)
    """scaling and store: numbers of processes, in increasing order; overhead: the largest."""
    preset: str = "cpu"
    """scaling: size and training of the children."""
    num_children: int = 12
    """scaling: children of each run."""
    num_waiting: int = 500
    """overhead: children of each variant in a repeat."""
    num_commits: int = 500
    """store: rows of each process in a repeat."""
    num_rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    """resume: children that are recorded."""
    num_searched: int = 1_000
    """resume: of these, the first ones, that a search really evaluates; the others are written down at once."""
    folder: Path | None = None
    """A folder on the disk to measure, for files that are gone in the end; unset: the system's for temporary files."""
    seed: int = 0
    """Decides the children."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        for option in ("num_repeats", "num_children", "num_waiting", "num_commits", "num_searched"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        if self.folder is not None and not self.folder.is_dir():
            raise InputError(f"--folder must be a folder that exists, not {self.folder}")
        for option in ("parts", "num_workers", "num_rows"):
            if not getattr(self, option):
                raise InputError(f"--{option.replace('_', '-')} must name at least one")
        for option in ("num_workers", "num_rows"):
            values = getattr(self, option)
            if min(values) < 1 or list(values) != sorted(set(values)):
                raise InputError(f"--{option.replace('_', '-')} must be numbers from 1 on, in increasing order")


def make_parts(args: Args, folder: Path) -> dict[Part, Callable[[], dict[str, Figures]]]:
    """What measures each part that is asked for."""
    repeats = {"num_repeats": args.num_repeats}
    parts: dict[Part, Callable[[], dict[str, Figures]]] = {
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
            overhead.measure, folder, num_workers=max(args.num_workers), num_children=args.num_waiting, **repeats
        ),
        "store": partial(commits.measure, folder, num_processes=args.num_workers, num_rows=args.num_commits, **repeats),
        "resume": partial(
            resume.measure, folder, num_rows=args.num_rows, num_searched=args.num_searched, seed=args.seed, **repeats
        ),
    }
    return {name: parts[name] for name in dict.fromkeys(args.parts)}


def show(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def make_table(title: str, results: dict[str, dict[str, dict[str, float]]]) -> Table:
    """One row a variant; median (least–most), or the value where it was measured once."""
    table = Table(title=title, title_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in next(iter(results.values())):
        table.add_column(name.replace("_", " "), justify="right")
    for variant, figures in results.items():
        cells = []
        for figure in figures.values():
            median, least, most = (show(figure[of]) for of in ("median", "least", "most"))
            cells.append(median if least == most else f"{median} ({least}–{most})")
        table.add_row(variant, *cells)
    return table


def main(args: Args) -> None:
    """Measure scaling, overhead, the store and resumption."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, MIN_WIDTH))
    results = {}
    with torch_threads(1), tempfile.TemporaryDirectory(prefix="nases-", dir=args.folder) as folder:
        for name, measure in make_parts(args, Path(folder)).items():
            figures = measure()
            results[name] = {
                variant: {figure: spread(values) for figure, values in own.items()} for variant, own in figures.items()
            }
            console.print(make_table(f"{name}: median (least–most) of {args.num_repeats} repeats", results[name]))
            if name == "overhead" and not overhead.has_ray():
                console.print("Ray is not installed, and was not measured")
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
