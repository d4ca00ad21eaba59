"""``nases report``: write a report on searches as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from nases_env.atomic_io import write_atomically
from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.paths import require_distinct
from nases_env.report import render
from nases_env.search.latency import with_latencies
from nases_env.search.run_dir import REPORT
from nases_env.search.run_report import read_run

COMPARISON = Path("comparison.html")
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class ReportArgs:
    """Write a report on a search, or a comparison of several, as one HTML page that needs no other file and no network."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]] = field(
        metadata={"help": "The run directories of one or more searches; a search may be running."}
    )
    output: Path | None = field(
        default=None,
        metadata={"help": f"HTML file to write. Default: {REPORT} in the run directory; for several, {COMPARISON} here."},
    )
    latency: bool = field(
        default=False,
        metadata={
            "help": "Also measure the latency of the best children on the CPU of this machine, with one thread; this reads "
            "the data set, and imports the module of a custom search space or environment."
        },
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "With --latency: directory with the data set. Default: the search's value."}
    )


ARGS = ReportArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases report``."""
    report_command(parse(ReportArgs, prog="nases report", args=options))


def report_command(args: ReportArgs) -> None:
    """Run ``nases report``.

    Raises:
        InputError: if no run directory is given, one is given twice or cannot be read or measured, or the page cannot be
            written.
    """
    if not args.run_dirs:
        raise InputError("no run directory is given; pass one in runs/, or several to compare them")
    require_distinct(args.run_dirs)
    if args.output is not None and args.output.suffix.lower() not in SUFFIXES:
        raise InputError(f"--output must end in {' or '.join(SUFFIXES)}, not {args.output.name}")
    if args.data_dir is not None and not args.latency:
        raise InputError("--data-dir is only for --latency; add --latency, or omit it")
    output = args.output or (args.run_dirs[0] / REPORT if len(args.run_dirs) == 1 else COMPARISON)
    runs = [read_run(path) for path in args.run_dirs]
    if args.latency:
        runs = [with_latencies(run, path, args.data_dir) for run, path in zip(runs, args.run_dirs, strict=True)]
    write_atomically(output, render(runs).encode())
    print(printable(output))
