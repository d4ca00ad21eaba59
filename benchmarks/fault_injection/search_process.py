"""A search that is started from the command line, and all processes that it starts in turn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil

import nases_env
from benchmarks.fault_injection.control_dir import FOLDER_VARIABLE, FaultFolder
from nases_env.search.run_dir import CONFIG, STORE, TRAJECTORY

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "agents"
WORKER = str(Path(nases_env.__file__).parent / "execution" / "process_worker_main.py")
MARKER_VARIABLE = "NASES_FAULT_CAMPAIGN"

_END_SECONDS = 5.0


class SearchProcess:
    """A search with a run folder, a folder for temporary files and a mark of its own.

    All processes of the search, its workers too, have the mark in their environment; no other is ever touched.

    Args:
        agent: the name of a file in ``agents``.
        options: of the agent's command line, without the run folder.
        folder: a new folder for all that the search writes.
        faults: the folder that its children ask; several searches may share one.
        store: the store, where it is not the run folder's own.
    """

    def __init__(
        self, agent: str, options: Sequence[str], folder: Path, faults: FaultFolder, store: Path | None = None
    ) -> None:
        self.run_dir = folder / "run"
        self.temporary_dir = folder / "tmp"
        self.output = folder / "output.log"
        self.faults = faults
        self.store = store or self.run_dir / STORE
        self.exit_status: int | None = None
        self._command = [sys.executable, str(AGENTS / f"{agent}.py")]
        self._options = [*options, *(() if store is None else ("--store", str(store)))]
        self._marker = uuid.uuid4().hex
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.temporary_dir.mkdir(parents=True)

    def start(self) -> None:
        """Begins the search, or goes on with it where it has been begun."""
        begun = (self.run_dir / CONFIG).exists()
        options = ["--resume", str(self.run_dir)] if begun else [*self._options, "--run-dir", str(self.run_dir)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "TMPDIR": str(self.temporary_dir.absolute()),
            "TORCHINDUCTOR_CACHE_DIR": str((self._folder / "torch").absolute()),  # which torch makes and leaves
            FOLDER_VARIABLE: str(self.faults.path.absolute()),
            MARKER_VARIABLE: self._marker,
        }
        self.exit_status = None
        with open(self.output, "ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that Ctrl-C reaches the campaign alone, which ends the search
            )

    @property
    def is_running(self) -> bool:
        """Whether the process of the search runs; where it has ended by itself, ``exit_status`` says how."""
        if self._process is not None and self._process.poll() is not None:
            self.exit_status = self._process.returncode
            self._process = None
        return self._process is not None

    def kill(self) -> bool:
        """Kills the search's own process at once; False where it had ended before."""
        if not self.is_running:
            return False
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self.exit_status = self._process.wait()
        self._process = None
        return self.exit_status == -signal.SIGKILL

    def workers(self) -> list[psutil.Process]:
        """Its worker processes, those that are starting too."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child for child in children if self._is_marked(child) and WORKER in _command_line(child)]
        return []

    def processes(self) -> list[psutil.Process]:
        """All processes of the search that run."""
        return [process for process in psutil.process_iter() if self._is_marked(process)]

    def end(self) -> None:
        """Kills all that runs."""
        self.kill()
        deadline = time.monotonic() + _END_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)

    def num_children(self) -> int:
        """Children that the search has recorded."""
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
