"""PPO, A2C, SAC and TD3 of Stable-Baselines3 in the embedding space, with hyperparameters for expensive steps.

    python agents/sb3.py --algorithm sac --env-id NASES-CIFAR10-v0 --budget 100

SB3's defaults assume cheap steps: PPO collects 2,048 steps before its first update, SAC takes 100 random steps before it
learns. Here a step trains a network, so updates are earlier and more frequent. The task is a bandit (a reward depends on its
own action alone), so gamma = 0.

SB3 uses the global generators of torch, NumPy and Python, which are seeded here. It chooses ``--num-envs`` children
before any of them is evaluated.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.a2c import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.ppo import PPO
from stable_baselines3.sac import SAC
from stable_baselines3.td3 import TD3
from torch import nn

from nases_env.cpu import torch_threads
from nases_env.envs import ACTION_SCALE, NASESVectorEnv
from nases_env.errors import InputError
from nases_env.sb3_vec_env import SB3VecEnv
from nases_env.search import SearchArgs, SearchLoop, SearchRun, run_search
from nases_env.search.option_checks import require_at_least, require_default, require_non_negative, require_positive
from nases_env.seeding import derive_seed

DEFAULTS: dict[str, dict[str, float]] = {
    "ppo": {"learning_rate": 1e-3, "n_steps": 10, "gradient_steps": 10},
    "a2c": {"learning_rate": 1e-3, "n_steps": 5},
    "sac": {"learning_rate": 3e-3, "gradient_steps": 2},
    "td3": {"learning_rate": 1e-3, "gradient_steps": 4},
}
"""Defaults per algorithm, tuned on NASES-Synthetic-v0 with 300 children."""

MAX_BUFFER_SIZE = 100_000  # children in the replay buffer


@dataclass
class Args(SearchArgs):
    """Options of SB3's algorithms that matter for expensive steps; SB3's defaults are used for all others."""

    essential: ClassVar[tuple[str, ...]] = (*SearchArgs.essential, "algorithm")

    algorithm: Literal["ppo", "a2c", "sac", "td3"] = "ppo"
    """PPO (Schulman et al., 2017), A2C (Mnih et al., 2016), SAC (Haarnoja et al., 2018) or TD3 (Fujimoto et al., 2018)."""
    learning_rate: float | None = None
    """Learning rate of the optimizer. Default: 0.003 for sac, 0.001 for the others. SB3: 0.0003, 0.0007 for a2c, 0.001 for
    td3."""
    n_steps: int | None = None
    """ppo, a2c: children per update, rounded up to a multiple of num_envs. Default: 10 and 5. SB3: 2,048 and 5 for each of
    num_envs."""
    gradient_steps: int | None = None
    """ppo: epochs per update; sac, td3: gradient steps per child. Default: 10, 2 and 4. SB3: 10, 1 and 1."""
    std: float = 1.0
    """Initial exploration width in standard deviations of the embedding; with 1 the first children are as diverse as
    those of random embeddings. SB3's ppo and a2c start with 3. td3 keeps this width; the others learn theirs."""
    ent_coef: float = 0.05
    """sac: fixed entropy coefficient, relative to standardized rewards. SB3 learns it, starting at 1, where the entropy
    dominates the reward for hundreds of children; values below 0.05 learn faster but end with few distinct children."""
    learning_starts: int = 10
    """sac, td3: children from uniform actions before the agent acts and learns, including infeasible ones. SB3: 100."""
    batch_size: int = 64
    """sac, td3: children per gradient step, sampled from all previous ones. SB3: 256."""
    standardize_rewards: bool = True
    """Subtract the mean of all previous rewards and divide by their standard deviation. Accuracies are close together and
    far from 0, while SB3's critics and SAC's entropy coefficient expect rewards around 0 with a scale of 1."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "n_steps")  # PPO and A2C standardize the advantages of an update
        require_at_least(self, 1, "gradient_steps", "batch_size")
        require_at_least(self, 0, "learning_starts")
        require_positive(self, "std", "learning_rate")
        require_non_negative(self, "ent_coef")
        reason = f"with --algorithm {self.algorithm}"
        if self.algorithm in ("ppo", "a2c"):
            require_default(self, reason, "ent_coef", "learning_starts", "batch_size")
        else:
            require_default(self, reason, "n_steps")
        if self.algorithm == "a2c":
            require_default(self, reason, "gradient_steps")
        if self.algorithm == "td3":
            require_default(self, reason, "ent_coef")
        if self.ask_batch_size != 1:
            raise InputError(
                f"--ask-batch-size must be 1, not {self.ask_batch_size}; "
                "Stable-Baselines3 proposes --num-envs children at a time"
            )

    def setting(self, option: str) -> Any:
        """Return the value of ``option``, or the default of the algorithm if it is None."""
        value = getattr(self, option)
        return DEFAULTS[self.algorithm][option] if value is None else value


class StandardizedRewards(VecNormalize):
    """Standardize rewards by the running mean and standard deviation; ``VecNormalize`` does not subtract the mean."""

    def __init__(self, env: VecEnv) -> None:
        super().__init__(env, norm_obs=False, gamma=0.0)

    def normalize_reward(self, reward: NDArray[Any]) -> NDArray[np.float32]:
        standardized = (reward - self.ret_rms.mean) / np.sqrt(self.ret_rms.var + self.epsilon)
        return np.clip(standardized, -self.clip_reward, self.clip_reward).astype(np.float32)


CONSTANT_METRICS = ("train/learning_rate", "train/clip_range", "train/ent_coef")
"""Metrics that SB3 logs after every update but that never change here."""


class BudgetCallback(BaseCallback):
    """Stop training when the budget of the search is used up, and log SB3's losses after every update."""

    def __init__(self, loop: SearchLoop) -> None:
        super().__init__()
        self.loop = loop

    def _on_rollout_start(self) -> None:
        losses = {name: float(value) for name, value in self.logger.name_to_value.items() if name.startswith("train/")}
        self.loop.log({name: value for name, value in losses.items() if name not in CONSTANT_METRICS})

    def _on_step(self) -> bool:
        return not self.loop.done


