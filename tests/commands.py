"""Run commands in a subprocess, or in this process, which saves the time of the imports."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.commands import run_here, script

__all__ = ["ROOT", "error_of", "module", "run", "run_benchmark", "run_here", "script"]

ROOT = Path(__file__).parent.parent
TIMEOUT_SECONDS = 300.0


def run(*command: str, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``; ``python`` is the interpreter of the tests."""
    return subprocess.run(
        [sys.executable if word == "python" else word for word in command],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=check,
        timeout=TIMEOUT_SECONDS,
    )


def module(name: str) -> Callable[[], object]:
    """Return the main function of ``python -m name``, for ``run_here``."""

    def main() -> None:
        with warnings.catch_warnings():
            # The module may have been imported by another test.
            warnings.filterwarnings("ignore", ".*found in sys.modules after import", RuntimeWarning)
            runpy.run_module(name, run_name="__main__", alter_sys=True)

    return main


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error message, a single line, of a command that exited with status 2."""
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    assert line.startswith("error: ")
    return line


def run_benchmark(name: str, options: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of ``benchmarks`` in this process and the directory ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = run_here(module(f"benchmarks.{name}"), *options)
    finally:
        os.chdir(before)
    assert result.returncode == 0, result.stderr
    return result
