"""The ids under which Gymnasium finds the environments."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register

MAX_EPISODE_STEPS = 100  # children; the task goes on forever, so that the episode is cut and not ended

_ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "NASES-CIFAR10-v0": ("nases_env.env:ImageEnv", {"dataset": "cifar10"}),
    "NASES-CIFAR100-v0": ("nases_env.env:ImageEnv", {"dataset": "cifar100"}),
    "NASES-FashionMNIST-v0": ("nases_env.env:ImageEnv", {"dataset": "fashion_mnist"}),
    "NASES-SVHN-v0": ("nases_env.env:ImageEnv", {"dataset": "svhn"}),
    "NASES-ImageFolder-v0": ("nases_env.env:ImageEnv", {"dataset": "image_folder"}),
    "NASES-Digits-v0": ("nases_env.env:ImageEnv", {"dataset": "digits"}),
    "NASES-NASBench201-v0": ("nases_env.env:TableEnv", {}),
    "NASES-LookUp-v0": ("nases_env.env:LookUpEnv", {}),
    "NASES-Analytic-v0": ("nases_env.env:AnalyticEnv", {}),
}

ENV_IDS = tuple(_ENVS)
"""All ids of this package."""


def register_envs() -> None:
    """Registers all environments with Gymnasium."""
    for env_id, (entry_point, kwargs) in _ENVS.items():
        register(env_id, entry_point=entry_point, kwargs=kwargs, max_episode_steps=MAX_EPISODE_STEPS)
