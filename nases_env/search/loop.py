"""The search loop: ask the agent for proposals, evaluate them, and report the results, until the budget is used up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from nases_env.envs import NASESEnv, unwrap
from nases_env.envs.arguments import to_count
from nases_env.errors import InputError, shown
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search.callbacks import SearchCallback
from nases_env.search.successive_halving import SuccessiveHalving
from nases_env.search.trials import Finalist, Ranking, SeenChildren, Trial
from nases_env.search_spaces import Architecture
from nases_env.signals import defer_signals

WAIT_SECONDS = 1.0  # between two calls of ``on_wait``
NUM_RANKED = 5  # architectures in ``SearchLoop.ranking``, unless there are more finalists
NUM_RECENT = 10  # children in ``SearchLoop.recent_rewards``
MAX_INFEASIBLE = 1000  # infeasible proposals in a row after which the search ends with an error


@dataclass(frozen=True)
class _Pending:
    """A proposal in flight; ``future`` None: recorded, or not submitted yet."""

    proposal: Proposal
    fidelity: int | None
    future: Future[Evaluation] | None
    is_promotion: bool
    is_recorded: bool


class SearchLoop:
    """Evaluates the proposals of an agent in an environment until a budget is used up.

    The loop does not call ``env.step``: it submits architectures to the executor of the environment, so that several
    children can be evaluated concurrently. If the environment has rungs, new children are evaluated at the first rung, and
    the best of them are promoted to the next ones (``SuccessiveHalving``). At the end, the best children are evaluated again
    with other seeds, and the best one is chosen among these finalists.

    Use it as a context manager to run ``on_start`` and ``on_end`` of the callbacks and to close the environment.

    Args:
        env: a ``NASESEnv`` that was reset, with no wrappers but those that ``gymnasium.make`` adds. It is started with
            ``num_envs`` concurrent evaluations if it is not running.
        budget: number of children, at least 1. Repeated architectures count; infeasible proposals and promotions do not.
            ``propose_no_more`` reduces it.
        num_envs: number of concurrent evaluations, at least 1.
        callbacks: called in this order.
        recorded: the evaluations of the trials that a resumed search repeats, in order, and whether the trial was new
            (``Trial.is_new``); they are read one at a time.
        num_replayed: the number of these trials.
        reduction_factor: with rungs, the inverse of the fraction of children that are promoted to the next rung, at
            least 2.
        pauses: with rungs, the budgets that a resumed search had before: it finishes the promotions of each one first.
        num_finalists: number of children to evaluate again with other seeds at the end, to choose the best one, at least 2;
            0: the best one is that with the highest reward.

    Attributes:
        env: the ``NASESEnv`` itself.
        trials: the history, in proposal order, without the trials that a resumed search replays.
        num_trials: number of trials, including the replayed ones.
        num_children: number of trials that are not promotions.
        num_distinct: number of distinct architectures among these children.
        recent_rewards: the rewards of the last ``NUM_RECENT`` children, without promotions.
        best: the first trial with the highest reward at the highest rung, or the trial of the chosen finalist; None before
            the first trial.
        finalists: the children that were evaluated again, best first, and at the end those whose second evaluation failed;
            empty before the end.
        num_infeasible: number of infeasible proposals, which are not evaluated.

    Raises:
        InputError: if ``env`` has another wrapper, or its first step has started it for one evaluation at a time; if
            one of the numbers is not an integer or is out of range.
        gymnasium.error.ResetNeeded: if ``env`` was not reset.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        budget: int,
        num_envs: int = 1,
        callbacks: Sequence[SearchCallback] = (),
        *,
        recorded: Iterable[tuple[Evaluation, bool]] = (),
        num_replayed: int = 0,
        reduction_factor: int = 4,
        pauses: Sequence[int] = (),
        num_finalists: int = 0,
    ) -> None:
        self.env: NASESEnv = unwrap(env)
        _ = self.env.architecture  # the seeds of the children are derived from that of the reset
        self.budget = to_count("budget", budget)
        self.num_envs = to_count("num_envs", num_envs)
        reduction_factor = to_count("reduction_factor", reduction_factor, 2)
        num_finalists = to_count("num_finalists", num_finalists, 0)
        if num_finalists == 1:
            raise InputError("num_finalists must be 0 or at least 2, not 1")
        self.callbacks = list(callbacks)
        self.num_replayed = num_replayed
        self.trials: list[Trial] = []
        self.num_trials = 0
        self.num_children = 0
        self.num_distinct = 0
        self.recent_rewards: deque[float] = deque(maxlen=NUM_RECENT)
        self.best: Trial | None = None
        self.num_finalists = num_finalists
        self.finalists: list[Finalist] = []
        self.num_infeasible = 0
        self._num_infeasible_in_a_row = 0
        self._smallest_infeasible: Evaluation | None = None
        self._last_wait = time.monotonic()
        self._recorded = iter(recorded)
        self._ranking = Ranking(max(NUM_RANKED, num_finalists))
        self._seen = SeenChildren()
        self._pending: deque[_Pending] = deque()
        self._num_pending_children = 0  # without promotions
        self._halving = SuccessiveHalving(self.env.rungs, reduction_factor)
        self._pauses = list(pauses)
        self._is_stopped = False
        self._proposes_no_more = False
        self._has_chosen = False
        if not self.env.is_started:
            self.env.start(max_in_flight=num_envs)
        elif num_envs > 1 and self.env.is_started_by_submit:
            raise InputError(
                "the environment evaluates one child at a time, because its first step has started it; call "
                f"env.unwrapped.start(max_in_flight={num_envs}) before that step"
            )

    def __enter__(self) -> SearchLoop:
        started: list[SearchCallback] = []
        try:
            for callback in self.callbacks:
                callback.on_start(self)
                started.append(callback)
        except BaseException:
            self._end(started, interrupted=True)
            raise
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(self.callbacks, interrupted=error_type is not None)

    def _end(self, started: Sequence[SearchCallback], *, interrupted: bool) -> None:
        try:
            self.close()
        finally:
            with ExitStack() as stack:  # calls all of them, even if one raises an exception
                for callback in reversed(started):
                    stack.callback(callback.on_end, self, interrupted=interrupted)

    @property
    def done(self) -> bool:
        """Whether the budget is used up and no child is left to promote, or ``stop`` was called."""
        return self._is_stopped or self._has_finished(self.budget)

    @property
    def has_chosen(self) -> bool:
        """Whether the best child was chosen among the finalists, also in a search that was stopped."""
        return self._has_chosen

    @property
    def is_complete(self) -> bool:
        """Whether the budget is used up, no child is left to promote, and the best one was chosen among the finalists."""
        return self._has_finished(self.budget) and self._has_chosen

    @property
    def is_replaying(self) -> bool:
        """Whether the latest trial is a replay.

        The last recorded trial counts as new, because the search may have been killed before it was reported.
        """
        return self.num_trials < self.num_replayed

    @property
    def num_in_flight(self) -> int:
        """Number of proposals that are not evaluated yet."""
        return sum(pending.future is None or not pending.future.done() for pending in self._pending)

    def ranking(self) -> list[Trial]:
        """Return the best trials of the best architectures, best first; of equal ones, the first.

        Their number is that of the finalists, but at least ``NUM_RANKED``, if there are as many architectures.
        """
        return self._ranking.trials()

    def stop(self) -> None:
        """End the search after the current trial, or call of ``evaluate_all``; discard the proposals in flight.

        The workers finish these proposals before they evaluate the finalists.
        """
        self._is_stopped = True

    def propose_no_more(self) -> None:
        """Reduce the budget to the children that were proposed; promotions and finalists are still evaluated."""
        self._proposes_no_more = True

    def close(self) -> None:
        """Cancel the evaluations in flight and close the environment."""
        self.env.close()

    def run(self, agent: Agent, ask_batch_size: int = 1) -> None:
        """Ask ``agent`` for proposals, evaluate them and report the results back until the search is done.

        Evaluations are reported in proposal order, so the search does not depend on which of them finishes first. With
        rungs, promotions are proposed before new children.

        Args:
            agent: the search agent.
            ask_batch_size: number of proposals per call to ``agent.ask``; it waits until as many of ``num_envs`` are free.
                Proposals beyond the budget are not evaluated.

        Raises:
            InputError: after ``MAX_INFEASIBLE`` infeasible proposals in a row, or if ``ask_batch_size`` is not a positive
                integer.
            RuntimeError: if the agent proposes nothing.
        """
        ask_batch_size = to_count("ask_batch_size", ask_batch_size)
        window = max(self.num_envs, ask_batch_size)
        asked: list[Proposal] = []  # not submitted yet
        for budget in (*self._pauses, self.budget):
            while self._continues(budget):
                if len(self._pending) < window and self._submit_promotion():
                    continue
                num_left = min(budget, self.budget) - self._num_proposed
                if num_left > 0 and len(self._pending) + ask_batch_size <= window:
                    # The agent proposes full batches only: a resumed search with a larger budget repeats the same calls.
                    asked = asked or self._ask(agent, ask_batch_size, num_left)
                    self._submit(asked[:num_left])
                    asked = asked[num_left:]
                    continue
                pending, evaluation = self._collect()
                self.log(self._tell(agent, pending, evaluation))
        self._choose()

    def evaluate_all(
        self, architectures: Sequence[Architecture], actions: NDArray[np.floating[Any]] | None = None
    ) -> list[Evaluation]:
        """Evaluate ``architectures`` concurrently and record them in order, for agents that step a vector environment.

        At the end of the search, this also chooses the best child among the finalists.

        Infeasible architectures and those beyond the budget are neither evaluated nor recorded. The former have the status
        ``TOO_LARGE``, the latter ``FAILED``; both have the reward 0. With rungs, the evaluations are those at the first
        rung; promotions follow them and are only recorded.

        Args:
            architectures: K architectures.
            actions: the actions that decode to them, shape (K, n); None if they are not known.

        Returns:
            K evaluations.

        Raises:
            InputError: after ``MAX_INFEASIBLE`` infeasible architectures in a row.
        """
        evaluations = [self._screen(architecture) for architecture in architectures]
        action_rows = [None] * len(architectures) if actions is None else list(actions)
        feasible = [index for index, evaluation in enumerate(evaluations) if evaluation is None]
        for budget in (*self._pauses, self.budget):
            num_left = max(0, budget - self.num_children)
            evaluated, feasible = feasible[:num_left], feasible[num_left:]
            self._submit([Proposal(architectures[index], action_rows[index]) for index in evaluated])
            for index in evaluated:
                evaluations[index] = self._collect()[1]
            if evaluated:
                self._run_promotions()
        self._reduce_budget()
        if self.done:
            self._choose()
        return [
            evaluation or Evaluation(architecture.key, 0, Status.FAILED, reason="the budget is used up")
            for architecture, evaluation in zip(architectures, evaluations, strict=True)
        ]

    def log(self, metrics: Mapping[str, float]) -> None:
        """Pass metrics of the agent to the callbacks, for the last trial.

        Args:
            metrics: value by name, such as ``policy/loss``.
        """
        if metrics:
            for callback in self.callbacks:
                callback.on_metrics(self, metrics, is_replayed=self.is_replaying)

    def _ask(self, agent: Agent, num_children: int, num_needed: int) -> list[Proposal]:
        """Ask ``agent`` for ``num_children`` proposals, and for others in place of infeasible ones.

        Raises:
            InputError: after ``MAX_INFEASIBLE`` infeasible proposals in a row, if fewer than ``num_needed`` are feasible.
        """
        feasible: list[Proposal] = []
        try:
            self._add_feasible(feasible, agent, num_children)
        except InputError:
            if len(feasible) < num_needed:
                raise
        return feasible

    def _add_feasible(self, feasible: list[Proposal], agent: Agent, num_children: int) -> None:
        while num_children > 0:
            proposals = agent.ask(num_children)
            if not proposals:
                raise RuntimeError(f"{type(agent).__name__}.ask returned no proposal")
            num_children = 0
            for proposal in proposals:
                if self._screen(proposal.architecture) is None:
                    feasible.append(proposal)
                else:
                    agent.tell_infeasible(proposal)
                    num_children += 1

    def _screen(self, architecture: Architecture) -> Evaluation | None:
        """Return the evaluation of an infeasible architecture, or None if it is feasible.

        Raises:
            InputError: if it is not an architecture of the search space, or ``MAX_INFEASIBLE`` in a row were infeasible.
        """
        space = self.env.search_space.name
        if not isinstance(architecture, Architecture) or architecture.search_space != space:
            raise InputError(
                f"the agent proposed {shown(architecture)}, which is not an Architecture of {space}; convert genotypes with "
                "env.unwrapped.to_architecture"
            )
        evaluation = self.env.screen(architecture)
        if evaluation is None:
            self._num_infeasible_in_a_row = 0
            return None
        self.num_infeasible += 1
        self._num_infeasible_in_a_row += 1
        smallest = self._smallest_infeasible
        if smallest is None or self._excess(evaluation) < self._excess(smallest):
            self._smallest_infeasible = smallest = evaluation
        if self._num_infeasible_in_a_row >= MAX_INFEASIBLE:
            raise InputError(f"{MAX_INFEASIBLE:,} infeasible proposals in a row; the smallest so far has {smallest.reason}")
        if time.monotonic() - self._last_wait > WAIT_SECONDS:
            self._wait()
        return evaluation

    def _excess(self, evaluation: Evaluation) -> tuple[float, int]:
        return self.env.evaluator.limits.excess(evaluation), evaluation.num_params

    def _wait(self) -> None:
        for callback in self.callbacks:
            callback.on_wait(self)
        self._last_wait = time.monotonic()

    def _submit(self, proposals: Sequence[Proposal]) -> None:
        """Queue ``proposals``, and submit them now if the executor evaluates in the background, else when collected."""
        fidelity = self.env.rungs[0] if self.env.rungs else None
        for proposal in proposals:
            self._enqueue(proposal, fidelity)

    def _submit_promotion(self) -> bool:
        """Queue the next promotion; return False if there is none."""
        promotion = self._halving.promote()
        if promotion is None:
            return False
        self._enqueue(*promotion, is_promotion=True)
        return True

    def _run_promotions(self) -> None:
        """Evaluate promotions until no child is left to promote."""
        while not self._is_stopped and (self._submit_promotion() or self._pending):
            if not self._halving.has_candidate or len(self._pending) >= self.num_envs:
                self._collect()

    def _enqueue(self, proposal: Proposal, fidelity: int | None, *, is_promotion: bool = False) -> None:
        is_recorded = self.num_trials + len(self._pending) < self.num_replayed
        future = None
        if not is_recorded and self.env.executor.in_background:
            future = self.env.submit(proposal.architecture, fidelity)
        self._pending.append(_Pending(proposal, fidelity, future, is_promotion, is_recorded))
        self._num_pending_children += not is_promotion

    def _collect(self) -> tuple[_Pending, Evaluation]:
        """Wait for the oldest proposal and record its evaluation."""
        pending = self._pending.popleft()
        self._num_pending_children -= not pending.is_promotion
        architecture = pending.proposal.architecture
        if pending.is_recorded:
            evaluation, is_new = self._recall(architecture, pending.fidelity)
            self._seen.add_recorded(architecture.key, evaluation.fidelity)
        else:
            evaluation = self._result(pending.future or self.env.submit(architecture, pending.fidelity))
            is_new = self._seen.add(architecture.key, evaluation.fidelity)
        evaluation = self.env.with_latency(evaluation)
        self.env.set_current(architecture, evaluation)
        # A replayed trial, except for the last one, writes nothing that an interrupt could leave incomplete.
        writes_nothing = self.num_trials + 1 < self.num_replayed
        with nullcontext() if writes_nothing else defer_signals():
            self._record(pending.proposal, evaluation, is_new=is_new, is_promotion=pending.is_promotion)
        return pending, evaluation

    def _recall(self, architecture: Architecture, fidelity: int | None) -> tuple[Evaluation, bool]:
        """Return the next recorded evaluation, which must be that of ``architecture``, and whether its trial was new."""
        recorded = next(self._recorded, None)
        if recorded is None:
            raise InputError(f"the record of the search ends before trial {self.num_trials + 1}; try again")
        evaluation, _ = recorded
        if (evaluation.key, evaluation.fidelity) != (architecture.key, fidelity):
            raise InputError(
                f"the search cannot be resumed: trial {self.num_trials + 1} was {evaluation.key} and is now "
                f"{architecture.key}, because another version or machine computes differently; start a new search"
            )
        self.env.preload(evaluation)
        return recorded

    def _result(self, future: Future[Evaluation]) -> Evaluation:
        while not wait([future], timeout=WAIT_SECONDS).done:
            self._wait()
        return future.result()

    def _tell(self, agent: Agent, pending: _Pending, evaluation: Evaluation) -> dict[str, float]:
        if pending.is_promotion:
            return agent.tell_promoted(pending.proposal, evaluation, self._halving.comparable_rewards())
        return agent.tell(pending.proposal, evaluation)

    def _choose(self) -> None:
        """Evaluate the best children again with other seeds, and make the one with the highest mean reward ``best``.

        A child that could not be evaluated again is not chosen. If none could, the child with the best first evaluation
        remains ``best``.

        The reward of the best child is biased upward because the child was selected by it (the "winner's curse"). There is
        nothing to choose from fewer than two children.
        """
        if self._has_chosen:
            return
        candidates = [trial for trial in self.ranking() if trial.evaluation.status is Status.OK][: self.num_finalists]
        if len(candidates) >= 2:
            in_background = self.env.executor.in_background
            futures = [self.env.submit_again(trial.architecture) if in_background else None for trial in candidates]
            for trial, future in zip(candidates, futures, strict=True):
                second = self.env.with_latency(self._result(future or self.env.submit_again(trial.architecture)))
                self.finalists.append(Finalist(trial, second))
                for callback in self.callbacks:
                    callback.on_finalist(self, self.finalists[-1])
            self.finalists.sort(key=lambda finalist: finalist.is_confirmed * (1.0 + finalist.mean_reward), reverse=True)
            self.best = self.finalists[0].trial
        self._has_chosen = True

    def _continues(self, budget: int) -> bool:
        self._reduce_budget()
        return not (self.done or self._has_finished(budget))

    def _reduce_budget(self) -> None:
        if self._proposes_no_more:
            self.budget = min(self.budget, self._num_proposed)

    @property
    def _num_proposed(self) -> int:
        """Number of children that are evaluated or in flight, without promotions."""
        return self.num_children + self._num_pending_children

    def _has_finished(self, budget: int) -> bool:
        return self.num_children >= budget and not self._pending and not self._halving.has_candidate

    def _record(self, proposal: Proposal, evaluation: Evaluation, *, is_new: bool, is_promotion: bool) -> None:
        self.num_trials += 1
        trial = Trial(
            number=self.num_trials,
            architecture=proposal.architecture,
            evaluation=evaluation,
            action=None if proposal.action is None else np.asarray(proposal.action, np.float32),
            is_new=is_new,
            is_promotion=is_promotion,
        )
        if trial.number > self.num_replayed:
            self.trials.append(trial)
        if not is_promotion:  # a promoted child was evaluated before
            self.num_children += 1
            self.num_distinct += trial.is_new
            self.recent_rewards.append(evaluation.reward)
        if evaluation.fidelity is not None:
            self._halving.add(proposal, evaluation)
        if self._ranking.add(trial):
            self.best = self._ranking.trials()[0]
        is_replayed = self.is_replaying
        for callback in self.callbacks:
            callback.on_trial(self, trial, is_replayed=is_replayed)
