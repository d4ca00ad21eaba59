"""Agents driven by hand: several children in flight, told in any order, with whatever reward a test decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import gymnasium as gym
import numpy as np

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture


def analytic(seed: int = 0) -> NASESEnv:
    env = gym.make("NASES-Synthetic-v0")
    env.reset(seed=seed)
    return cast(NASESEnv, env.unwrapped)


def evaluation(architecture: Architecture, reward: float) -> Evaluation:
    return Evaluation(architecture.key, 0, Status.OK, valid_accuracy=reward)


def drive(
    agent: Agent, reward_of: Callable[[Architecture], float], budget: int, in_flight: int = 1, seed: int = 0
) -> tuple[list[Proposal], list[float]]:
    """Keeps ``in_flight`` children in flight and tells one of them at random; what was told, and its rewards, in order."""
    rng = np.random.default_rng(seed)
    flying: list[Proposal] = []
    told: list[Proposal] = []
    rewards: list[float] = []
    while len(told) < budget:
        missing = min(in_flight, budget - len(told)) - len(flying)
        if missing:
            flying += agent.ask(missing)
        told.append(flying.pop(int(rng.integers(len(flying)))))
        rewards.append(reward_of(told[-1].architecture))
        agent.tell(told[-1], evaluation(told[-1].architecture, rewards[-1]))
    return told, rewards


def distance(a: Architecture, b: Architecture) -> int:
    """The number of decisions in which two architectures differ."""
    return sum(x != y for x, y in zip(a.decisions, b.decisions, strict=True))
