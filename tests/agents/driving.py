"""Call ``ask`` and ``tell`` of an agent without a search loop, with several children in flight, in random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import gymnasium as gym
import numpy as np

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture


def synthetic_env(seed: int = 0) -> NASESEnv:
    env = gym.make("NASES-Synthetic-v0")
    env.reset(seed=seed)
    return cast(NASESEnv, env.unwrapped)


def evaluation(architecture: Architecture, reward: float) -> Evaluation:
    return Evaluation(architecture.key, 0, Status.OK, valid_accuracy=reward)


def drive(
    agent: Agent, reward_of: Callable[[Architecture], float], budget: int, in_flight: int = 1, seed: int = 0
) -> tuple[list[Proposal], list[float]]:
    """Keep ``in_flight`` children in flight and report them in random order, until ``budget`` children are evaluated.

    Returns:
        The proposals and their rewards, in the order of the calls of ``tell``.
    """
    rng = np.random.default_rng(seed)
    pending: list[Proposal] = []
    evaluated: list[Proposal] = []
    rewards: list[float] = []
    while len(evaluated) < budget:
        num_missing = min(in_flight, budget - len(evaluated)) - len(pending)
        if num_missing:
            pending += agent.ask(num_missing)
        proposal = pending.pop(int(rng.integers(len(pending))))
        evaluated.append(proposal)
        rewards.append(reward_of(proposal.architecture))
        agent.tell(proposal, evaluation(proposal.architecture, rewards[-1]))
    return evaluated, rewards


def drive_synthetic(agent: Agent, env: NASESEnv, budget: int, in_flight: int = 1) -> tuple[list[Proposal], list[float]]:
    """Drive ``agent`` with the rewards of ``env``; see ``drive``."""
    return drive(agent, lambda architecture: env.evaluate(architecture).reward, budget, in_flight)


def hamming_distance(a: Architecture, b: Architecture) -> int:
    """Count the decisions in which two architectures differ."""
    return sum(x != y for x, y in zip(a.decisions, b.decisions, strict=True))
