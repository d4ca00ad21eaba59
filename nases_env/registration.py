"""The ids under which Gymnasium finds the environments."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register

MAX_EPISODE_STEPS = 100  # children; the task goes on forever, so that the episode is cut and not ended

_IMAGE = ("nases_env.envs.image:ImageEnv", "nases_env.envs.vector:image_vector_env")
_TABLE = ("nases_env.envs.nasbench201:NasBench201Env", "nases_env.envs.vector:nasbench201_vector_env")
_LOOK_UP = ("nases_env.envs.query:QueryEnv", "nases_env.envs.vector:query_vector_env")
_ANALYTIC = ("nases_env.envs.synthetic:SyntheticEnv", "nases_env.envs.vector:synthetic_vector_env")

_ENVS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "NASES-CIFAR10-v0": (_IMAGE, {"dataset": "cifar10"}),
    "NASES-CIFAR100-v0": (_IMAGE, {"dataset": "cifar100"}),
    "NASES-FashionMNIST-v0": (_IMAGE, {"dataset": "fashion_mnist"}),
    "NASES-SVHN-v0": (_IMAGE, {"dataset": "svhn"}),
    "NASES-ImageFolder-v0": (_IMAGE, {"dataset": "image_folder"}),
    "NASES-Digits-v0": (_IMAGE, {"dataset": "digits"}),
    "NASES-NASBench201-v0": (_TABLE, {}),
    "NASES-Query-v0": (_LOOK_UP, {}),
    "NASES-Synthetic-v0": (_ANALYTIC, {}),
}

ENV_IDS = tuple(_ENVS)
"""All ids of this package."""


def register_envs() -> None:
    """Registers all environments with Gymnasium."""
    for env_id, ((entry_point, vector_entry_point), kwargs) in _ENVS.items():
        register(
            env_id,
            entry_point=entry_point,
            vector_entry_point=vector_entry_point,
            kwargs=kwargs,
            max_episode_steps=MAX_EPISODE_STEPS,
        )
