"""An evaluator that fails on demand, in a module that worker processes import."""

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
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class FaultyEvaluator(OperatorShareEvaluator):
    """An analytic evaluator that does what tokens tell it to first; its evaluations say in which process they were made.

    Attributes:
        folder: the folder of the tokens, each a file that is called SEED-NUMBER.FAULT and that goes as it is followed.
    """

    search_space: str = "nasbench201"
    operator: str = "skip_connect"
    folder: str = "."

    def break_at(self, seed: int, *faults: str) -> None:
        """Has the child with ``seed`` meet ``faults``, one an attempt."""
        for number, fault in enumerate(faults):
            (Path(self.folder) / f"{seed}-{number}.{fault}").touch()

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        for token in sorted(Path(self.folder).glob(f"{seed}-*"))[:1]:
            token.unlink()
            follow(token.suffix[1:], Path(self.folder) / f"{seed}.pid")
        return replace(super().evaluate(architecture, seed), device=str(os.getpid()))


def follow(fault: str, pid_file: Path) -> None:
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
    elif fault == "fork":  # a grandchild that holds the connection to the parent
        if os.fork() == 0:
            (pid_file.parent / "grandchild").write_text(str(os.getpid()))
            time.sleep(600)
        while not (pid_file.parent / "grandchild").exists():
            time.sleep(0.01)
        os._exit(3)
    elif fault == "cut":  # dies in the middle of its answer
        os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "mend":
        raise InputError("mend this first")
    elif fault == "write":
        print("written by print")
        ctypes.CDLL(None).puts(b"written by C")
        logging.getLogger("some.library").info("written by logging")
    elif fault == "sleep":
        write(pid_file)
        time.sleep(600)
    elif fault == "freeze":
        write(pid_file)
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise AssertionError(fault)


def write(pid_file: Path) -> None:
    """Says in which process this is, in a file that is there as a whole or not at all."""
    new = pid_file.with_suffix(".new")
    new.write_text(str(os.getpid()))
    new.rename(pid_file)
