"""Progress of a long-running command on standard error."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

BAR_WIDTH = 16
MIN_BAR_WIDTH = 5  # a narrower bar is omitted
REFRESH_SECONDS = 1.0  # on a terminal
MIN_SECONDS = 0.1  # between two updates on a terminal
LINE_SECONDS = 60.0  # between two lines without a terminal
DEFAULT_COLUMNS = 80  # of a terminal that does not know its width
RIGHT_MARGIN = 3  # columns that stay free, so that the ^C of an interrupt does not wrap the line


class Progress:
    """Shows the number of finished steps, the elapsed and the remaining time, the rate, and details on standard error.

    On a terminal, one line is updated in place at least every second, so that the elapsed time advances during a long step.
    Otherwise, one line is written every minute and one at the end. Use it as a context manager, or call ``close``.

    Args:
        description: first words of the line.
        total: number of steps; None if it is not known.
        unit: what a step is, in the plural.
        initial: number of steps that were finished before; they do not count for the rate.
        seconds: duration after which the command ends.

    Attributes:
        done: number of finished steps.
        initial: see above.
    """

    def __init__(
        self, description: str, total: int | None, unit: str, *, initial: int = 0, seconds: float = math.inf
    ) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._seconds = seconds
        self.initial = self.done = initial
        self._details: Sequence[str] = ()
        self._stream = sys.stderr
        self._is_terminal = sys.stderr.isatty()
        self._start = self._last_step = time.monotonic()
        self._last_write = -float("inf")
        self._num_shown = 0  # characters in the line of the terminal
        self._lock = threading.Lock()  # of all attributes and of the stream
        self._closed = threading.Event()
        threading.Thread(target=self._refresh, name="progress", daemon=True).start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int, details: Sequence[str] = ()) -> None:
        """Set the number of finished steps and the details; those that do not fit on the line are omitted."""
        with self._lock:
            if done != self.done:
                self.done, self._last_step = done, time.monotonic()
            self._details = details
            if self._is_terminal and time.monotonic() - self._last_write > MIN_SECONDS:
                self._write()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the line from the terminal while the caller prints."""
        with self._lock:
            if self._is_terminal:
                self._print("\r" + self._num_shown * " " + "\r")
                self._num_shown = 0
            yield

    def close(self) -> None:
        """Write the final state; nothing is written afterwards."""
        with self._lock:
            if not self._closed.is_set():
                self._closed.set()
                self._write()
                if self._is_terminal:
                    self._print("\n")

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESH_SECONDS if self._is_terminal else LINE_SECONDS):
            with self._lock:
                if not self._closed.is_set():
                    self._write()

    def _write(self) -> None:
        if self._is_terminal:
            line = self._line(self._num_columns() - RIGHT_MARGIN)
            self._print("\r" + line.ljust(self._num_shown))
            self._num_shown = len(line)
        else:
            elapsed, *others = self._parts()
            self._print(", ".join([f"{self._head()} {self._unit} in {elapsed}", *others]) + "\n")
        self._last_write = time.monotonic()

    def _line(self, width: int) -> str:
        """Return the line for a terminal: as many parts as fit into ``width``, and a bar if there is still room for it."""
        head = self._head()
        text, *others = self._parts()
        for part in others:
            if len(f"{head} {text}, {part}") <= width:
                text += f", {part}"
        bar_width = min(BAR_WIDTH, width - len(f"{head} || {text}"))
        if bar_width >= MIN_BAR_WIDTH:
            filled = "#" * int(bar_width * min(1.0, self._share()))
            head += f" |{filled:<{bar_width}}|"
        return f"{head} {text}"[:width]

    def _share(self) -> float:
        """Return the share of the steps that are finished, or of the time that has passed."""
        of_time = (time.monotonic() - self._start) / self._seconds
        return of_time if self._total is None else max(of_time, self.done / max(1, self._total))

    def _head(self) -> str:
        return f"{self._description}: {self.done}" + ("" if self._total is None else f"/{self._total}")

    def _parts(self) -> list[str]:
        """Return elapsed time, details, remaining time and rate, most important first."""
        now = time.monotonic()
        parts = [tqdm.format_interval(now - self._start), *self._details]
        per_second = (self.done - self.initial) / max(self._last_step - self._start, 1e-9)
        left = self._seconds - (now - self._start)
        if self._total is not None and 0 < self.done < self._total and per_second:
            left = min(left, (self._total - self.done) / per_second - (now - self._last_step))
        if left < math.inf and self.done != self._total:
            parts.append(f"{tqdm.format_interval(max(0.0, left))} left")
        if per_second:
            parts.append(format_rate(per_second))
        return parts

    def _num_columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or DEFAULT_COLUMNS
        except OSError:  # the terminal was closed
            return DEFAULT_COLUMNS

    def _print(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads standard error; this must not end a search
            self._closed.set()


def format_rate(per_second: float) -> str:
    """Format a rate per minute, with two significant digits below 10."""
    per_minute = 60 * per_second
    return f"{per_minute:,.0f} a minute" if per_minute >= 10 else f"{per_minute:.2g} a minute"
