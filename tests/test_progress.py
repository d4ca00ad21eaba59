"""Progress is a line that is updated in place on a terminal, and a line a minute without one."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import select
import struct
import termios
import threading
import time
from collections.abc import Container

import pytest

from nases_env import progress
from nases_env.progress import Progress


class Terminal:
    """A pseudo-terminal in the place of standard error; a context manager."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def __enter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.columns, 0, 0))
        self.stream = os.fdopen(slave, "w")
        self._redirection = contextlib.redirect_stderr(self.stream)
        self._redirection.__enter__()
        return self

    def read(self) -> str:
        """Return what was written since the last call."""
        self.stream.flush()
        written = b""
        while select.select([self._master], [], [], 0.05)[0]:
            written += os.read(self._master, 100_000)
        return written.decode()

    def read_until(self, end: str) -> str:
        """Return what was written since the last call, as soon as it ends with ``end``; give up after many lines."""
        written = b""
        for _ in range(600):
            if written.endswith(end.encode()) or not select.select([self._master], [], [], 30)[0]:
                break
            written += os.read(self._master, 100_000)
        return written.decode()

    def __exit__(self, *error: object) -> None:
        self._redirection.__exit__(None, None, None)
        self.stream.close()
        os.close(self._master)


def join_new_threads(known: Container[threading.Thread]) -> None:
    """Wait for the end of all threads that are not ``known``, so that they write nothing afterwards."""
    for thread in threading.enumerate():
        if thread not in known:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("columns", [80, 60, 20])
def test_line_fits_into_the_terminal(columns: int) -> None:
    with Terminal(columns) as terminal, Progress("regularized_evolution", 300, "children", initial=100) as shown:
        shown.update(112, ["best 0.8412", "3 failed", "12 in flight", "4 from store"])
        shown.close()
        written = terminal.read()
    assert written.endswith("\r\n")
    lines = written.removesuffix("\r\n").split("\r")
    assert all(len(line) <= columns - len("^C") - 1 for line in lines)
    assert lines[-1].startswith("regularized_evolution: 112/300"[: columns - 3])
    if columns >= 60:
        assert ", best 0.8412" in lines[-1]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "reinforce: 1/4 |####            | 01:00, best 0.8412, 03:00 left, 1 a minute"),
        (74, "reinforce: 1/4 |##         | 01:00, best 0.8412, 03:00 left, 1 a minute"),
        (60, "reinforce: 1/4 01:00, best 0.8412, 03:00 left, 1 a minute"),
        (50, "reinforce: 1/4 01:00, best 0.8412, 03:00 left"),
    ],
)
def test_bar_uses_the_room_that_is_left(columns: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Terminal(columns) as terminal, Progress("reinforce", 4, "children") as shown:
        now = 60.0
        shown.update(1, ["best 0.8412"])
        assert terminal.read().split("\r")[-1] == line


def test_elapsed_time_advances_during_a_step_and_stops_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.05)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = threading.enumerate()
    with Terminal(80) as terminal:
        shown = Progress("reinforce", 4, "children")
        now = 61.0
        line = "\rreinforce: 0/4 |                | 01:01"
        assert terminal.read_until(line).endswith(line)
        shown.close()
        join_new_threads(known)
        assert terminal.read().endswith(line + "\r\n")


def test_hidden_line_leaves_room_for_a_message() -> None:
    with Terminal(80) as terminal, Progress("validate", 4, "children") as shown:
        shown.update(1)
        with shown.hidden():
            terminal.stream.write("a message\n")
            written = terminal.read()
    line = written.split("\r")[1]
    assert written.endswith("\r" + " " * len(line) + "\ra message\r\n")


def test_line_without_a_terminal_is_written_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with contextlib.redirect_stderr(io.StringIO()) as stream, Progress("reinforce", 100, "children", initial=10) as shown:
        now = 30.0
        for done in range(11, 41):
            shown.update(done, ["best 0.8412"])
        assert stream.getvalue() == "", "the minute has not passed"
    assert stream.getvalue() == "reinforce: 40/100 children in 00:30, best 0.8412, 01:00 left, 60 a minute\n"


def test_line_without_a_terminal_is_written_during_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    written = threading.Event()
    stream = io.StringIO()
    monkeypatch.setattr(stream, "flush", written.set)
    with contextlib.redirect_stderr(stream), Progress("reinforce", 100, "children", initial=10) as shown:
        assert written.wait(30)
        shown.update(100, ["best 0.9", "1 failed"])
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("reinforce: 10/100 children in ")
    assert last.startswith("reinforce: 100/100 children in ")
    assert ", best 0.9, 1 failed, " in last
    assert last.endswith(" a minute")
    assert "\r" not in stream.getvalue()


def test_remaining_time_decreases_during_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with contextlib.redirect_stderr(io.StringIO()) as stream, Progress("reinforce", 100, "children") as shown:
        now = 60.0
        shown.update(10)
        now = 90.0
    assert stream.getvalue() == "reinforce: 10/100 children in 01:30, 08:30 left, 10 a minute\n"


def test_broken_standard_error_does_not_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    known = threading.enumerate()
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as stream, contextlib.redirect_stderr(stream):
        with Progress("reinforce", 2, "children") as shown:
            join_new_threads(known)
            shown.update(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)  # so that closing it succeeds
