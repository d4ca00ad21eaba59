"""Call ``ask`` and ``tell`` of an agent without a search loop, with several children in flight, in random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Status
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture


def synthetic_env(seed: int = 0, **options: Any) -> NASESEnv:
    env = gym.make("NASES-Synthetic-v0", **options)
    env.reset(seed=seed)
    return cast(NASESEnv, env.unwrapped)


def small_synthetic_env(seed: int = 0) -> NASESEnv:
    """Return an environment with architectures of 6 decisions instead of 40, which agents propose faster."""
    return synthetic_env(seed, search_space="nasbench201", operator="avg_pool_3x3")


def evaluation(architecture: Architecture, reward: float) -> Evaluation:
    return Evaluation(architecture.key, 0, Status.OK, valid_accuracy=reward)


def drive(
    agent: Agent,
    reward_of: Callable[[Architecture], float],
    budget: int,
    in_flight: int = 1,
    seed: int = 0,
    batch_size: int = 1,
) -> tuple[list[Proposal], list[float]]:
    """Keep ``in_flight`` children in flight and report them in random order, until ``budget`` children are evaluated.

    New children are asked for as soon as ``batch_size`` are missing, or none is in flight.

    Returns:
        The proposals and their rewards, in the order of the calls of ``tell``.
    """
    rng = np.random.default_rng(seed)
    pending: list[Proposal] = []
    evaluated: list[Proposal] = []
    rewards: list[float] = []
    while len(evaluated) < budget:
        num_missing = min(in_flight, budget - len(evaluated)) - len(pending)
        if num_missing >= batch_size or not pending:
            pending += agent.ask(num_missing)
        proposal = pending.pop(int(rng.integers(len(pending))))
        evaluated.append(proposal)
        rewards.append(reward_of(proposal.architecture))
        agent.tell(proposal, evaluation(proposal.architecture, rewards[-1]))
    return evaluated, rewards


def drive_synthetic(
    agent: Agent, env: NASESEnv, budget: int, in_flight: int = 1, batch_size: int = 1
) -> tuple[list[Proposal], list[float]]:
    """Drive ``agent`` with the rewards of ``env``; see ``drive``."""
    return drive(agent, lambda child: env.evaluate(child).reward, budget, in_flight, batch_size=batch_size)


def hamming_distance(a: Architecture, b: Architecture) -> int:
    """Count the decisions in which two architectures differ."""
    return sum(x != y for x, y in zip(a.decisions, b.decisions, strict=True))
