"""Search spaces whose children fail on request. They derive from ENAS micro, so the built-in embedding fits them."""

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

from benchmarks.fault_injection.control_dir import CONTROL_DIR_VARIABLE, ControlDir
from nases_env.evaluation.query import queried_first
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.enas_micro import EnasMicro

QUERY_SECONDS = 0.05
OPERATOR = "sep_conv_3x3"
KEY_WEIGHT = 0.1  # share of the accuracy that depends on the key: all accuracies differ, so mixed-up results are detected

_POLL_SECONDS = 0.02
_STEP_MIB = 16
_STEP_SECONDS = 0.01
_HANG_SECONDS = 600.0
_JUNK_BYTES = 65536


class ToySpace(EnasMicro):
    """Children that take 50 ms; the accuracy is the share of one operator plus a small term from a hash of the key."""

    def query(self, architecture: Architecture) -> float:
        if architecture.key == queried_first(self).key:  # also in the process of the search
            return 0.0
        control = start_child(architecture)
        time.sleep(QUERY_SECONDS)
        operators = [branch.operator for graph in self.cell_graphs(architecture) for node in graph.nodes for branch in node]
        of_key = int.from_bytes(hashlib.sha256(architecture.key.encode()).digest()[:4], "big") / 2**32
        accuracy = (1 - KEY_WEIGHT) * operators.count(OPERATOR) / len(operators) + KEY_WEIGHT * of_key
        control.log("completed", architecture.key)
        return accuracy


class TrainedSpace(EnasMicro):
    """Children that are trained; a child counts as completed when its network is freed, at the end of the evaluation."""

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        control = start_child(architecture)
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)
        weakref.finalize(network, control.log, "completed", architecture.key).atexit = False
        return network


def start_child(architecture: Architecture) -> ControlDir:
    """Log the start of a child, inject a requested fault, and wait while the child is held."""
    control = ControlDir(Path(os.environ[CONTROL_DIR_VARIABLE]))
    control.log("started", architecture.key)
    inject_requested_fault(control)
    while control.is_held(architecture.key):
        time.sleep(_POLL_SECONDS)
        inject_requested_fault(control)
    return control


def inject_requested_fault(control: ControlDir) -> None:
    """Take the next fault request, if there is one, and inject the fault into this process."""
    request = control.take_request()
    if request is None:
        return
    fault, content = request
    if fault == "raise":
        raise RuntimeError("raised by a fault request")
    if fault == "memory":
        allocate(int(content))
    elif fault == "exit":
        os._exit(3)
    elif fault == "print":
        sys.stdout.buffer.write(os.urandom(_JUNK_BYTES))
        sys.stdout.flush()
        print("written by a fault request", "\0\r\x1b[2J" * 10, file=sys.stderr)
    else:
        raise AssertionError(fault)


def allocate(num_mib: int) -> None:
    """Allocate ``num_mib`` MiB in small steps, then sleep until this process is killed."""
    held: list[Any] = []
    for _ in range(0, num_mib, _STEP_MIB):
        held.append(np.ones(_STEP_MIB * 2**20, dtype=np.uint8))
        time.sleep(_STEP_SECONDS)
    time.sleep(_HANG_SECONDS)
