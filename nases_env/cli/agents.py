"""The agents of this package by name."""

from __future__ import annotations

import importlib
from types import ModuleType

from nases_env.errors import InputError, did_you_mean

AGENTS = {
    "model_assisted": "REINFORCE with a Gaussian-process reward model",
    "reinforce": "policy gradient from the pretrained simulator, as in the paper",
    "elite_reinforce": "policy gradient from mutations of good architectures, with replay",
    "bayesian_optimization": "Gaussian process and expected improvement, without a policy",
    "local_search": "hill climbing with restarts: neighbors that differ in one decision",
    "regularized_evolution": "mutations of recent architectures",
    "discrete_reinforce": "policy gradient on discrete decisions",
    "cma_es": "CMA-ES in the embedding space, with cmaes",
    "tpe": "TPE of Optuna on the decisions",
    "mo_model_assisted": "Gaussian processes and hypervolume improvement, for two objectives",
    "mo_reinforce": "policy gradient conditioned on the preference, for several objectives",
    "nsga2": "NSGA-II of Optuna, for several objectives",
    "sb3": "PPO, A2C, SAC or TD3 of Stable-Baselines3",
    "random_search": "uniform sampling; the baseline",
}
"""The modules of ``nases_agents`` that search, with a summary of each."""


def require_agent(name: str) -> None:
    """Raise ``InputError`` if ``name`` is not an agent."""
    if name not in AGENTS:
        raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")


def import_agent(name: str) -> ModuleType:
    """Import the module of an agent.

    Raises:
        InputError: if there is no such agent, or the package of the agents is not installed.
    """
    require_agent(name)
    try:
        return importlib.import_module(f"nases_agents.{name}")
    except ModuleNotFoundError as error:
        if error.name != "nases_agents":
            raise
        raise InputError("the package nases_agents is not installed; run pip install -e . in the checkout") from None
