"""Stable-Baselines3 with its callbacks: checkpoints, TensorBoard, early stopping, and the best architecture as a file.

    python examples/sb3_callbacks.py --env-id nases_env:NASES-Digits-v0 --num-children 100

``agents/sb3.py`` runs the same library as an agent, with a run directory that can be resumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback

from nases_env.sb3_vec_env import SB3VecEnv


@dataclass
class Args:
    """PPO of Stable-Baselines3 with callbacks."""

    env_id: str = "nases_env:NASES-Synthetic-v0"
    num_children: int = 512
    num_envs: int = 8
    target_reward: float = 0.9  # stop when a child reaches it
    output: Path = Path("sb3")
    seed: int = 0


class BestArchitecture(BaseCallback):
    """Write the best architecture to a file, log its reward, and stop when it reaches a target."""

    def __init__(self, path: Path, target_reward: float) -> None:
        super().__init__()
        self.path = path
        self.target_reward = target_reward
        self.best_reward = -math.inf

    def _on_step(self) -> bool:
        for reward, info in zip(self.locals["rewards"], self.locals["infos"], strict=True):
            if reward > self.best_reward:
                self.best_reward = float(reward)
                self.path.write_text(info["genotype"])
        self.logger.record("search/best_reward", self.best_reward)
        return self.best_reward < self.target_reward


def train(args: Args) -> BestArchitecture:
    """Train PPO and return the callback with the best reward."""
    args.output.mkdir(parents=True, exist_ok=True)
    env = SB3VecEnv(gymnasium.make_vec(args.env_id, num_envs=args.num_envs))
    best = BestArchitecture(args.output / "best.json", args.target_reward)
    checkpoints = CheckpointCallback(save_freq=max(1, 128 // args.num_envs), save_path=str(args.output))
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        n_steps=4,  # per sub-environment; SB3's default of 2,048 suits environments whose steps are cheap
        batch_size=4 * args.num_envs,
        gamma=0.0,  # a reward depends on the action of its step alone
        policy_kwargs={"log_std_init": math.log(1 / 3)},  # the standard deviation of random embeddings
        tensorboard_log=str(args.output),
        seed=args.seed,
        device="cpu",
    )
    model.learn(args.num_children, CallbackList([best, checkpoints]))
    env.close()
    return best


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    print(f"best reward {train(arguments).best_reward:.4f}; draw it: nases draw {arguments.output / 'best.json'}")
