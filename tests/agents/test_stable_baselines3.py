"""Stable-Baselines3's agents learn in the embedding space, against a known answer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.ppo import PPO
from stable_baselines3.sac import SAC

EPISODE = 100  # children


@pytest.mark.parametrize(
    ("algorithm", "num_children", "options"),
    [
        (PPO, 1500, {"n_steps": 50, "batch_size": 50, "policy_kwargs": {"log_std_init": np.log(1 / 3)}}),
        (SAC, 800, {"batch_size": 64, "ent_coef": 0.01, "gradient_steps": 2, "policy_kwargs": {"net_arch": [64, 64]}}),
    ],
)
def test_it_learns(algorithm: type[PPO | SAC], num_children: int, options: dict[str, Any]) -> None:
    env = Monitor(gym.make("NASES-Analytic-v0"))
    agent = algorithm("MlpPolicy", env, gamma=0.0, learning_rate=3e-3, seed=0, device="cpu", **options)
    before, _ = evaluate_policy(agent, env, n_eval_episodes=1)
    agent.learn(num_children)
    after, _ = evaluate_policy(agent, env, n_eval_episodes=1)
    assert float(np.mean(after)) / EPISODE > float(np.mean(before)) / EPISODE + 0.1
