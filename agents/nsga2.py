"""NSGA-II (Deb et al., 2002, "A Fast and Elitist Multiobjective Genetic Algorithm") of Optuna, for several objectives.

    pip install 'nases-env[baselines]'
    python agents/nsga2.py --env-id NASES-MO-Digits-v0 --budget 40

Each decision is a categorical parameter. A new child is a crossover of two parents with mutations; parents are selected by
non-dominated sorting and crowding distance. A repeat is not evaluated again: the study learns its known values and is asked
again. No embedding is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from nases_agents.mo_model_assisted import require_objectives
from nases_agents.optuna_study import OptunaAgent, import_optuna

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.option_checks import require_at_least
from nases_env.seeding import derive_seed


@dataclass
class Args(SearchArgs):
    """Options of NSGA-II. All others are Optuna's defaults."""

    uses_embedding: ClassVar[bool] = False

    population_size: int = 20
    """Children per generation; the first generation is random. Default of Optuna: 50."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "population_size")

    def check_env(self, env: NASESEnv) -> None:
        require_objectives(env, "nsga2")


class NSGA2(OptunaAgent):
    """Agent that asks a study of Optuna in memory. It learns from the first rung only.

    Args:
        env: an environment with several objectives that was reset.
        args: the options, including the seed.

    Raises:
        InputError: if Optuna is not installed, or the environment has one objective.
    """

    infeasible_state = "FAIL"  # it takes no part in the selection

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        optuna = import_optuna("NSGA-II")
        self.env = require_objectives(env, "nsga2")
        sampler = optuna.samplers.NSGAIISampler(
            population_size=args.population_size, seed=derive_seed(args.seed, "nsga2") % 2**32
        )
        super().__init__(optuna, sampler, self.env.search_space, self.env.reward_dim)

    def values_of(self, evaluation: Evaluation) -> list[float]:
        values: list[float] = self.env.reward_of(evaluation).tolist()
        return values


def main(args: Args) -> None:
    """Search for the Pareto front with Optuna's NSGA-II on the decisions, without an embedding."""
    import_optuna("NSGA-II")  # before anything is written
    with SearchRun(args, agent="nsga2") as run:
        run.search(NSGA2(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
