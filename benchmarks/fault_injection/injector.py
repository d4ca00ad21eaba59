"""What is done to a search from outside, and when: drawn before it begins, from a seeded generator."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.fault_injection.control_dir import TOKENS
from benchmarks.fault_injection.search_process import SearchProcess

SEARCH_KILL = "search_kill"
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
FAULTS = (*SIGNALS, *TOKENS)
"""What may happen to a worker: it is killed or stopped from outside, or follows a token."""

SHARE_AT_START = 0.25
"""Of the kills of a search, those that meet it while it starts again after another."""

START_SECONDS = 6.0
"""Such a kill comes within this time, in which a search imports, replays what it knows and starts its workers."""

PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.01


class Event(NamedTuple):
    """Something that is done to a search.

    Attributes:
        what: ``SEARCH_KILL`` or one of ``FAULTS``.
        num_children: children that the search must have recorded before.
        pause: seconds to wait then.
        while_starting: whether it may come before a worker has begun a child.
    """

    what: str
    num_children: int
    pause: float
    while_starting: bool = False


class SearchFailed(Exception):  # noqa: N818 - it is the search that failed
    """The search ended by itself, or did nothing for minutes."""


def draw_schedule(
    rng: np.random.Generator, max_children: int, num_kills: int, num_faults: int, max_pause: float
) -> list[Event]:
    """Events in the order in which they are done, each at a random moment of the search.

    Args:
        rng: decides all.
        max_children: the latest that an event may be due is when so many children are recorded.
        num_kills: kills of the search itself.
        num_faults: times of each of ``FAULTS``.
        max_pause: seconds that an event waits at most, once it is due.
    """

    def event(what: str) -> Event:
        return Event(what, int(rng.integers(max_children + 1)), float(rng.uniform(0, max_pause)))

    moments: list[list[Event]] = [[event(fault)] for fault in FAULTS for _ in range(num_faults)]
    kills: list[list[Event]] = []
    for _ in range(num_kills):
        if kills and rng.random() < SHARE_AT_START:
            pause = float(rng.uniform(0, START_SECONDS))
            kills[-1].append(Event(SEARCH_KILL, kills[-1][0].num_children, pause, while_starting=True))
        else:
            kills.append([event(SEARCH_KILL)])
    moments += kills
    order = sorted(rng.permutation(len(moments)), key=lambda index: moments[index][0].num_children)
    return [event for index in order for event in moments[index]]


class Tormentor:
    """Runs a search and does to it what a schedule says.

    The search cannot run away: a child that comes a little after the next event has to wait for it, and the last child for
    all events.

    Args:
        search: the search, not begun.
        keys: those of its children, in the order in which an undisturbed search records them.
        num_ahead: children that the search may record before the next event.
        memory: MiB that a child occupies whose token says so; beyond the limit.
        rng: decides which worker is met.

    Attributes:
        counts: how often each event was done; ``resume``: how often the search was started again; ``while_evaluating``: how
            many of the killed and stopped workers had a child under evaluation.
    """

    def __init__(
        self, search: SearchProcess, keys: Sequence[str], *, num_ahead: int, memory: int, rng: np.random.Generator
    ) -> None:
        self.search = search
        self.counts: Counter[str] = Counter(dict.fromkeys((SEARCH_KILL, "resume", *FAULTS, "while_evaluating"), 0))
        self._first = first_occurrences(keys)
        self._keys = keys
        self._num_ahead = num_ahead
        self._memory = memory
        self._rng = rng
        self._num_entries = 0  # of the children's log when the search was started last

    def run(self, schedule: Sequence[Event], done: Callable[[Event], object] = lambda event: None) -> None:
        """Runs the search to its end.

        Args:
            schedule: as ``draw_schedule`` gives it, no event later than the last child that is new.
            done: is told of each event when it is done.

        Raises:
            SearchFailed: if it ends before its time, with another status than 0, or is stuck.
        """
        if schedule:
            self._hold_after(schedule[0])
        self._start()
        for event in schedule:
            self._hold_after(event)
            self._wait_until(partial(self._is_due, event))
            time.sleep(event.pause)
            self._do(event.what)
            self.counts[event.what] += 1
            done(event)
        self.search.faults.hold(())
        wait_for_end([self.search])

    def _start(self) -> None:
        self._num_entries = len(self.search.faults.entries())
        self.search.start()

    def _is_due(self, event: Event) -> bool:
        if self.search.num_children() < event.num_children:
            return False
        return event.while_starting or len(self.search.faults.entries()) > self._num_entries

    def _hold_after(self, event: Event) -> None:
        index = next((index for index in self._first if index >= event.num_children + self._num_ahead), self._first[-1])
        self.search.faults.hold((self._keys[index], self._keys[self._first[-1]]))

    def _do(self, what: str) -> None:
        if what == SEARCH_KILL:
            if not self.search.kill():
                raise SearchFailed(_describe_end(self.search))
            self._start()
            self.counts["resume"] += 1
        elif what in SIGNALS:
            self._wait_until(lambda: self._signal_a_worker(what))
        else:
            token = self.search.faults.put(what, str(self._memory))
            self._wait_until(lambda: not token.exists())

    def _signal_a_worker(self, what: str) -> bool:
        """Signals a random worker; False where there is none.

        One that is stopped must have evaluated a child: no time limit of a child's holds while a worker starts.
        """
        last = {entry.pid: entry.what for entry in self.search.faults.entries()}
        workers = sorted(self.search.workers(), key=lambda worker: worker.pid)
        if what == "stop":
            workers = [worker for worker in workers if worker.pid in last and not _is_stopped(worker)]
        if not workers:
            return False
        worker = workers[self._rng.integers(len(workers))]
        try:
            worker.send_signal(SIGNALS[what])
        except psutil.NoSuchProcess:
            return False
        self.counts["while_evaluating"] += last.get(worker.pid) == "begun"
        return True

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if not self.search.is_running:
                raise SearchFailed(_describe_end(self.search))
            if time.monotonic() > deadline:
                raise SearchFailed(f"stuck for {PATIENCE_SECONDS:g} s, after {self.search.num_children()} children")
            time.sleep(_POLL_SECONDS)


def first_occurrences(keys: Sequence[str]) -> list[int]:
    """The indices of those ``keys`` that have not come before."""
    first: dict[str, int] = {}
    return [index for index, key in enumerate(keys) if first.setdefault(key, index) == index]


def wait_for_end(searches: Sequence[SearchProcess]) -> None:
    """Waits until ``searches``, which have been started, have ended.

    Raises:
        SearchFailed: if one ends with another status than 0, or does nothing for minutes.
    """
    for search in searches:
        num_children, deadline = -1, 0.0
        while search.is_running:
            if (now := search.num_children()) != num_children:
                num_children, deadline = now, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                raise SearchFailed(f"stuck for {PATIENCE_SECONDS:g} s, after {num_children} children")
            time.sleep(_POLL_SECONDS)
        if search.exit_status != 0:
            raise SearchFailed(_describe_end(search))


def _describe_end(search: SearchProcess) -> str:
    return f"ended by itself with status {search.exit_status} after {search.num_children()} children; see {search.output}"


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return True
