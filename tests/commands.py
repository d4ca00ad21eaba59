"""Commands as a person types them: in a process of their own, or in this one, which spares the imports of many."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
SECONDS = 300.0  # until a command that hangs fails


def run(*command: str, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``command`` in ``folder``; the word python stands for the interpreter of the tests."""
    return subprocess.run(
        [sys.executable if word == "python" else word for word in command],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=check,
        timeout=SECONDS,
    )


def run_here(main: Callable[[], object], *options: str) -> subprocess.CompletedProcess[str]:
    """Runs ``main`` in this process and the working folder, with ``options`` as its command line."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        mock.patch.dict(os.environ, COLUMNS="120"),
        mock.patch.object(sys, "argv", ["command", *options]),
        mock.patch.object(threading, "excepthook", threading.excepthook),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            gc.unfreeze()  # what the command froze is this process's own
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([*options], status, out.getvalue(), err.getvalue())


def script(path: Path) -> Callable[[], object]:
    """What ``python path`` runs, for ``run_here``."""
    return partial(runpy.run_path, str(path), run_name="__main__")


def module(name: str) -> Callable[[], object]:
    """What ``python -m name`` runs, for ``run_here``."""
    return partial(runpy.run_module, name, run_name="__main__", alter_sys=True)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error with which a command ends that was given wrong input."""
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    assert line.startswith("error: ")
    return line


def run_benchmark(name: str, options: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script of ``benchmarks`` as a person does, at a size that ends in seconds."""
    return run("python", "-m", f"benchmarks.{name}", *options, folder=folder, PYTHONPATH=str(ROOT))
