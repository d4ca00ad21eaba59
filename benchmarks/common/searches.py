"""What several benchmarks do in a search: run an agent, check the environment, and measure its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from nases_env.envs import ImageEnv, NASESEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search.agent import Agent


def run_agent(
    agent: type[Agent] | Callable[[SearchLoop, Any], None], options: SearchArgs, **loop_options: Any
) -> SearchLoop:
    """Run a search with ``options`` and return it.

    Args:
        agent: the class of an agent, or a function that runs one in a search loop.
        options: the options of the search, whose seed is also that of the environment.
        loop_options: keywords of ``SearchLoop``.
    """
    env = make_env(options)
    env.reset(seed=options.seed)
    search = SearchLoop(env, options.budget, **loop_options)
    if isinstance(agent, type):
        search.run(agent(search.env, options), options.ask_batch_size)
    else:
        agent(search, options)
    return search


def require_trained_children(env: NASESEnv, env_id: str) -> ImageEnv:
    """Return ``env``.

    Raises:
        InputError: if it trains no children.
    """
    if not isinstance(env, ImageEnv):
        raise InputError(f"{env_id} trains no children; pass an environment that trains on images")
    return env


def seconds_of_process(device: torch.device) -> float:
    """Return the CPU seconds of this process, or the wall time on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()
