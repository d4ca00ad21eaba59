"""A Stable-Baselines3 agent in the embedding space, on the environment whose answer is known: about ten seconds.

    python examples/ppo_baseline.py

A step of a real environment trains a network. SB3's defaults are made for steps that are free: PPO collects 2,048 of them
before its first update, SAC takes 100 at random before it learns. Set such numbers by what you can pay for, as below.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.ppo import PPO

import nases_env  # noqa: F401 - registers the environments


def main(num_children: int = 2000) -> None:
    # Nothing that the agent does changes what it may do next, so that rewards of later steps are noise: gamma is 0.
    env = Monitor(gymnasium.make("NASES-Analytic-v0"))
    # An action of 1 is three standard deviations of the embedding: exploration starts at one of them.
    policy = {"log_std_init": np.log(1 / 3)}
    agent = PPO("MlpPolicy", env, n_steps=50, batch_size=50, gamma=0.0, learning_rate=1e-3, policy_kwargs=policy, seed=0)
    before, _ = evaluate_policy(agent, env, n_eval_episodes=1, deterministic=True)
    agent.learn(num_children)
    after, _ = evaluate_policy(agent, env, n_eval_episodes=1, deterministic=True)
    episode = np.float64(env.spec.max_episode_steps)  # type: ignore[union-attr]
    print(f"mean reward of a child: {before / episode:.3f} before, {after / episode:.3f} after {num_children} children")


if __name__ == "__main__":
    main()
