"""Search spaces whose children fail on demand. Each is ENAS micro, so that the embedding that ships is theirs too."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.fault_injection.control_dir import FOLDER_VARIABLE, FaultFolder
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.enas_micro import EnasMicro

LOOK_UP_SECONDS = 0.05
OPERATOR = "sep_conv_3x3"
SHARE_OF_KEY = 0.1  # of the accuracy, so that no two networks have the same one and a mix-up is seen

_POLL_SECONDS = 0.02
_STEP_MIB = 16
_STEP_SECONDS = 0.01
_HANG_SECONDS = 600.0
_JUNK_BYTES = 65536


class ToySpace(EnasMicro):
    """Children that take 50 ms; the accuracy is the share of one operator, and a little of the key's digest."""

    def query(self, architecture: Architecture) -> float:
        if not any(architecture.decisions):  # which an evaluator looks up to prepare itself, in the search's process too
            return 0.0
        folder = begin(architecture)
        time.sleep(LOOK_UP_SECONDS)
        operators = [branch.operator for graph in self.cell_graphs(architecture) for node in graph.nodes for branch in node]
        of_key = int.from_bytes(hashlib.sha256(architecture.key.encode()).digest()[:4], "big") / 2**32
        accuracy = (1 - SHARE_OF_KEY) * operators.count(OPERATOR) / len(operators) + SHARE_OF_KEY * of_key
        folder.note("completed", architecture.key)
        return accuracy


class TrainedSpace(EnasMicro):
    """Children that are trained; one is completed when its network is given up, which is when its evaluation ends."""

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        folder = begin(architecture)
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)
        weakref.finalize(network, folder.note, "completed", architecture.key).atexit = False
        return network


def begin(architecture: Architecture) -> FaultFolder:
    """Notes that a child begins, has it meet the fault that waits for one, and holds it as long as it is told to."""
    folder = FaultFolder(Path(os.environ[FOLDER_VARIABLE]))
    folder.note("begun", architecture.key)
    follow(folder)
    while folder.is_held(architecture.key):
        time.sleep(_POLL_SECONDS)
        follow(folder)
    return folder


def follow(folder: FaultFolder) -> None:
    """Does what the next token says, if there is one."""
    token = folder.take()
    if token is None:
        return
    fault, content = token
    if fault == "raise":
        raise RuntimeError("raised by a token")
    if fault == "memory":
        occupy(int(content))
    elif fault == "exit":
        os._exit(3)
    elif fault == "print":
        sys.stdout.buffer.write(os.urandom(_JUNK_BYTES))
        sys.stdout.flush()
        print("written by a token", "\0\r\x1b[2J" * 10, file=sys.stderr)
    else:
        raise AssertionError(fault)


def occupy(num_mib: int) -> None:
    """Occupies memory little by little, and then waits for whoever ends this process."""
    held: list[Any] = []
    for _ in range(0, num_mib, _STEP_MIB):
        held.append(np.ones(_STEP_MIB * 2**20, dtype=np.uint8))
        time.sleep(_STEP_SECONDS)
    time.sleep(_HANG_SECONDS)
