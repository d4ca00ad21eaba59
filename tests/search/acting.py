"""Agents and callbacks for the tests of the search loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search import Agent, Proposal, SearchCallback, SearchLoop, Trial


class RandomActions(Agent):
    """Samples actions uniformly and logs a constant metric."""

    def __init__(self, env: NASESEnv, seed: int = 0) -> None:
        self.env = env
        env.action_space.seed(seed)

    def ask(self, num_children: int = 1) -> list[Proposal]:
        actions = np.stack([self.env.action_space.sample() for _ in range(num_children)])
        architectures = self.env.decode_batch(actions)
        return [Proposal(architecture, action) for architecture, action in zip(architectures, actions, strict=True)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        return {"policy/entropy": 1.5}


class CallAfter(SearchCallback):
    """Calls a function after a given number of trials."""

    def __init__(self, num_trials: int, function: Callable[[SearchLoop], None]) -> None:
        self.num_trials = num_trials
        self.function = function

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if trial.number == self.num_trials:
            self.function(loop)


class Recorder(SearchCallback):
    """Records which methods were called."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_start(self, loop: SearchLoop) -> None:
        self.events.append("start")

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        self.events.append(f"trial {trial.number}{' replayed' if is_replayed else ''}")

    def on_metrics(self, loop: SearchLoop, metrics: Mapping[str, float], *, is_replayed: bool) -> None:
        self.events.append(f"metrics {sorted(metrics)} after {len(loop.trials)}")

    def on_wait(self, loop: SearchLoop) -> None:
        self.events.append("wait")

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        self.events.append("interrupted" if interrupted else "end")
