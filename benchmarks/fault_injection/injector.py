"""The fault injector: it runs a search and injects faults at random moments, drawn in advance from a seeded generator."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.fault_injection.control_dir import FAULT_REQUESTS
from benchmarks.fault_injection.search_process import SearchProcess

SEARCH_KILL = "search_kill"
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
FAULTS = (*SIGNALS, *FAULT_REQUESTS)
"""Faults of workers: signals sent by the injector, and faults that a child injects on request."""

STARTUP_KILL_SHARE = 0.25
"""Share of the kills of a search that happen during the restart after the previous kill."""

STARTUP_SECONDS = 6.0
"""Such a kill happens within this time, in which a search imports, replays its trajectory and starts its workers."""

TIMEOUT_SECONDS = 300.0
_POLL_SECONDS, _END_POLL_SECONDS = 0.01, 0.1


class Event(NamedTuple):
    """A scheduled fault.

    Attributes:
        kind: ``SEARCH_KILL`` or one of ``FAULTS``.
        num_children: the event is due when the search has recorded this number of children.
        pause: seconds to wait after the event is due.
        during_startup: whether the event may be due before a worker has started a child.
    """

    kind: str
    num_children: int
    pause: float
    during_startup: bool = False


class SearchFailed(Exception):  # noqa: N818 - the search failed, not the injector
    """The search exited unexpectedly, or made no progress until the timeout."""


def draw_schedule(
    rng: np.random.Generator, max_children: int, num_kills: int, num_faults: int, max_pause: float
) -> list[Event]:
    """Draw the events, each at a random moment of the search, and return them in order.

    Args:
        rng: generator of all random numbers.
        max_children: maximum of ``Event.num_children``.
        num_kills: number of kills of the search itself.
        num_faults: number of times that each of ``FAULTS`` is injected.
        max_pause: maximum of ``Event.pause`` in seconds, except for kills during a restart.
    """

    def event(kind: str) -> Event:
        return Event(kind, int(rng.integers(max_children + 1)), float(rng.uniform(0, max_pause)))

    moments: list[list[Event]] = [[event(fault)] for fault in FAULTS for _ in range(num_faults)]
    kills: list[list[Event]] = []
    for _ in range(num_kills):
        if kills and rng.random() < STARTUP_KILL_SHARE:
            pause = float(rng.uniform(0, STARTUP_SECONDS))
            kills[-1].append(Event(SEARCH_KILL, kills[-1][0].num_children, pause, during_startup=True))
        else:
            kills.append([event(SEARCH_KILL)])
    moments += kills
    order = sorted(rng.permutation(len(moments)), key=lambda index: moments[index][0].num_children)
    return [event for index in order for event in moments[index]]


class FaultInjector:
    """Runs a search and injects the faults of a schedule.

    The search cannot finish before the schedule: a child shortly after the next event waits for that event, and the last
    child waits for all events.

    Args:
        search: the search, not started yet.
        keys: keys of its children, in the order of the reference trajectory.
        num_ahead: number of children that the search may record before the next event.
        memory: MiB that a child allocates for the fault ``memory``; more than the memory limit.
        rng: selects the worker that receives a signal.

    Attributes:
        counts: number of injected faults of each kind; ``resume``: number of times that the search was resumed;
            ``while_evaluating``: number of killed and stopped workers that were evaluating a child.
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
        self._num_entries = 0  # length of the children's log at the last start of the search

    def run(self, schedule: Sequence[Event], on_event: Callable[[Event], object] = lambda event: None) -> None:
        """Run the search to its end.

        Args:
            schedule: as returned by ``draw_schedule``; no event may be later than the last child with a new key.
            on_event: called after each event.

        Raises:
            SearchFailed: if the search exits early or with a nonzero status, or makes no progress until the timeout.
        """
        if schedule:
            self._hold_after(schedule[0])
        self._start()
        for event in schedule:
            self._hold_after(event)
            self._wait_until(partial(self._is_due, event))
            time.sleep(event.pause)
            self._inject(event.kind)
            self.counts[event.kind] += 1
            on_event(event)
        self.search.control.hold(())
        wait_for_end([self.search])

    def _start(self) -> None:
        self._num_entries = len(self.search.control.entries())
        self.search.start()

    def _is_due(self, event: Event) -> bool:
        if self.search.num_children() < event.num_children:
            return False
        return event.during_startup or len(self.search.control.entries()) > self._num_entries

    def _hold_after(self, event: Event) -> None:
        index = next((index for index in self._first if index >= event.num_children + self._num_ahead), self._first[-1])
        self.search.control.hold((self._keys[index], self._keys[self._first[-1]]))

    def _inject(self, kind: str) -> None:
        if kind == SEARCH_KILL:
            if not self.search.kill():
                raise SearchFailed(_describe_exit(self.search))
            self._start()
            self.counts["resume"] += 1
        elif kind in SIGNALS:
            self._wait_until(lambda: self._signal_worker(kind))
        else:
            request = self.search.control.request(kind, str(self._memory))
            self._wait_until(lambda: not request.exists())

    def _signal_worker(self, kind: str) -> bool:
        """Send a signal to a random worker; return False if there is none.

        Only workers that have started a child are stopped, because the time limit of a child does not apply while a worker
        starts.
        """
        last = {entry.pid: entry.event for entry in self.search.control.entries()}
        workers = sorted(self.search.workers(), key=lambda worker: worker.pid)
        if kind == "stop":
            workers = [worker for worker in workers if worker.pid in last and not _is_stopped(worker)]
        if not workers:
            return False
        worker = workers[self._rng.integers(len(workers))]
        try:
            worker.send_signal(SIGNALS[kind])
        except psutil.NoSuchProcess:
            return False
        self.counts["while_evaluating"] += last.get(worker.pid) == "started"
        return True

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            if not self.search.is_running:
                raise SearchFailed(_describe_exit(self.search))
            if time.monotonic() > deadline:
                raise SearchFailed(f"stuck for {TIMEOUT_SECONDS:g} s, after {self.search.num_children()} children")
            time.sleep(_POLL_SECONDS)


def first_occurrences(keys: Sequence[str]) -> list[int]:
    """Return the indices at which each distinct key of ``keys`` occurs for the first time."""
    first: dict[str, int] = {}
    return [index for index, key in enumerate(keys) if first.setdefault(key, index) == index]


def wait_for_end(searches: Sequence[SearchProcess]) -> None:
    """Wait until all of ``searches``, which have been started, have ended.

    Raises:
        SearchFailed: if one exits with a nonzero status, or makes no progress until the timeout.
    """
    for search in searches:
        num_children, deadline = -1, 0.0
        while search.is_running:
            if (now := search.num_children()) != num_children:
                num_children, deadline = now, time.monotonic() + TIMEOUT_SECONDS
            if time.monotonic() > deadline:
                raise SearchFailed(f"stuck for {TIMEOUT_SECONDS:g} s, after {num_children} children")
            time.sleep(_END_POLL_SECONDS)
        if search.exit_status != 0:
            raise SearchFailed(_describe_exit(search))


def _describe_exit(search: SearchProcess) -> str:
    return f"exited with status {search.exit_status} after {search.num_children()} children; see {search.output}"


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return True
