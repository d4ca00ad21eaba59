"""The agents with a model, with one ingredient removed or replaced, to show what the ingredient is worth."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from nases_agents import bayesian_optimization, model_assisted
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.gaussian_process import GaussianProcess, Size
from nases_agents.model_assisted import ModelAssisted
from nases_agents.reward_model import RewardModel

from nases_env.envs import NASESEnv
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator


class WithoutPaths(BayesianOptimization):
    """Bayesian optimization without the kernel on paths. It is unchanged if the search space has no cells."""

    def __init__(self, env: gym.Env[Any, Any], args: bayesian_optimization.Args) -> None:
        super().__init__(env, args)
        scores = self.model.process.trend_scores
        self.model.process = GaussianProcess(self.search_space.decision_sizes, trend_scores=scores)


class WithoutSizes(BayesianOptimization):
    """Bayesian optimization that does not know the sizes of architectures, so that its first children are random."""

    def __init__(self, env: gym.Env[Any, Any], args: bayesian_optimization.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, no_size)


class NegatedSizes(BayesianOptimization):
    """Bayesian optimization that takes the largest architectures for the smallest."""

    def __init__(self, env: gym.Env[Any, Any], args: bayesian_optimization.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, negated_size(self.env))


class ShuffledSizes(BayesianOptimization):
    """Bayesian optimization in which each architecture has the size of a random other one, which depends on the seed."""

    def __init__(self, env: gym.Env[Any, Any], args: bayesian_optimization.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, shuffled_size(self.env, args.seed))


class ModelAssistedWithoutSizes(ModelAssisted):
    """Model-assisted REINFORCE that does not know the sizes of architectures, so that its first children are random."""

    def __init__(self, env: gym.Env[Any, Any], args: model_assisted.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, no_size)


class ModelAssistedNegatedSizes(ModelAssisted):
    """Model-assisted REINFORCE that takes the largest architectures for the smallest."""

    def __init__(self, env: gym.Env[Any, Any], args: model_assisted.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, negated_size(self.env))


class ModelAssistedShuffledSizes(ModelAssisted):
    """Model-assisted REINFORCE in which each architecture has the size of a random other one, which depends on the seed."""

    def __init__(self, env: gym.Env[Any, Any], args: model_assisted.Args) -> None:
        super().__init__(env, args)
        replace_sizes(self, shuffled_size(self.env, args.seed))


def replace_sizes(agent: BayesianOptimization | ModelAssisted, size: Size) -> None:
    """Let the model of ``agent`` take other sizes of architectures; the environment does not change."""
    agent.model = RewardModel(agent.env.search_space, agent.env.rungs, size=size)


def no_size(architecture: Architecture) -> None:
    """Return that the size is not known."""


def negated_size(env: NASESEnv) -> Size:
    """Return a function that returns the negated size of an architecture; None if it is not known."""

    def size(architecture: Architecture) -> float | None:
        known = env.size(architecture)
        return None if known is None else -known

    return size


def shuffled_size(env: NASESEnv, seed: int) -> Size:
    """Return a function that returns the size of a random other architecture, which depends on the seed."""

    def size(architecture: Architecture) -> float | None:
        return env.size(env.search_space.sample(numpy_generator(seed, "shuffled sizes", architecture.key)))

    return size
