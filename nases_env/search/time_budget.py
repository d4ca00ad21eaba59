"""A limit of the duration of a search."""

from __future__ import annotations

import math
import re
import time
from typing import Annotated

from nases_env.errors import InputError
from nases_env.search.callbacks import SearchCallback
from nases_env.search.loop import SearchLoop
from nases_env.search.trials import Trial
from nases_env.units import option

UNLIMITED_BUDGET = 10**9
"""Children of a search that only its duration limits."""

SECONDS = {"h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> float:
    """Parse a duration such as 90s, 45m, 2h or 1h30m into seconds.

    Raises:
        InputError: if it is not a duration.
    """
    match = re.fullmatch(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", text.strip().lower())
    numbers = match.groups(default="0") if match is not None else ()
    try:
        seconds = sum((float(number) * unit for number, unit in zip(numbers, SECONDS.values(), strict=False)), 0.0)
    except ValueError:  # several points
        seconds = 0.0
    if seconds <= 0:
        raise InputError(f"a duration is written as 90s, 45m, 2h or 1h30m, not {text}")
    return seconds


def format_duration(seconds: float) -> str:
    """Format a duration as ``parse_duration`` reads it, such as 1h30m; rounded to whole seconds, at least 1s."""
    parts = []
    rest = max(1, round(seconds))
    for unit, length in SECONDS.items():
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def format_budget(budget: int, seconds: float | None = None) -> str:
    """Describe the budget of a search: a number of children, a duration, or both."""
    children = "children" if budget >= UNLIMITED_BUDGET else f"{budget} {'child' if budget == 1 else 'children'}"
    return children if seconds is None else f"{children} for {format_duration(seconds)}"


def limited_budget(budget: int) -> int | None:
    """Return ``budget``, or None if only the time of the search is limited."""
    return None if budget >= UNLIMITED_BUDGET else budget


def format_progress(num_children: int, budget: int) -> str:
    """Describe how many children of a budget are evaluated."""
    return f"{num_children} children" if limited_budget(budget) is None else f"{num_children} of {budget} children"


def _parse_option(text: str) -> float:
    try:
        return parse_duration(text)
    except InputError as error:
        raise InputError(f"--time: {error}") from None


Duration = Annotated[float | None, option("DURATION", _parse_option, format_duration)]
"""Type of the option ``--time``: seconds; None: no limit."""


class TimeBudget(SearchCallback):
    """Ends a search early enough that it is finished after about ``seconds``.

    No new children are proposed when the time that is left is needed for the children in flight and for the second
    evaluation of the finalists, assuming that each takes the mean time of the previous ones and that the workers are busy.
    With rungs, the time of a finalist is that of a child at the first rung, multiplied by the ratio of the epochs of the
    last and the first rung.

    Args:
        seconds: the duration, from the first trial that is not a replay.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start = time.monotonic()
        self._seconds_of_children = 0.0
        self._num_children = 0
        self._seconds_at_first_rung = 0.0
        self._num_at_first_rung = 0

    def on_start(self, loop: SearchLoop) -> None:
        self._start = time.monotonic()

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if trial.is_new:
            self._seconds_of_children += trial.evaluation.seconds
            self._num_children += 1
            if loop.env.rungs and trial.evaluation.fidelity == loop.env.rungs[0]:
                self._seconds_at_first_rung += trial.evaluation.seconds
                self._num_at_first_rung += 1
        if is_replayed:
            self._start = time.monotonic()
        else:
            self._end_in_time(loop, loop.num_in_flight + 1)  # with the one that would be proposed next

    def on_wait(self, loop: SearchLoop) -> None:
        if not loop.is_replaying:
            self._end_in_time(loop, max(1, loop.num_in_flight))

    def _end_in_time(self, loop: SearchLoop, num_children: int) -> None:
        elapsed = time.monotonic() - self._start
        per_child = self._seconds_of_children / max(1, self._num_children)
        per_finalist, rungs = per_child, loop.env.rungs
        if rungs:
            per_finalist = self._seconds_at_first_rung / max(1, self._num_at_first_rung) * rungs[-1] / rungs[0]
        num_workers = loop.env.executor.num_workers
        of_children = math.ceil(num_children / num_workers) * per_child
        of_finalists = math.ceil(loop.num_finalists / num_workers) * per_finalist
        if loop.num_children and elapsed + of_children + of_finalists >= self._seconds:
            loop.propose_no_more()
