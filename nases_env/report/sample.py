"""Some of the trials of a search that are enough for a report, whose size they bound."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from nases_env.report.data import OK, Child, is_spaced

MAX_CHILDREN = 50_000  # of those that are evenly spaced
NUM_BEST = 1000  # best architectures
NUM_FAILURES = 20  # last failures

T = TypeVar("T")


class TrialSample(Generic[T]):
    """Keeps trials, each with details: all of them, or those that a report needs if there are more than ``max_children``.

    These are every ``stride``-th trial, from the first one, and in addition all trials that were the best so far, the best
    ``NUM_BEST`` architectures, those that no smaller or faster one surpasses, the last ``NUM_FAILURES`` failures, and
    ``always``.

    Args:
        max_children: largest number of trials that are evenly spaced.
        always: numbers of trials to keep in addition.

    Attributes:
        stride: distance of two trials that are evenly spaced; a power of two.
        best: the best trial; None without a result.
    """

    def __init__(self, max_children: int, always: Collection[int] = ()) -> None:
        self.stride = 1
        self.best: Child | None = None
        self._max_children = max_children
        self._always = frozenset(always)
        self._spaced: list[tuple[Child, T]] = []
        self._others: list[tuple[Child, T]] = []  # the best so far and ``always``
        self._fronts = [_Front[T](lambda child: child.num_params), _Front[T](lambda child: child.seconds)]
        self._architectures = _BestArchitectures[T]()
        self._failures: deque[tuple[Child, T]] = deque(maxlen=NUM_FAILURES)

    def add(self, child: Child, make_details: Callable[[], T]) -> None:
        """Add a trial, which is kept if it is needed; the trials are added in order.

        Args:
            child: the trial.
            make_details: returns its details; called only if the trial is kept.
        """
        places: list[Callable[[tuple[Child, T]], None]] = []
        if is_spaced(child.number, self.stride):
            places.append(self._add_spaced)
        is_best = child.status == OK and (self.best is None or child.rank > self.best.rank)
        if is_best:
            self.best = child
        if is_best or child.number in self._always:
            places.append(self._others.append)
        if child.status == OK:
            groups: list[_Front[T] | _BestArchitectures[T]] = [*self._fronts, self._architectures]
            places += [group.add for group in groups if group.needs(child)]
        else:
            places.append(self._failures.append)
        if places:
            entry = (child, make_details())
            for place in places:
                place(entry)

    def _add_spaced(self, entry: tuple[Child, T]) -> None:
        self._spaced.append(entry)
        if len(self._spaced) > self._max_children:
            self.stride *= 2
            self._spaced = [each for each in self._spaced if is_spaced(each[0].number, self.stride)]

    def kept(self) -> list[tuple[Child, T]]:
        """Return the trials that are kept, in order."""
        groups = (self._others, *(front.entries for front in self._fronts), self._architectures.entries(), self._failures)
        by_number = {entry[0].number: entry for group in (self._spaced, *groups) for entry in group}
        return [by_number[number] for number in sorted(by_number)]


class _Front(Generic[T]):
    """The trials at the highest rung that no cheaper one surpasses, by increasing cost; those without a cost are omitted."""

    def __init__(self, cost: Callable[[Child], float]) -> None:
        self._cost = cost
        self.entries: list[tuple[Child, T]] = []

    def needs(self, child: Child) -> bool:
        if self._cost(child) <= 0:
            return False
        if not self.entries or _rung(child) != _rung(self.entries[0][0]):
            return not self.entries or _rung(child) > _rung(self.entries[0][0])
        place = self._place(child)
        return place == 0 or child.reward > self.entries[place - 1][0].reward

    def add(self, entry: tuple[Child, T]) -> None:
        """Add a trial that ``needs`` accepts, and remove those that it surpasses."""
        child = entry[0]
        if self.entries and _rung(child) > _rung(self.entries[0][0]):
            self.entries = []
        place = self._place(child)
        start, end = place, place
        if place > 0 and self._cost(self.entries[place - 1][0]) == self._cost(child):
            start -= 1
        while end < len(self.entries) and self.entries[end][0].reward <= child.reward:
            end += 1
        self.entries[start:end] = [entry]

    def _place(self, child: Child) -> int:
        return bisect.bisect_right(self.entries, self._cost(child), key=lambda entry: self._cost(entry[0]))


def _rung(child: Child) -> int:
    return child.fidelity or 0


class _BestArchitectures(Generic[T]):
    """The best trial of each of the best ``NUM_BEST`` architectures, and of at most that many others."""

    def __init__(self) -> None:
        self._best: dict[str, tuple[Child, T]] = {}
        self._threshold = (-1, 0.0)  # rank of the worst of them; the first of two equal architectures is better

    def needs(self, child: Child) -> bool:
        known = self._best.get(child.key)
        return child.rank > (self._threshold if known is None else known[0].rank)

    def add(self, entry: tuple[Child, T]) -> None:
        """Add a trial that ``needs`` accepts."""
        self._best[entry[0].key] = entry
        if len(self._best) > 2 * NUM_BEST:
            kept = self.entries()
            self._best = {each[0].key: each for each in kept}
            self._threshold = kept[-1][0].rank

    def entries(self) -> list[tuple[Child, T]]:
        """Return the best trials of the best architectures, the best first."""
        return sorted(self._best.values(), key=_order)[:NUM_BEST]


def _order(entry: tuple[Child, object]) -> tuple[float, ...]:
    child = entry[0]
    return (*(-each for each in child.rank), child.number)
