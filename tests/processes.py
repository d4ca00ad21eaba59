"""Processes that a server with the imports of the package forks, which saves their time: a second for torch alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

TIMEOUT_SECONDS = 300.0

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        *("nases_env.cli.train", "nases_env.execution.store", "nases_env.search", "nases_env.visualization"),
        *("tests.processes", "nases_agents.reinforce", "torch._dynamo", "torch.utils.tensorboard"),
        *(f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")),
    ]
)


class ForkedCommand:
    """A command in a forked process, with the environment variables of this process.

    Args:
        main: the main function of the command; it is pickled.
        options: the command line.
        folder: the working directory.
        prepare: called in the process before the command; it is pickled.
        environment: more environment variables.
    """

    def __init__(
        self,
        main: Callable[[], object],
        *options: str,
        folder: Path,
        prepare: Callable[[], object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._outputs = tempfile.TemporaryDirectory()
        for name in ("stdout", "stderr"):  # they exist even if the process is killed at once
            Path(self._outputs.name, name).touch()
        variables = {**os.environ, "COLUMNS": "120", **(environment or {})}
        arguments = (main, options, folder, prepare, variables, Path(self._outputs.name))
        self._process: Any = processes.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def is_running(self) -> bool:
        return bool(self._process.is_alive())

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait until the command has ended, and return what it has written and its exit status."""
        self._process.join(TIMEOUT_SECONDS)
        assert self._process.exitcode is not None, "the command has not ended"
        out, err = (Path(self._outputs.name, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        self._outputs.cleanup()
        return subprocess.CompletedProcess([], self._process.exitcode, out, err)


def run_forked(main: Callable[[], object], *options: str, folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a forked process; see ``ForkedCommand`` for the arguments."""
    return ForkedCommand(main, *options, folder=folder, **more).wait()


def _run(
    main: Callable[[], object],
    options: tuple[str, ...],
    folder: Path,
    prepare: Callable[[], object] | None,
    variables: dict[str, str],
    outputs: Path,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background processes of a shell
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    torch.set_num_threads(1)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with open(outputs / name, "wb") as file:
            os.dup2(file.fileno(), descriptor)
        stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a standard stream
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["command", *options]
    if prepare is not None:
        prepare()
    main()
