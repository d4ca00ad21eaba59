"""Commands of the project in forked processes of this one, which saves the time of their imports."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from agents import random_search
from nases_env.cli import main as cli
from nases_env.search import run_search

PRELOADED = (
    *(f"nases_env.cli.{name}" for name in ("pretrain", "reproduce", "status", "store", "train", "validate")),
    *("torch._dynamo", "torch.utils.tensorboard", "scipy.stats", "rich.markdown", "fontTools.subset"),
    *(f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")),
)
"""Modules that commands import on demand; they are imported in this process, which takes seconds."""

COMMANDS: dict[str, Callable[[], None]] = {
    "nases": cli.main,
    "random_search": partial(run_search, random_search.Args, random_search.main),
}
"""The main function of each command, by the first word of its command line."""

TIMEOUT_SECONDS = 300.0

FILE_EVENTS = (
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.listdir", "os.scandir"),
    "sqlite3.connect",
)
"""Audit events of Python that count as operations on files if the path is in the folder of the campaign."""

LOCK_EVENT = "fcntl.flock"
"""The audit event of a lock, which counts too."""

_fork = multiprocessing.get_context("fork")


def kill_at(operation: int, number: int) -> None:
    """Kill this process with SIGKILL if ``number`` is ``operation``."""
    if number == operation:
        os.kill(os.getpid(), signal.SIGKILL)


class ForkedCommand:
    """A command in a forked process, which is the leader of a new session.

    Args:
        words: the command line; the first word is a name in ``COMMANDS``.
        root: the folder of the campaign.
        logs: an existing directory for its standard output and standard error.
        temporary_dir: its directory for temporary files.
        delay: seconds to wait before the command starts.
        before_operation: called in the process before each operation on files, with the number of the operation.
    """

    def __init__(
        self,
        words: Sequence[str],
        root: Path,
        logs: Path,
        temporary_dir: Path,
        *,
        delay: float = 0.0,
        before_operation: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.words = tuple(words)
        self._outputs = [logs / f"{name}.log" for name in ("stdout", "stderr")]
        self._num_operations = RawValue("q", 0)
        for name in PRELOADED:
            importlib.import_module(name)
        tqdm.monitor_interval = 0  # a process with a second thread cannot be forked safely
        torch.set_num_threads(1)
        hook = partial(_on_event, str(root), before_operation, self._num_operations)
        self._process = _fork.Process(target=_run, args=(self.words, self._outputs, temporary_dir, delay, hook))
        self._process.start()

    @property
    def session(self) -> int:
        """The session of the process and its descendants."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def num_operations(self) -> int:
        """Number of operations on files so far."""
        return int(self._num_operations.value)

    @property
    def output(self) -> str:
        """What the command has written to standard output so far."""
        return self._outputs[0].read_text(errors="replace")

    @property
    def errors(self) -> str:
        """What the command has written to standard error so far."""
        return self._outputs[1].read_text(errors="replace")

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int | None:
        """Wait until the process has ended and return its exit status; None if it is still running."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self, *, whole_session: bool = False) -> None:
        """Kill the process with SIGKILL, and its descendants if ``whole_session`` is set."""
        if whole_session and self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.session, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def _run(
    words: Sequence[str],
    outputs: Sequence[Path],
    temporary_dir: Path,
    delay: float,
    hook: Callable[[str, tuple[Any, ...]], None],
) -> None:
    os.setsid()
    for descriptor, (name, path) in enumerate(zip(("stdout", "stderr"), outputs, strict=True), start=1):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), descriptor)
        stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a standard stream
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ["TMPDIR"] = str(temporary_dir)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(outputs[0].parent)  # torch leaves files there
    tempfile.tempdir = None  # read again from the environment
    time.sleep(delay)
    sys.addaudithook(hook)
    sys.argv = [*words]
    COMMANDS[words[0]]()


def _on_event(
    root: str, before_operation: Callable[[int], None], num_operations: Any, event: str, arguments: tuple[Any, ...]
) -> None:
    """Count an operation on files, and call ``before_operation``."""
    if event == LOCK_EVENT or (event in FILE_EVENTS and root in str(arguments[0])):
        num_operations.value += 1
        before_operation(num_operations.value)


def running(sessions: Collection[int]) -> list[psutil.Process]:
    """Return the processes of ``sessions`` that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def find_processes(sessions: Collection[int], seconds: float) -> list[str]:
    """Return the processes of ``sessions`` that are still running after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (found := running(sessions)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {process.pid} is still running" for process in found]


def find_leftovers(folder: Path, temporary_dir: Path) -> list[str]:
    """Return the temporary files in ``folder``, such as incomplete files and logs of stores, and in ``temporary_dir``."""
    names = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.startswith((".", "checkpoint")) or path.name.endswith(("-wal", "-shm", "-journal"))
    ]
    return [f"{name} was left in {folder.name}" for name in sorted(names)] + [
        f"{path.name} was left in the temporary directory" for path in temporary_dir.iterdir()
    ]


def describe_failure(command: ForkedCommand, status: int | None, refusals: Collection[str] = ()) -> list[str]:
    """Return what is wrong with the end of ``command``.

    Args:
        command: a command that was not killed.
        status: its exit status; None if it has not ended.
        refusals: regular expressions of errors that are allowed, each one line with status 2.
    """
    errors = [line for line in command.errors.splitlines() if line.startswith("error: ")]
    text = f"{command.output}{command.errors}"
    if status == 0 and "Traceback" not in text and not errors:
        return []
    if status == 2 and "Traceback" not in text and len(errors) == 1 and matches(errors[0], refusals):
        return []
    last = [line for line in text.splitlines() if line.strip()][-1:]
    return [f"{' '.join(command.words)}: status {status}, {''.join(errors or last)}"]


def matches(error: str, refusals: Collection[str]) -> bool:
    """Return whether one of the texts ``refusals`` is part of ``error``."""
    return any(refusal in error for refusal in refusals)
