"""The search loop: ask the agent for proposals, evaluate them, and report the results, until the budget is used up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from nases_env.envs import Action, NASESEnv, unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search.callbacks import SearchCallback
from nases_env.search_spaces import Architecture
from nases_env.signals import defer_signals

WAIT_SECONDS = 1.0  # between two calls of ``on_wait``
MAX_INFEASIBLE = 1000  # infeasible proposals in a row after which the search ends with an error


@dataclass(frozen=True)
class Trial:
    """One evaluation in the history of a search.

    Attributes:
        number: position in the history; 1 for the first trial.
        architecture: the architecture of the child.
        evaluation: the evaluation of the child.
        action: the action that decodes to the architecture, shape (n,); None if the agent does not use the embedding.
        is_new: whether this is the first trial of the architecture in this search.
    """

    number: int
    architecture: Architecture
    evaluation: Evaluation
    action: Action | None = None
    is_new: bool = True


class SearchLoop:
    """Evaluates the proposals of an agent in an environment until a budget is used up.

    The loop does not call ``env.step``: it submits architectures to the executor of the environment, so that several
    children can be evaluated concurrently. Use it as a context manager to run ``on_start`` and ``on_end`` of the callbacks
    and to close the environment.

    Args:
        env: a ``NASESEnv`` that was reset, with no wrappers but those that ``gymnasium.make`` adds. It is started with
            ``num_envs`` concurrent evaluations if it is not running.
        budget: number of trials, at least 1. Repeated architectures count; infeasible proposals do not.
        num_envs: number of concurrent evaluations.
        callbacks: called in this order.
        num_replayed: number of trials that a resumed search repeats from its record.

    Attributes:
        env: the ``NASESEnv`` itself.
        trials: the history, in proposal order.
        best: the first trial with the highest reward; None before the first trial.
        num_infeasible: number of infeasible proposals, which are not evaluated.

    Raises:
        InputError: if ``env`` has another wrapper.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        budget: int,
        num_envs: int = 1,
        callbacks: Sequence[SearchCallback] = (),
        *,
        num_replayed: int = 0,
    ) -> None:
        self.env: NASESEnv = unwrap(env)
        self.budget = budget
        self.num_envs = num_envs
        self.callbacks = list(callbacks)
        self.num_replayed = num_replayed
        self.trials: list[Trial] = []
        self.best: Trial | None = None
        self.num_infeasible = 0
        self._num_infeasible_in_a_row = 0
        self._smallest_infeasible: Evaluation | None = None
        self._last_wait = time.monotonic()
        self._keys: set[str] = set()
        self._pending: deque[tuple[Proposal, Future[Evaluation] | None]] = deque()  # None: not submitted yet
        self._is_stopped = False
        if not self.env.is_started:
            self.env.start(max_in_flight=num_envs)

    def __enter__(self) -> SearchLoop:
        for callback in self.callbacks:
            callback.on_start(self)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        finally:
            with ExitStack() as stack:  # calls all of them, even if one raises an exception
                for callback in reversed(self.callbacks):
                    stack.callback(callback.on_end, self, interrupted=error_type is not None)

    @property
    def done(self) -> bool:
        """Whether the budget is used up, or ``stop`` was called."""
        return self._is_stopped or len(self.trials) >= self.budget

    @property
    def is_replaying(self) -> bool:
        """Whether the latest trial is a replay.

        The last recorded trial counts as new, because the search may have been killed before it was reported.
        """
        return len(self.trials) < self.num_replayed

    @property
    def num_in_flight(self) -> int:
        """Number of proposals that are not evaluated yet."""
        return sum(future is None or not future.done() for _, future in self._pending)

    @property
    def num_distinct(self) -> int:
        """Number of distinct architectures among the trials."""
        return len(self._keys)

    def stop(self) -> None:
        """End the search after the current trial, or call of ``evaluate_all``; discard the proposals in flight."""
        self._is_stopped = True

    def close(self) -> None:
        """Cancel the evaluations in flight and close the environment."""
        self.env.close()

    def run(self, agent: Agent, ask_batch_size: int = 1) -> None:
        """Ask ``agent`` for proposals, evaluate them and report the results back until the search is done.

        Evaluations are reported in proposal order, so the search does not depend on which of them finishes first.

        Args:
            agent: the search agent.
            ask_batch_size: number of proposals per call to ``agent.ask``; it waits until as many of ``num_envs`` are free.

        Raises:
            InputError: after ``MAX_INFEASIBLE`` infeasible proposals in a row.
            RuntimeError: if the agent proposes nothing.
        """
        window = max(self.num_envs, ask_batch_size)
        while not self.done:
            num_left = self.budget - len(self.trials) - len(self._pending)
            num_asked = min(ask_batch_size, num_left)
            if num_asked > 0 and len(self._pending) + ask_batch_size <= window:
                self._submit(self._ask(agent, num_asked))
                continue
            proposal, evaluation = self._collect()
            self.log(agent.tell(proposal, evaluation))

    def evaluate_all(
        self, architectures: Sequence[Architecture], actions: NDArray[np.floating[Any]] | None = None
    ) -> list[Evaluation]:
        """Evaluate ``architectures`` concurrently and record them in order, for agents that step a vector environment.

        Infeasible architectures and those beyond the budget are neither evaluated nor recorded. The former have the status
        ``TOO_LARGE``, the latter ``FAILED``; both have the reward 0.

        Args:
            architectures: K architectures.
            actions: the actions that decode to them, shape (K, n); None if the embedding was not used.

        Returns:
            K evaluations.

        Raises:
            InputError: after ``MAX_INFEASIBLE`` infeasible architectures in a row.
        """
        evaluations = [self._screen(architecture) for architecture in architectures]
        action_rows = [None] * len(architectures) if actions is None else list(actions)
        feasible = [index for index, evaluation in enumerate(evaluations) if evaluation is None]
        num_left = self.budget - len(self.trials)
        self._submit([Proposal(architectures[index], action_rows[index]) for index in feasible[:num_left]])
        for index in feasible[:num_left]:
            evaluations[index] = self._collect()[1]
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

    def _ask(self, agent: Agent, num_children: int) -> list[Proposal]:
        """Ask ``agent`` for ``num_children`` proposals, and for others in place of infeasible ones."""
        feasible: list[Proposal] = []
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
        return feasible

    def _screen(self, architecture: Architecture) -> Evaluation | None:
        """Return the evaluation of an infeasible architecture, or None if it is feasible."""
        evaluation = self.env.screen(architecture)
        if evaluation is None:
            self._num_infeasible_in_a_row = 0
            return None
        self.num_infeasible += 1
        self._num_infeasible_in_a_row += 1
        smallest = self._smallest_infeasible
        if smallest is None or evaluation.num_params < smallest.num_params:
            self._smallest_infeasible = smallest = evaluation
        if self._num_infeasible_in_a_row >= MAX_INFEASIBLE:
            raise InputError(f"{MAX_INFEASIBLE:,} infeasible proposals in a row; the smallest so far has {smallest.reason}")
        if time.monotonic() - self._last_wait > WAIT_SECONDS:
            self._wait()
        return evaluation

    def _wait(self) -> None:
        for callback in self.callbacks:
            callback.on_wait(self)
        self._last_wait = time.monotonic()

    def _submit(self, proposals: Sequence[Proposal]) -> None:
        """Queue ``proposals``, and submit them now if the executor evaluates in the background, else when collected."""
        for proposal in proposals:
            future = self.env.submit(proposal.architecture) if self.env.executor.in_background else None
            self._pending.append((proposal, future))

    def _collect(self) -> tuple[Proposal, Evaluation]:
        """Wait for the oldest proposal and record its evaluation."""
        proposal, future = self._pending.popleft()
        if future is None:
            future = self.env.submit(proposal.architecture)
        while not wait([future], timeout=WAIT_SECONDS).done:
            self._wait()
        evaluation = future.result()
        self.env.set_current(proposal.architecture, evaluation)
        with defer_signals():
            self._record(proposal, evaluation)
        return proposal, evaluation

    def _record(self, proposal: Proposal, evaluation: Evaluation) -> None:
        architecture = proposal.architecture
        action = None if proposal.action is None else np.asarray(proposal.action, np.float32)
        trial = Trial(len(self.trials) + 1, architecture, evaluation, action, is_new=architecture.key not in self._keys)
        self._keys.add(architecture.key)
        self.trials.append(trial)
        if self.best is None or evaluation.reward > self.best.evaluation.reward:
            self.best = trial
        for callback in self.callbacks:
            callback.on_trial(self, trial, is_replayed=self.is_replaying)
