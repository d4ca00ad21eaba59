"""The loop of a search: children are asked for, evaluated, told and counted until a budget is spent."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from nases_env.envs import Action, NASESEnv, Observation
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class Trial:
    """One line of a search's history.

    Attributes:
        number: 1 for the first child of the search.
        architecture: what was evaluated.
        evaluation: what came of it.
        action: the embedding over 3 that decoded to it, shape (n,); None where the agent needs none.
    """

    number: int
    architecture: Architecture
    evaluation: Evaluation
    action: Action | None = None


@dataclass
class _InFlight:
    proposal: Proposal
    future: Future[Evaluation] | None = None  # None: not submitted yet


class SearchLoop(gym.Wrapper[Observation, Action, Observation, Action]):
    """An environment whose children are counted and remembered until a budget is spent.

    An agent calls ``step`` as in any environment, or ``evaluate`` with an architecture, until ``done``; ``run`` does so for
    an agent that asks and is told, with several children under evaluation at once.

    Args:
        env: a NASES environment that was reset.
        budget: children to evaluate, at least 1. One that is met again counts.
        num_envs: children in flight at once.
    """

    def __init__(self, env: gym.Env[Observation, Action], budget: int, num_envs: int = 1) -> None:
        super().__init__(env)
        self.nases: NASESEnv = env.unwrapped  # type: ignore[assignment]
        self.nases.max_in_flight = num_envs
        self.budget = budget
        self.num_envs = num_envs
        self.children: list[Trial] = []
        self.best: Trial | None = None
        self._in_flight: deque[_InFlight] = deque()

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return len(self.children) >= self.budget

    @property
    def num_in_flight(self) -> int:
        """Children that were asked for and are not evaluated yet."""
        return sum(child.future is None or not child.future.done() for child in self._in_flight)

    def step(self, action: Action) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """One step of the environment, recorded."""
        result = super().step(action)
        assert self.nases.last_evaluation is not None
        self._remember(self.nases.architecture, self.nases.last_evaluation, action)
        return result

    def evaluate(self, architecture: Architecture, action: Action | None = None) -> Evaluation:
        """Evaluates ``architecture`` in the environment, recorded: for agents that need no embedding."""
        return self._collect(_InFlight(Proposal(architecture, action)))

    def evaluate_all(self, architectures: Sequence[Architecture], actions: NDArray[np.floating[Any]]) -> list[Evaluation]:
        """Evaluates ``architectures`` at once, recorded in their order. What goes beyond the budget is left out: FAILED.

        Args:
            architectures: K children.
            actions: the embeddings over 3 that decoded to them, shape (K, n).
        """
        left = self.budget - len(self.children)
        asked = zip(architectures[:left], np.asarray(actions, np.float32), strict=False)
        self._in_flight.extend(_InFlight(Proposal(architecture, action)) for architecture, action in asked)
        self._submit()
        evaluations = [self._collect(self._in_flight.popleft()) for _ in architectures[:left]]
        beyond = [
            Evaluation(child.key, 0, Status.FAILED, reason="the budget was spent before") for child in architectures[left:]
        ]
        return evaluations + beyond

    def run(self, agent: Agent, ask_batch_size: int = 1) -> None:
        """Has children evaluated as ``agent`` asks for them until the budget is spent.

        It is told of them in the order in which it asked, so that a search does not depend on which of them is ready first.

        Args:
            agent: asks and is told.
            ask_batch_size: children that it is asked for at a time.
        """
        window = max(self.num_envs, ask_batch_size)
        while not self.done:
            num_left = self.budget - len(self.children) - len(self._in_flight)
            num_asked = min(ask_batch_size, num_left)
            if num_asked > 0 and len(self._in_flight) + ask_batch_size <= window:
                self._in_flight.extend(_InFlight(proposal) for proposal in agent.ask(num_asked))
                self._submit()
                continue
            oldest = self._in_flight.popleft()
            self.log(agent.tell(oldest.proposal, self._collect(oldest)))

    def log(self, scalars: Mapping[str, float]) -> None:
        """Takes an agent's own curves, at the current child; they are shown where the search is recorded."""

    def _submit(self) -> None:
        """Submits what is in flight; one after the other, as they are collected, where that is how they are evaluated."""
        if self.nases.executor.in_background:
            for child in self._in_flight:
                if child.future is None:
                    child.future = self.nases.submit(child.proposal.architecture)

    def _collect(self, child: _InFlight) -> Evaluation:
        architecture = child.proposal.architecture
        future = self.nases.submit(architecture) if child.future is None else child.future
        evaluation = self._wait(future)
        self.nases.set_current(architecture, evaluation)
        self._remember(architecture, evaluation, child.proposal.action)
        return evaluation

    def _wait(self, future: Future[Evaluation]) -> Evaluation:
        return future.result()

    def _remember(self, architecture: Architecture, evaluation: Evaluation, action: Action | None) -> None:
        action = None if action is None else np.asarray(action, np.float32)
        self.children.append(Trial(len(self.children) + 1, architecture, evaluation, action))
        if self.best is None or evaluation.reward > self.best.evaluation.reward:
            self.best = self.children[-1]
