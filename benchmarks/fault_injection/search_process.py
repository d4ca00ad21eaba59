"""A search started from the command line, with all of its descendant processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen

import psutil

import nases_env
from benchmarks.fault_injection.control_dir import CONTROL_DIR_VARIABLE, ControlDir
from nases_env.search.run_dir import CONFIG, STORE, TRAJECTORY

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "agents"
WORKER = str(Path(nases_env.__file__).parent / "execution" / "process_worker_main.py")
MARKER_VARIABLE = "NASES_FAULT_MARKER"

_KILL_SECONDS = 5.0


class SearchProcess:
    """A search with a separate run directory, temporary directory and marker.

    All processes of the search, including its workers, have the marker in their environment. Only processes with the marker
    are signaled.

    Args:
        agent: name of a file in ``agents``, without suffix.
        options: command-line options of the agent, without the run directory.
        folder: a new directory for all files of the search.
        control: control directory of its children; several searches may share one.
        store: path of the store; the default is a file in the run directory.
    """

    def __init__(
        self, agent: str, options: Sequence[str], folder: Path, control: ControlDir, store: Path | None = None
    ) -> None:
        self.run_dir = folder / "run"
        self.temporary_dir = folder / "tmp"
        self.output = folder / "output.log"
        self.control = control
        self.store = store or self.run_dir / STORE
        self.exit_status: int | None = None
        self._command = [sys.executable, str(AGENTS / f"{agent}.py")]
        self._options = [*options, *(() if store is None else ("--store", str(store)))]
        self._marker = uuid.uuid4().hex
        self._folder = folder
        self._process: Popen[bytes] | None = None
        self.temporary_dir.mkdir(parents=True)

    def start(self) -> None:
        """Start the search, or resume it if it has been started before."""
        is_started = (self.run_dir / CONFIG).exists()
        options = ["--resume", str(self.run_dir)] if is_started else [*self._options, "--run-dir", str(self.run_dir)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "TMPDIR": str(self.temporary_dir.absolute()),
            "TORCHINDUCTOR_CACHE_DIR": str((self._folder / "torch").absolute()),  # torch leaves files there
            CONTROL_DIR_VARIABLE: str(self.control.path.absolute()),
            MARKER_VARIABLE: self._marker,
        }
        self.exit_status = None
        with open(self.output, "ab") as output:
            self._process = Popen(
                [*self._command, *options],
                env=environment,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the benchmark, which kills the search
            )

    @property
    def is_running(self) -> bool:
        """Whether the main process of the search runs; after it has exited, ``exit_status`` is set."""
        if self._process is not None and self._process.poll() is not None:
            self.exit_status = self._process.returncode
            self._process = None
        return self._process is not None

    def kill(self) -> bool:
        """Kill the main process of the search with SIGKILL; return False if it had exited before."""
        if not self.is_running:
            return False
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self.exit_status = self._process.wait()
        self._process = None
        return self.exit_status == -signal.SIGKILL

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes of the search, including those that are still starting."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child for child in children if self._is_marked(child) and WORKER in _command_line(child)]
        return []

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of the search."""
        return [process for process in psutil.process_iter() if self._is_marked(process)]

    def kill_all(self) -> None:
        """Kill all running processes of the search."""
        self.kill()
        deadline = time.monotonic() + _KILL_SECONDS
        while (running := self.processes()) and time.monotonic() < deadline:
            for process in running:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(running, timeout=1)

    def num_children(self) -> int:
        """Return the number of children that the search has recorded."""
        trajectory = self.run_dir / TRAJECTORY
        return trajectory.read_bytes().count(b"\n") if trajectory.exists() else 0

    def _is_marked(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            return bool(process.environ().get(MARKER_VARIABLE) == self._marker)
        return False


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        command_line: list[str] = process.cmdline()
        return command_line
    return []
