"""Promotion of the best children to longer training (ASHA)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Proposal


class SuccessiveHalving:
    """Selects the children to promote: asynchronous successive halving (Li et al., 2020, "A System for Massively Parallel
    Hyperparameter Tuning", Algorithm 2).

    After n distinct children were evaluated at a rung, the best n / ``reduction_factor`` of them, rounded down, are
    promoted to the next rung, where their training continues. A decision depends only on the results that were added, in
    their order. Unlike in the paper, the number of promotions never exceeds this limit, even if a promoted child later
    leaves the best n / ``reduction_factor``.

    Args:
        rungs: numbers of epochs, increasing.
        reduction_factor: the inverse of the fraction of children that are promoted, at least 2.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int) -> None:
        self.rungs = tuple(rungs)
        self.reduction_factor = reduction_factor
        self._results: list[dict[str, Evaluation]] = [{} for _ in self.rungs]  # by key, per rung
        # Heaps of the children that were not promoted and could be: (-reward, order, proposal), per rung.
        self._candidates: list[list[tuple[float, int, Proposal]]] = [[] for _ in self.rungs]
        self._num_promoted = [0 for _ in self.rungs]

    def add(self, proposal: Proposal, evaluation: Evaluation) -> None:
        """Add a result. A repeat of an architecture at the same rung has no effect."""
        assert evaluation.fidelity is not None
        index = self.rungs.index(evaluation.fidelity)
        results = self._results[index]
        if evaluation.key not in results:
            results[evaluation.key] = evaluation
            if evaluation.status is Status.OK:
                heapq.heappush(self._candidates[index], (-evaluation.reward, len(results), proposal))

    @property
    def has_candidate(self) -> bool:
        """Whether there is a child to promote."""
        return self._rung_to_promote_from() is not None

    def promote(self) -> tuple[Proposal, int] | None:
        """Return the next child to promote and its new rung, and count it as promoted; None if there is none.

        Children of higher rungs come first. Of equal rewards, the first one is promoted.
        """
        index = self._rung_to_promote_from()
        if index is None:
            return None
        self._num_promoted[index] += 1
        _, _, proposal = heapq.heappop(self._candidates[index])
        return proposal, self.rungs[index + 1]

    def _rung_to_promote_from(self) -> int | None:
        """Return the index of the rung of the next child to promote."""
        for index in reversed(range(len(self.rungs) - 1)):
            limit = len(self._results[index]) // self.reduction_factor
            if self._num_promoted[index] < limit and self._candidates[index]:
                return index
        return None

    def comparable_rewards(self) -> dict[str, float]:
        """Return the reward of each promoted architecture, by key, comparable with rewards at the first rung.

        It is the reward at the highest rung that the child has reached, minus the mean gain of the promoted children at each
        rung up to there. A child whose training failed at a higher rung has the reward 0, or the lowest of the others if
        that is negative.
        """
        rewards: dict[str, float] = {}
        failed: list[str] = []
        offset = 0.0
        for lower, upper in zip(self._results[:-1], self._results[1:], strict=True):
            gains = [
                evaluation.reward - lower[key].reward for key, evaluation in upper.items() if evaluation.status is Status.OK
            ]
            offset += sum(gains) / len(gains) if gains else 0.0
            for key, evaluation in upper.items():
                if evaluation.status is Status.OK:
                    rewards[key] = evaluation.reward - offset
                else:
                    rewards.pop(key, None)
                    failed.append(key)
        return rewards | dict.fromkeys(failed, min([0.0, *rewards.values()]))
