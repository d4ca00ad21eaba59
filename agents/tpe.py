"""Optuna's tree-structured Parzen estimator (Bergstra et al., 2011, "Algorithms for Hyper-Parameter Optimization").

    pip install 'nases-env[baselines]'
    python agents/tpe.py --env-id NASES-Digits-v0 --budget 40

Each decision is a categorical parameter. One density is fitted to the good children and one to the others; the next child is
the sample of the first density with the largest ratio of the first density to the second. Children in flight count as bad,
so that others are not close to them. A repeat is not evaluated again: the study learns its known reward and is asked again.
No embedding is used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from nases_agents.optuna_study import OptunaAgent, import_optuna

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.option_checks import require_at_least
from nases_env.seeding import derive_seed


@dataclass
class Args(SearchArgs):
    """Options of TPE. All others are Optuna's defaults."""

    uses_embedding: ClassVar[bool] = False

    num_init: int = 10
    """Random architectures before the densities are fitted, including infeasible ones, which are pruned trials in Optuna's
    terms; 10 in Optuna."""
    num_candidates: int = 24
    """Samples of the density of good children, the best of which is the next child; 24 in Optuna."""
    multivariate: bool = True
    """Fit joint densities of all decisions, the default since Optuna 5. Independent ones take several times longer and often
    propose repeats."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "num_init", "num_candidates")


class TPE(OptunaAgent):
    """Agent that asks a study of Optuna in memory. It learns from the first rung only.

    Args:
        env: an environment that was reset.
        args: the options, including the seed.

    Raises:
        InputError: if Optuna is not installed.
    """

    infeasible_state = "PRUNED"  # TPE ranks it below all evaluated ones

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        optuna = import_optuna("TPE")
        with warnings.catch_warnings():
            # Optuna 4 marks both options as experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=args.num_init,
                n_ei_candidates=args.num_candidates,
                multivariate=args.multivariate,
                constant_liar=True,
                seed=derive_seed(args.seed, "tpe") % 2**32,
            )
        super().__init__(optuna, sampler, unwrap(env).search_space)

    def values_of(self, evaluation: Evaluation) -> float:
        return evaluation.reward


def main(args: Args) -> None:
    """Search with Optuna's TPE on the decisions, without an embedding."""
    import_optuna("TPE")  # before anything is written
    with SearchRun(args, agent="tpe") as run:
        run.search(TPE(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
