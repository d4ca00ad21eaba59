"""Worker processes and jobs that the server of ``tests/processes.py`` forks, which saves the time of their imports.

Each is a real process, which runs the same program as one that is started as a new interpreter; other tests do that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch

from nases_env.execution import process_worker_main
from tests.processes import processes

_LOCK = threading.Lock()  # multiprocessing reads the exit status of a process when another one starts


class _Forked:
    """A forked process, with a part of the interface of ``subprocess.Popen``."""

    def __init__(self, main: Callable[..., None], *args: Any) -> None:
        self._process: Any
        with _LOCK:
            self._process = processes.Process(target=main, args=args, daemon=True)
            self._process.start()
        self.pid: int = self._process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            with _LOCK:
                self.returncode = self._process.exitcode
                if self.returncode is not None:
                    self._process.close()
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkedWorker(_Forked):
    """Replaces ``subprocess.Popen`` in ``process_worker.py``."""

    def __init__(self, command: list[str], *, stdout: BinaryIO, env: Mapping[str, str], cwd: str, **_: Any) -> None:
        descriptors = [Connection(os.dup(descriptor)) for descriptor in (int(command[-2]), stdout.fileno())]
        super().__init__(_run_worker, *descriptors, dict(env), cwd)
        for descriptor in descriptors:
            descriptor.close()
        with contextlib.suppress(ProcessLookupError):
            while os.getpgid(self.pid) != self.pid:  # as with start_new_session
                time.sleep(0.001)


def _run_worker(
    connection: Connection[Any, Any], log: Connection[Any, Any], environment: dict[str, str], directory: str
) -> None:
    os.setsid()
    _prepare(environment, log.fileno(), log.fileno())
    os.chdir(directory)
    sys.argv = ["process_worker_main.py", str(connection.fileno()), str(os.getppid())]
    process_worker_main.main()


def start_job(folder: Path, **_: Any) -> _Forked:
    """Replace the function of submitit that starts a process, which starts and controls the job."""
    return _Forked(_run_job, Path(folder), dict(os.environ))


def _run_job(folder: Path, environment: dict[str, str]) -> None:
    from submitit.core.submission import submitit_main
    from submitit.core.utils import JobPaths

    paths = JobPaths(folder, str(os.getpid()), 0)
    job = {"JOB_ID": str(os.getpid()), "LOCALID": "0", "GLOBALID": "0", "NODEID": "0", "NTASKS": "1", "JOB_NUM_NODES": "1"}
    variables = {"SUBMITIT_EXECUTOR": "local", **{f"SUBMITIT_LOCAL_{name}": value for name, value in job.items()}}
    with open(paths.stdout, "ab") as out, open(paths.stderr, "ab") as err:
        _prepare({**environment, **variables}, out.fileno(), err.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["_submit.py", str(folder)]
    submitit_main()


def _prepare(environment: dict[str, str], out: int, err: int) -> None:
    """Set what a new interpreter would have: the environment variables and the standard streams."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    for standard, descriptor in ((1, out), (2, err)):
        os.dup2(descriptor, standard)


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Fork the worker processes that are started from now on."""
    forkserver.ensure_running()  # before a test counts its processes and files
    patch.setattr("nases_env.execution.process_worker.subprocess", SimpleNamespace(Popen=ForkedWorker, DEVNULL=None))


def fork_jobs(patch: pytest.MonkeyPatch) -> None:
    """Fork the jobs of submitit's local executor, without the process that controls each of them."""
    patch.setattr("submitit.local.local.start_controller", start_job)
