"""An evaluator that fails on request, in a module that worker processes can import, and children to evaluate."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import struct
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, OperatorShareEvaluator
from nases_env.search_spaces import Architecture, get_search_space


@dataclass(frozen=True)
class FaultyEvaluator(OperatorShareEvaluator):
    """An ``OperatorShareEvaluator`` with injected faults; ``device`` of an evaluation is the pid of its process.

    Attributes:
        folder: the folder of the fault requests, files named SEED-NUMBER.FAULT; each is deleted before its fault occurs.
    """

    search_space: str = "nasbench201"
    operator: str = "skip_connect"
    folder: str = "."

    def inject(self, seed: int, *faults: str) -> None:
        """Request ``faults`` for the child with ``seed``, one per attempt."""
        for number, fault in enumerate(faults):
            (Path(self.folder) / f"{seed}-{number}.{fault}").touch()

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        for request in sorted(Path(self.folder).glob(f"{seed}-*"))[:1]:
            request.unlink()
            fail(request.suffix[1:], Path(self.folder) / f"{seed}.pid")
        return replace(super().evaluate(architecture, seed), device=str(os.getpid()))


def fail(fault: str, pid_file: Path) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "raise":
        raise ValueError("no such thing\nas this")
    elif fault == "crash":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    elif fault == "allocate":
        held = [np.ones(2**23) for _ in range(24)]  # 64 MiB each
        time.sleep(600)
        del held
    elif fault == "fork":  # a subprocess that inherits the connection to the parent
        if os.fork() == 0:
            (pid_file.parent / "subprocess").write_text(str(os.getpid()))
            time.sleep(600)
        while not (pid_file.parent / "subprocess").exists():
            time.sleep(0.01)
        os._exit(3)
    elif fault == "cut":  # dies while sending a result
        os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "input_error":
        raise InputError("fix this first")
    elif fault == "write":
        print("written by print")
        ctypes.CDLL(None).puts(b"written by C")
        logging.getLogger("some.library").info("written by logging")
    elif fault == "sleep":
        write_pid(pid_file)
        time.sleep(600)
    elif fault == "freeze":
        write_pid(pid_file)
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise AssertionError(fault)


def write_pid(pid_file: Path) -> None:
    """Write the pid of this process to ``pid_file`` atomically."""
    new = pid_file.with_suffix(".new")
    new.write_text(str(os.getpid()))
    new.rename(pid_file)


def children(num_children: int, space: str = "nasbench201") -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [get_search_space(space).sample(rng) for _ in range(num_children)]
