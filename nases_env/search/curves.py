"""The curves of a search, for TensorBoard and experiment trackers."""

from __future__ import annotations

from collections.abc import Mapping

from nases_env.evaluation import Status
from nases_env.search.loop import NUM_RECENT, SearchLoop
from nases_env.search.trials import Trial

BEST_REWARD = "search/best_reward"

Hyperparameters = Mapping[str, str | int | float | bool]


def trial_scalars(loop: SearchLoop, trial: Trial) -> dict[str, float]:
    """Return the values of a new trial by name: ``search/`` has the rewards, ``trial/`` what is known about the network."""
    assert loop.best is not None
    evaluation = trial.evaluation
    scalars: dict[str, float] = {
        BEST_REWARD: loop.best.evaluation.reward,
        "search/distinct_architectures": loop.num_distinct,
    }
    if trial.is_promotion:
        scalars[f"search/reward_{evaluation.fidelity}_epochs"] = evaluation.reward
    else:
        scalars["search/reward"] = evaluation.reward
        scalars[f"search/reward_mean_{NUM_RECENT}"] = sum(loop.recent_rewards) / len(loop.recent_rewards)
    if evaluation.num_params:
        scalars["trial/num_params"] = evaluation.num_params
        if evaluation.has_train_accuracy:
            scalars["trial/train_accuracy"] = evaluation.train_accuracy
        if evaluation.status is Status.OK and evaluation.score is not None:  # otherwise, the reward is this accuracy
            scalars["trial/valid_accuracy"] = evaluation.valid_accuracy
    if evaluation.seconds and trial.is_new:
        scalars["trial/seconds"] = evaluation.seconds
    return scalars


def agent_scalars(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the agent by name: ``update/``."""
    return {f"update/{name}": value for name, value in metrics.items()}
