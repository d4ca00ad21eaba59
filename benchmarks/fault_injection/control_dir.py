"""The directory through which the benchmark requests faults from children, and in which children log their progress."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CONTROL_DIR_VARIABLE = "NASES_FAULT_CONTROL_DIR"
"""The environment variable with the path of the control directory, read by children."""

FAULT_REQUESTS = ("raise", "memory", "exit", "print")
"""Faults that a child can inject: raise an exception, exceed the memory limit, exit its process, print random bytes."""


class Entry(NamedTuple):
    """A line of the log.

    Attributes:
        event: ``started`` or ``completed``.
        pid: process id of the worker.
        key: key of the child's architecture.
    """

    event: str
    pid: int
    key: str


class ControlDir:
    """Fault requests, each taken by exactly one child; the keys of children that have to wait; and a log.

    Args:
        path: the directory; created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._requests = path / "requests"
        self._taken = path / "taken"
        self._held = path / "held"
        self._log = path / "log"
        for folder in (self._requests, self._taken):
            folder.mkdir(parents=True, exist_ok=True)

    def request(self, fault: str, content: str = "") -> Path:
        """Request a fault from the next child that polls; the returned file is removed when a child takes the request."""
        number = len(list(self._taken.iterdir()))
        new = self.path / "new"
        new.write_text(content)
        return new.rename(self._requests / f"{number}.{fault}")

    def take_request(self) -> tuple[str, str] | None:
        """Take a request and return its fault and content; None if there is none. Each request is taken only once."""
        for request in self._requests.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another child was faster
                taken = request.rename(self._taken / request.name)
                return taken.suffix[1:], taken.read_text()
        return None

    def hold(self, keys: Iterable[str]) -> None:
        """Make the children with ``keys`` wait when they start, and release all others."""
        new = self.path / "new"
        new.write_text("\n".join(keys))
        new.replace(self._held)

    def is_held(self, key: str) -> bool:
        """Return whether the child with ``key`` has to wait."""
        return self._held.exists() and key in self._held.read_text().split("\n")

    def log(self, event: str, key: str) -> None:
        """Append an entry of this process to the log, unbuffered and in one atomic write."""
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{event} {os.getpid()} {key}\n".encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        """Return all entries of the log so far."""
        if not self._log.exists():
            return []
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [Entry(event, int(pid), key) for event, pid, key in lines]
