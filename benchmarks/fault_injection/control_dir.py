"""The folder through which a campaign has children fail, and in which they say what they did."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FOLDER_VARIABLE = "NASES_FAULT_FOLDER"
"""The environment variable that tells children where the folder is."""

TOKENS = ("raise", "memory", "exit", "print")
"""What a token has a child do: raise an exception, occupy too much memory, end its process, write junk."""


class Entry(NamedTuple):
    """A line of the log: what a child did, in which process, and its architecture's key."""

    what: str
    pid: int
    key: str


class FaultFolder:
    """Tokens, of which each is taken by exactly one child, keys of children that have to wait, and a log.

    Args:
        path: the folder, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokens = path / "tokens"
        self._taken = path / "taken"
        self._held = path / "held"
        self._log = path / "log"
        for folder in (self._tokens, self._taken):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, fault: str, content: str = "") -> Path:
        """Leaves a token for the next child that looks; the file is gone when one has taken it."""
        number = len(list(self._taken.iterdir()))
        new = self.path / "new"
        new.write_text(content)
        return new.rename(self._tokens / f"{number}.{fault}")

    def take(self) -> tuple[str, str] | None:
        """The fault and the content of a token, which no other child gets; None where there is none."""
        for token in self._tokens.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another child was faster
                taken = token.rename(self._taken / token.name)
                return taken.suffix[1:], taken.read_text()
        return None

    def hold(self, keys: Iterable[str]) -> None:
        """Has the children with ``keys``, and no others, wait where they begin."""
        new = self.path / "new"
        new.write_text("\n".join(keys))
        new.replace(self._held)

    def is_held(self, key: str) -> bool:
        """Whether the child with ``key`` has to wait."""
        return self._held.exists() and key in self._held.read_text().split("\n")

    def note(self, what: str, key: str) -> None:
        """Appends an entry of this process to the log: at once, and as a whole."""
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{what} {os.getpid()} {key}\n".encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        """The log so far."""
        if not self._log.exists():
            return []
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [Entry(what, int(pid), key) for what, pid, key in lines]
