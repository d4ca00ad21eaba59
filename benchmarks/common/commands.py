"""Commands run in this process, which saves the time of the imports."""

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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock


def run_here(main: Callable[[], object], *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``main`` in this process and the working directory, with ``options`` as its command line."""
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
            gc.unfreeze()  # undoes the freeze in nases_env.command_line.run
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([*options], status, out.getvalue(), err.getvalue())


def script(path: Path) -> Callable[[], object]:
    """Return the main function of ``python path``, for ``run_here``."""
    return partial(runpy.run_path, str(path), run_name="__main__")
