"""Tune the hyperparameters of an agent with Optuna, on random landscapes that cost no training.

    python examples/optuna_tuning.py --num-trials 30

Each trial searches several landscapes with the same hyperparameters and reports the mean of the best rewards; Optuna stops
trials that are worse than the median of the earlier ones. The best trial is then compared with the defaults of the agent on
landscapes that were not used for tuning.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gymnasium
import optuna
import tyro
from nases_agents.regularized_evolution import Args as AgentArgs
from nases_agents.regularized_evolution import RegularizedEvolution

from nases_env.search import SearchLoop


@dataclass
class Args:
    """Tune regularized evolution."""

    num_trials: int = 30
    budget: int = 200  # children per search
    num_landscapes: int = 8  # for tuning, and as many for the comparison
    seed: int = 0


def best_rewards(agent_args: AgentArgs, landscapes: Sequence[int], budget: int) -> Iterator[float]:
    """Yield the best reward of a search on each landscape."""
    for landscape in landscapes:
        env = gymnasium.make("nases_env:NASES-Synthetic-v0", landscape_seed=landscape)
        env.reset(seed=landscape)
        with SearchLoop(env, budget) as loop:
            loop.run(RegularizedEvolution(env, agent_args))
        assert loop.best is not None
        yield loop.best.evaluation.reward


def tune(args: Args) -> tuple[dict[str, int], float, float]:
    """Tune the hyperparameters, and compare the best ones with the defaults on new landscapes.

    Returns:
        The best hyperparameters, and the mean of the best rewards with the defaults and with the best hyperparameters.
    """

    def objective(trial: optuna.Trial) -> float:
        population_size = trial.suggest_int("population_size", 5, 100, log=True)
        sample_size = trial.suggest_int("sample_size", 2, population_size, log=True)
        agent_args = AgentArgs(population_size=population_size, sample_size=sample_size)
        rewards: list[float] = []
        for step, reward in enumerate(best_rewards(agent_args, range(args.num_landscapes), args.budget)):
            rewards.append(reward)
            trial.report(statistics.mean(rewards), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return statistics.mean(rewards)

    sampler = optuna.samplers.TPESampler(seed=args.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, args.num_trials)

    new = range(args.num_landscapes, 2 * args.num_landscapes)
    default = statistics.mean(best_rewards(AgentArgs(), new, args.budget))
    tuned = statistics.mean(best_rewards(AgentArgs(**study.best_params), new, args.budget))
    return study.best_params, default, tuned


if __name__ == "__main__":
    params, default_reward, tuned_reward = tune(tyro.cli(Args))
    print(f"{params}: mean reward {tuned_reward:.4f} on new landscapes, with the defaults {default_reward:.4f}")