def make_model(loop: SearchLoop, args: Args) -> BaseAlgorithm:
    """Create SB3's algorithm with the options ``args`` in the environment of ``loop``."""
    seed = derive_seed(args.seed, "stable-baselines3") % 2**32
    set_random_seed(seed)
    num_envs = loop.num_envs
    env: VecEnv = SB3VecEnv(NASESVectorEnv(loop.env, num_envs, evaluate_all=loop.evaluate_all))
    env.seed(loop.env.np_random_seed)  # so that the seeds of children do not depend on the agent
    env.action_space.seed(seed)
    if args.standardize_rewards:
        env = StandardizedRewards(env)
    log_std = math.log(args.std / ACTION_SCALE)
    # The networks are small and slower on a GPU.
    options: dict[str, Any] = {"learning_rate": args.setting("learning_rate"), "gamma": 0.0, "device": "cpu"}
    if args.algorithm in ("ppo", "a2c"):
        n_steps = math.ceil(args.setting("n_steps") / num_envs)
        options |= {"n_steps": n_steps, "normalize_advantage": True, "policy_kwargs": {"log_std_init": log_std}}
        if args.algorithm == "a2c":
            return A2C("MlpPolicy", env, **options)
        return PPO("MlpPolicy", env, batch_size=n_steps * num_envs, n_epochs=args.setting("gradient_steps"), **options)
    options |= {
        # Not the budget: the buffer also holds infeasible children, and a resumed search may have a larger budget.
        "buffer_size": MAX_BUFFER_SIZE,
        "learning_starts": args.learning_starts,
        "batch_size": args.batch_size,
        "gradient_steps": args.setting("gradient_steps") * num_envs,
        "policy_kwargs": {"net_arch": [64, 64]},  # as in SB3's PPO; SB3's 256 and 400 units suit longer training
    }
    if args.algorithm == "td3":
        width = np.full(loop.env.embedding.embedding_size, args.std / ACTION_SCALE)
        noise = NormalActionNoise(np.zeros_like(width), width)
        return TD3("MlpPolicy", env, action_noise=noise, **options)
    sac = SAC("MlpPolicy", env, ent_coef=args.ent_coef, **options)
    layer = sac.actor.log_std
    assert isinstance(layer, nn.Linear)
    nn.init.constant_(layer.bias, log_std)
    return sac


def learn(loop: SearchLoop, args: Args) -> None:
    """Train SB3's algorithm until the budget of ``loop`` is used up, without exceeding it.

    The callback ends the training, because infeasible children are steps of SB3 but do not count toward the budget.
    """
    if loop.done:
        return
    model = make_model(loop, args)
    model.set_logger(Logger(folder=None, output_formats=[]))
    with torch_threads(1):
        # SB3's own logging would clear the logger; this interval is never reached.
        model.learn(sys.maxsize, BudgetCallback(loop), log_interval=sys.maxsize)


def main(args: Args) -> None:
    """Search with an algorithm of Stable-Baselines3 in the embedding space."""
    with SearchRun(args, agent=args.algorithm) as run:
        learn(run.loop, args)


if __name__ == "__main__":
    run_search(Args, main)
