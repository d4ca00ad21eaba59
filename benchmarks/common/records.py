"""Records of searches: one JSON line per search, written when the search ends, so that a comparison can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nases_env.atomic_io import append_line, write_error
from nases_env.errors import InputError

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """The data of one search that the statistics need.

    Attributes:
        agent: name of the agent.
        seed: seed of the search, the agent, the order of the operators, and the landscape if it is random.
        settings: digest of everything else that determines the result.
        seconds: wall time of the search.
        rewards: reward of each child in [0, 1], in order.
        duplicate_steps: the numbers, from 1, of the children that had been evaluated before.
        incumbent_steps: the numbers, from 1, of the children that were better than all previous ones.
        test_accuracies: test accuracies in [0, 1] of the children at ``incumbent_steps``, read after the search; None if the
            environment has none.
    """

    agent: str
    seed: int
    settings: str
    seconds: float
    rewards: list[float]
    duplicate_steps: list[int]
    incumbent_steps: list[int]
    test_accuracies: list[float] | None

    @classmethod
    def from_json(cls, values: Any) -> Record:
        """Return the record with these values of a JSON object."""
        return cls(**values)

    def reward(self, budgets: Sequence[int]) -> Numbers:
        """Return the best reward of the first n children for each n in ``budgets``; shape (budgets,)."""
        best_so_far: Numbers = np.maximum.accumulate(self.rewards).take(np.asarray(budgets) - 1)
        return best_so_far

    def test_accuracy(self, budgets: Sequence[int]) -> Numbers:
        """Return the test accuracy of the best of the first n children for each n in ``budgets``; shape (budgets,)."""
        assert self.test_accuracies is not None
        return np.asarray(self.test_accuracies)[np.searchsorted(self.incumbent_steps, budgets, side="right") - 1]

    def num_distinct(self, budget: int) -> int:
        """Return the number of distinct children among the first ``budget``."""
        return budget - int(np.searchsorted(self.duplicate_steps, budget, side="right"))


def find_incumbent_steps(rewards: Sequence[float]) -> list[int]:
    """Return the numbers, from 1, of the children that are better than all previous ones; the first always is."""
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(rewards)[:-1]])
    numbers: list[int] = (np.flatnonzero(np.asarray(rewards) > best_before) + 1).tolist()
    return numbers


def find_duplicate_steps(keys: Sequence[str]) -> list[int]:
    """Return the numbers, from 1, of the children whose key occurred before."""
    first: dict[str, int] = {}
    return [number for number, key in enumerate(keys, start=1) if first.setdefault(key, number) < number]


class IsDataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=IsDataclass)


class RecordFile(Generic[R]):
    """The records of a comparison, in a file that consecutive runs append to.

    Args:
        path: the file, with one JSON object per line.
        from_json: makes a record of a parsed line; raises ``ValueError``, ``TypeError`` or ``KeyError`` if it is not one.
    """

    def __init__(self, path: Path, from_json: Callable[[Any], R]) -> None:
        self.path = path
        self.from_json = from_json

    def load(self) -> tuple[list[R], bool]:
        """Return the records, and whether the last line was incomplete; an incomplete line is removed from the file.

        Raises:
            InputError: if the file cannot be read, or a line before the last is not a record.
        """
        if not self.path.exists():
            return [], False
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}; pass another --output") from None
        *lines, incomplete = content.split(b"\n")
        records = [self._parse(line, number) for number, line in enumerate(lines, start=1)]
        if incomplete:
            self._truncate(len(content) - len(incomplete))
        return records, bool(incomplete)

    def append(self, record: R) -> None:
        """Append ``record``; it is on disk when this method returns.

        Raises:
            InputError: if the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        append_line(self.path, json.dumps(dataclasses.asdict(record)))

    def _parse(self, line: bytes, number: int) -> R:
        try:
            return self.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"line {number} of {self.path} is not a record of this benchmark; remove that line, or pass another --output"
            ) from None

    def _truncate(self, size: int) -> None:
        try:
            os.truncate(self.path, size)
        except OSError as error:
            raise write_error(self.path, error) from error
