"""Every agent proposes the architectures that it proposed when ``trajectories.json`` was recorded.

The file holds the first 8 hexadecimal digits of the SHA-256 of each key, in order, for seed 0 and the default options.
Of CMA-ES, it holds the first generation: later ones depend on eigenvectors, and thus on the rounding of the CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from nases_agents import (
    cma_es,
    discrete_reinforce,
    elite_reinforce,
    local_search,
    model_assisted,
    regularized_evolution,
    reinforce,
    sb3,
    tpe,
)
from nases_agents.random_search import RandomSearch

from nases_env.evaluation.nasbench201 import TABLE_NAME
from nases_env.search import SearchArgs, SearchLoop, make_env

TRAJECTORIES: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "trajectories.json").read_text())
DATA_DIR = os.environ.get("NASES_DATA_DIR")
AGENTS: dict[str, tuple[Any, Any]] = {
    "reinforce": (reinforce.Args, reinforce.Reinforce),
    "elite_reinforce": (elite_reinforce.Args, elite_reinforce.EliteReinforce),
    "model_assisted": (model_assisted.Args, model_assisted.ModelAssisted),
    "random_search": (SearchArgs, RandomSearch),
    "regularized_evolution": (regularized_evolution.Args, regularized_evolution.RegularizedEvolution),
    "local_search": (local_search.Args, local_search.LocalSearch),
    "discrete_reinforce": (discrete_reinforce.Args, discrete_reinforce.DiscreteReinforce),
    "cma_es": (cma_es.Args, cma_es.CMAES),
    "tpe": (tpe.Args, tpe.TPE),
}
NUM_DIGITS = {"discrete_reinforce": 4, "a2c": 5}
"""Number of children on Digits, 2 by default. What an agent learns from accuracies depends on the rounding of the CPU."""


OPTIONS: dict[str, dict[str, Any]] = {
    "elite_reinforce": {"learning_starts": 20, "train_freq": 10},
    "model_assisted": {
        **{"ask_batch_size": 5, "learning_starts": 20, "screen": False},
        **{"num_policy_candidates": 300, "num_mutants": 0},
    },
}
"""Options whose defaults depend on the budget, or were other ones when the trajectories were recorded."""


def keys_of(name: str, **options: Any) -> list[str]:
    """Search with the agent ``name`` and return the hashes of the keys, in order."""
    options |= OPTIONS.get(name, {})
    args = sb3.Args(algorithm=cast(Any, name), **options) if name not in AGENTS else AGENTS[name][0](**options)
    env = make_env(args)
    env.reset(seed=args.seed)
    with SearchLoop(env, args.budget) as loop:
        if isinstance(args, sb3.Args):
            sb3.learn(loop, args)
        else:
            loop.run(AGENTS[name][1](env, args), args.ask_batch_size)
    return [hashlib.sha256(trial.architecture.key.encode()).hexdigest()[:8] for trial in loop.trials]


@pytest.mark.usefixtures("tiny_children")
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_on_digits(name: str) -> None:
    recorded = TRAJECTORIES[name]["NASES-Digits-v0"].split()[: NUM_DIGITS.get(name, 2)]
    assert keys_of(name, env_id="NASES-Digits-v0", preset="smoke", budget=len(recorded)) == recorded


@pytest.mark.skipif(
    DATA_DIR is None or not Path(DATA_DIR, TABLE_NAME).is_file(), reason=f"NASES_DATA_DIR contains no {TABLE_NAME}"
)
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_on_nasbench201(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASES_DATA_DIR", str(DATA_DIR))
    recorded = TRAJECTORIES[name]["NASES-NASBench201-v0"].split()
    assert keys_of(name, env_id="NASES-NASBench201-v0", budget=len(recorded)) == recorded
