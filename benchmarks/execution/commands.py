"""Seconds and peak memory of the commands that read a search with many children."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.common.interleave import Measurements, interleave
from benchmarks.execution.resume import make_run_dirs
from nases_env.search.run_dir import STORE

MIB = 2**20

RUNNER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([status, seconds, usage.ru_utime + usage.ru_stime, peak]))
"""
"""Runs a command from a small process, since the peak memory of a process includes that of the process which starts it."""


def measure(
    folder: Path, *, num_rows: tuple[int, ...], num_searched: int, num_repeats: int, seed: int
) -> dict[str, Measurements]:
    """Measure each command, including the start of Python and its imports.

    Args:
        folder: the folder for the run directories.
        num_rows: numbers of recorded children.
        num_searched: number of recorded children that a search evaluates; see ``make_run_dir``.
        num_repeats: number of measurements of each command.
        seed: seed of the searches.

    Returns:
        The measurements by command and number of children.
    """
    variants = {}
    for number, run_dir in make_run_dirs(folder, num_rows, num_searched, seed).items():
        for name, options in commands(run_dir).items():
            variants[f"{name}, {number:,}"] = partial(run, options, run_dir)
    return interleave(variants, num_repeats)


def commands(run_dir: Path) -> dict[str, list[str]]:
    """Return the options of each command that reads the search in ``run_dir``."""
    store = str(run_dir / STORE)
    return {
        "status": ["status", str(run_dir)],
        "report": ["report", str(run_dir)],
        "store ls": ["store", "ls", store],
        "store export": ["store", "export", store, "--output", str(run_dir / "export.csv")],
        "store merge": ["store", "merge", str(run_dir / "merged.sqlite"), store],
        "store verify": ["store", "verify", store],
    }


def run(options: list[str], run_dir: Path) -> dict[str, float]:
    """Run ``nases`` with ``options`` and return its seconds and its peak memory."""
    (run_dir / "merged.sqlite").unlink(missing_ok=True)
    command = [sys.executable, "-c", RUNNER, sys.executable, "-m", "nases_env", *options]
    status, seconds, cpu_seconds, peak = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if status != 0:
        raise RuntimeError(f"nases {' '.join(options)} ended with status {status}")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak / MIB}
