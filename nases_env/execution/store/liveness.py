"""Leases, and whether their owners are alive."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

UNKNOWN = ""
"""The start time of a process that is hidden."""


@dataclass(frozen=True)
class Lease:
    """The right to evaluate a child.

    Attributes:
        key: the key of the architecture.
        digest: the digest of the evaluator's configuration.
        seed: the seed of the child.
        owner: random name of the ``Store`` that evaluates the child.
        host: the owner's host; the name changes after each boot and differs between containers.
        pid: the owner's process.
        process_start_time: process start time (opaque; see ``process_start_time``).
        heartbeat: counter that is incremented while the owner is alive.
        started: when the evaluation started, in UTC; for display only.
    """

    key: str
    digest: str
    seed: int
    owner: str
    host: str
    pid: int
    process_start_time: str
    heartbeat: int
    started: str

    @property
    def host_name(self) -> str:
        """The name of the host for display."""
        return self.host.partition("/")[0]


class ExpiryDetector:
    """Decides whether the owner of a lease has died.

    On the same host the start time of the owner's process decides. For other hosts, and for hidden processes, this process
    observes the heartbeats with its own monotonic clock, so clocks of different hosts are never compared.

    Args:
        timeout: seconds without a heartbeat after which a lease of another host expires.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._observed_heartbeats: dict[tuple[str, str, int], tuple[str, int, float]] = {}

    def is_expired(self, lease: Lease) -> bool:
        """Return whether the owner of ``lease`` has died."""
        if lease.host == host_identity():
            start_time = process_start_time(lease.pid)
            if start_time != UNKNOWN:
                return start_time != lease.process_start_time
        child = lease.key, lease.digest, lease.seed
        now = time.monotonic()
        owner, heartbeat, since = self._observed_heartbeats.get(child, ("", -1, now))
        if (owner, heartbeat) != (lease.owner, lease.heartbeat):
            self._observed_heartbeats[child] = lease.owner, lease.heartbeat, now
            return False
        return now - since >= self._timeout

    def forget(self, key: str, digest: str, seed: int) -> None:
        """Discard the observations of a child."""
        self._observed_heartbeats.pop((key, digest, seed), None)


@lru_cache
def host_identity() -> str:
    """Return a name of this host that changes after each boot and differs between containers."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{name}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{name}/{uuid.getnode():x}"


def _is_of_another_user(pid: int) -> bool:
    """Return whether a process is running and belongs to another user, whom this one may not send a signal."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):  # the latter in a damaged lease
        pass
    return False


def process_start_time(pid: int) -> str | None:
    """Return the start time of a process of this host as an opaque text; None if it is not running.

    It is ``UNKNOWN`` if the process of another user is hidden (the option ``hidepid`` of ``/proc``). On Linux it is measured
    from boot, because the system clock may be changed while the process runs.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            return UNKNOWN if _is_of_another_user(pid) else None
        return None if fields[0] in "ZX" else fields[19]
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None
