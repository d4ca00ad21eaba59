"""Bayesian optimization with one ingredient removed or replaced, to show what the ingredient is worth."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
from nases_agents.bayesian_optimization import Args, BayesianOptimization
from nases_agents.gaussian_process import GaussianProcess, Size
from nases_agents.reward_model import RewardModel

from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import numpy_generator


class WithoutPaths(BayesianOptimization):
    """Bayesian optimization without the kernel on paths. It is unchanged if the search space has no cells."""

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        scores = self.model.process.trend_scores
        self.model.process = GaussianProcess(self.search_space.decision_sizes, trend_scores=scores)


class WithoutSizes(BayesianOptimization):
    """Bayesian optimization that does not know the sizes of architectures, so that its first children are random."""

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, lambda architecture: None)


class NegatedSizes(BayesianOptimization):
    """Bayesian optimization that takes the largest architectures for the smallest."""

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, lambda architecture: negated(self.env.size(architecture)))


class ShuffledSizes(BayesianOptimization):
    """Bayesian optimization in which each architecture has the size of a random other one, which depends on the seed."""

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        space = self.search_space

        def size(architecture: Architecture) -> float | None:
            return self.env.size(space.sample(numpy_generator(args.seed, "shuffled sizes", architecture.key)))

        replace_sizes(self, size)


def replace_sizes(agent: BayesianOptimization, size: Size) -> None:
    """Let ``agent`` and its model search a copy of the search space with other sizes; the environment does not change."""
    agent.search_space = with_sizes(agent.search_space, size)
    agent.model = RewardModel(agent.search_space, agent.env.rungs)


def with_sizes(search_space: SearchSpace, size: Size) -> SearchSpace:
    """Return a copy of ``search_space`` whose method ``size`` is the function ``size``."""
    space = copy.copy(search_space)
    vars(space)["size"] = size  # hides the method of the class
    return space


def negated(size: float | None) -> float | None:
    """Return ``-size``; None remains None."""
    return None if size is None else -size
