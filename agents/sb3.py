"""Stable-Baselines3's PPO, A2C, SAC and TD3 in the embedding space, set up for steps that are dear.

    python agents/sb3.py --algorithm sac --env-id NASES-CIFAR10-v0 --budget 100

SB3's defaults are made for steps that are free: PPO collects 2,048 of them before its first update, SAC takes 100 at random
before it learns. Here a step trains a network, so that updates are many and do not wait for long. Nothing that an agent does
changes what it may do next: rewards of later steps say nothing about an action, and gamma is 0.

SB3 draws from the global generators of torch, NumPy and Python, which are seeded here, and chooses one child for each of
--num-envs before it hears of any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

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
from nases_env.seeding import derive_seed

SETTINGS: dict[str, dict[str, float]] = {
    "ppo": {"learning_rate": 1e-3, "num_steps": 10, "num_gradient_steps": 10},
    "a2c": {"learning_rate": 1e-3, "num_steps": 5},
    "sac": {"learning_rate": 3e-3, "num_gradient_steps": 2},
    "td3": {"learning_rate": 1e-3, "num_gradient_steps": 4},
}
"""What options are that were not given, chosen on NASES-Synthetic-v0 at 300 children."""


@dataclass
class Args(SearchArgs):
    """The options of SB3's algorithms that matter where steps are dear; SB3's defaults hold for all others."""

    algorithm: Literal["ppo", "a2c", "sac", "td3"] = "ppo"
    """PPO (Schulman et al., 2017), A2C (Mnih et al., 2016), SAC (Haarnoja et al., 2018) or TD3 (Fujimoto et al., 2018)."""
    learning_rate: float | None = None
    """Of the algorithm's optimiser; unset: 0.003 for sac, else 0.001. SB3's are 0.0003, 0.0007 for a2c and 0.001 for td3."""
    num_steps: int | None = None
    """ppo, a2c: children between two updates, rounded up to a multiple of num_envs; unset: 10 and 5. SB3's are 2,048 and 5
    for each of num_envs."""
    num_gradient_steps: int | None = None
    """ppo: passes over these children; sac, td3: gradient steps a child. Unset: 10, 2 and 4. SB3's are 10, 1 and 1."""
    sigma: float = 1.0
    """Exploration width at the beginning, in standard deviations of the embedding; with 1 the first children vary as those
    of random embeddings do. SB3's own for ppo and a2c would be 3. td3's noise keeps this width, the others learn theirs."""
    entropy_coefficient: float = 0.05
    """sac: weight of the policy's entropy beside a standardised reward, fixed. SB3 learns it from 1 on, where it drowns the
    reward for hundreds of children; with less than 0.05 the policy learns faster and ends on few children."""
    learning_starts: int = 10
    """sac, td3: children from uniform actions before the agent acts and learns. SB3: 100."""
    batch_size: int = 64
    """sac, td3: children that a gradient step learns from, drawn among all so far. SB3: 256."""
    standardize_rewards: bool = True
    """Take the mean of the rewards so far from a reward and divide by their deviation: accuracies lie close together and far
    from 0, while SB3's critics and SAC's entropy expect rewards around 0, of the order of 1."""

    def __post_init__(self) -> None:
        # PPO and A2C standardise the advantages of an update, which takes two of them.
        at_least = {"num_steps": 2, "num_gradient_steps": 1, "learning_starts": 0, "batch_size": 1}
        for option, least in at_least.items():
            value = getattr(self, option)
            if value is not None and value < least:
                raise InputError(f"--{option.replace('_', '-')} must be at least {least}, not {value}")
        for option in ("sigma", "learning_rate"):
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {value}")
        if not 0 <= self.entropy_coefficient < math.inf:
            raise InputError(f"--entropy-coefficient must be 0 or a positive number, not {self.entropy_coefficient}")
        if self.ask_batch_size != 1:
            raise InputError(
                f"--ask-batch-size must be 1, not {self.ask_batch_size}: Stable-Baselines3 chooses a child for each of --num-envs"
            )

    def setting(self, option: str) -> Any:
        """The value of ``option``, where it was not given the algorithm's in ``SETTINGS``."""
        value = getattr(self, option)
        return SETTINGS[self.algorithm][option] if value is None else value


