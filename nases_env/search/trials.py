"""The trials of a search: one evaluation each, and the best ones."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from nases_env.envs import Action
from nases_env.evaluation import UNEVALUATED, Evaluation
from nases_env.search_spaces import Architecture


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation in the history of a search: of a new child, or of a promoted child at a higher rung.

    Attributes:
        number: position in the history; 1 for the first trial.
        architecture: the architecture of the child.
        evaluation: the evaluation of the child.
        action: the action that decodes to the architecture, shape (n,); None without one.
        is_new: whether this is the first trial of the architecture in this search, or the first one at this rung.
        is_promotion: whether this is a child that was promoted to a higher rung, which does not count toward the budget.
    """

    number: int
    architecture: Architecture
    evaluation: Evaluation
    action: Action | None = None
    is_new: bool = True
    is_promotion: bool = False


@dataclass(frozen=True)
class Finalist:
    """One of the best children of a search, evaluated a second time with another seed.

    Attributes:
        trial: its best trial. Its reward is biased upward, because the trial was selected by it.
        second: the second evaluation.
    """

    trial: Trial
    second: Evaluation

    @property
    def is_confirmed(self) -> bool:
        """Whether the second evaluation is a result; False if no attempt could evaluate the child."""
        return self.second.status not in UNEVALUATED

    @property
    def mean_reward(self) -> float:
        """The mean reward of both evaluations, by which the best child is chosen; the second one if their rungs differ.

        If the child could not be evaluated again, it is the first reward. Such a child is chosen only if this is true of all
        finalists.
        """
        first, second = self.trial.evaluation, self.second
        if not self.is_confirmed:
            return first.reward
        return (first.reward + second.reward) / 2 if first.fidelity == second.fidelity else second.reward


class Ranking:
    """The best trial of each of the best architectures of a search. Its memory does not depend on the number of trials.

    Args:
        size: number of architectures, at least 1.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: dict[str, Trial] = {}  # by key of the architecture
        self._last: Trial | None = None  # the worst of them, if there are ``size``

    def add(self, trial: Trial) -> bool:
        """Add a trial, which is later than those added before. Return whether it is one of the best ones."""
        rank = trial.evaluation.rank
        if self._last is not None and rank <= self._last.evaluation.rank:
            return False
        key = trial.architecture.key
        known = self._best.get(key)
        if known is not None and rank <= known.evaluation.rank:
            return False
        if known is None and self._last is not None:
            del self._best[self._last.architecture.key]
        self._best[key] = trial
        if len(self._best) == self._size:
            self._last = self.trials()[-1]
        return True

    def trials(self) -> list[Trial]:
        """Return the trials, best first; of equal ones, the first."""
        return sorted(self._best.values(), key=lambda trial: (trial.evaluation.rank, -trial.number), reverse=True)


class SeenChildren:
    """The children of a search; keeps 8 bytes for each recorded child, because there may be a million.

    Children are compared by a hash of 64 bits: two of a million have the same one with a probability of 3e-8.
    """

    def __init__(self) -> None:
        self._unsorted = array("q")
        self._recorded = np.array([], dtype=np.int64)  # sorted
        self._new: set[int] = set()

    def add_recorded(self, key: str, fidelity: int | None) -> None:
        """Add a child that a resumed search repeats."""
        self._unsorted.append(hash((key, fidelity)))

    def add(self, key: str, fidelity: int | None) -> bool:
        """Add a child, and return whether it is new."""
        if self._unsorted:
            self._recorded = np.sort(np.concatenate([self._recorded, np.array(self._unsorted, dtype=np.int64)]))
            self._unsorted = array("q")
        child = hash((key, fidelity))
        index = np.searchsorted(self._recorded, child)
        if child in self._new or child in self._recorded[index : index + 1]:
            return False
        self._new.add(child)
        return True