class StandardizedRewards(VecNormalize):
    """Standardises rewards by the mean and deviation of all so far; ``VecNormalize`` leaves the mean in."""

    def __init__(self, env: VecEnv) -> None:
        super().__init__(env, norm_obs=False, gamma=0.0)

    def normalize_reward(self, reward: NDArray[Any]) -> NDArray[np.float32]:
        standard = (reward - self.ret_rms.mean) / np.sqrt(self.ret_rms.var + self.epsilon)
        return np.clip(standard, -self.clip_reward, self.clip_reward).astype(np.float32)


class SearchCallback(BaseCallback):
    """Ends the training with the search's budget, and logs SB3's losses after every update."""

    def __init__(self, search: SearchLoop) -> None:
        super().__init__()
        self.search = search

    def _on_rollout_start(self) -> None:
        self.search.log(
            {name: float(value) for name, value in self.logger.name_to_value.items() if name.startswith("train/")}
        )

    def _on_step(self) -> bool:
        return not self.search.done


def make_model(search: SearchLoop, args: Args) -> BaseAlgorithm:
    """SB3's algorithm as ``args`` say, its environment ``search``."""
    seed = derive_seed(args.seed, "stable-baselines3") % 2**32
    set_random_seed(seed)
    num_envs = search.num_envs
    env: VecEnv = SB3VecEnv(NASESVectorEnv(search.nases, num_envs, evaluate_all=search.evaluate_all))
    env.seed(search.nases.np_random_seed)  # the children's own seeds stay those of the environment
    env.action_space.seed(seed)
    if args.standardize_rewards:
        env = StandardizedRewards(env)
    log_sigma = math.log(args.sigma / ACTION_SCALE)
    # Networks as small as these are slower on a GPU.
    options: dict[str, Any] = {"learning_rate": args.setting("learning_rate"), "gamma": 0.0, "device": "cpu"}
    if args.algorithm in ("ppo", "a2c"):
        num_steps = math.ceil(args.setting("num_steps") / num_envs)
        options |= {"n_steps": num_steps, "normalize_advantage": True, "policy_kwargs": {"log_std_init": log_sigma}}
        if args.algorithm == "a2c":
            return A2C("MlpPolicy", env, **options)
        return PPO("MlpPolicy", env, batch_size=num_steps * num_envs, n_epochs=args.setting("num_gradient_steps"), **options)
    options |= {
        "buffer_size": search.budget + num_envs * num_envs,  # SB3 gives each its share, rounded down
        "learning_starts": args.learning_starts,
        "batch_size": args.batch_size,
        "gradient_steps": args.setting("num_gradient_steps") * num_envs,
        "policy_kwargs": {"net_arch": [64, 64]},  # as SB3's PPO; 256 and 400 are for longer learning
    }
    if args.algorithm == "td3":
        width = np.full(search.nases.embedding.embedding_size, args.sigma / ACTION_SCALE)
        noise = NormalActionNoise(np.zeros_like(width), width)
        return TD3("MlpPolicy", env, action_noise=noise, **options)
    sac = SAC("MlpPolicy", env, ent_coef=args.entropy_coefficient, **options)
    layer = sac.actor.log_std
    assert isinstance(layer, nn.Linear)
    nn.init.constant_(layer.bias, log_sigma)
    return sac


def learn(search: SearchLoop, args: Args) -> None:
    """Trains SB3's algorithm in ``search`` until its budget is spent, and not a child longer."""
    if search.done:
        return
    model = make_model(search, args)
    model.set_logger(Logger(folder=None, output_formats=[]))
    with torch_threads(1):
        # SB3's own logging would come every so many episodes and empty the logger: it never comes.
        model.learn(search.budget - len(search.children), SearchCallback(search), log_interval=search.budget + 1)


def main(args: Args) -> None:
    """Search with an algorithm of Stable-Baselines3 in the embedding space."""
    with SearchRun(args, agent=args.algorithm) as search:
        learn(search, args)


if __name__ == "__main__":
    run_search(Args, main)
