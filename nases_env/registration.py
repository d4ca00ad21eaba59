"""Registration of the environments with Gymnasium."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register

MAX_EPISODE_STEPS = 100  # children; no state is terminal, so episodes are only truncated

_ACCEL = ("nases_env.envs.accel:AccelEnv", "nases_env.envs.vector:accel_vector_env")
_IMAGE = ("nases_env.envs.image:ImageEnv", "nases_env.envs.vector:image_vector_env")
_MO_IMAGE = ("nases_env.envs.multi_objective:MOImageEnv", "nases_env.envs.vector:mo_image_vector_env")
_MO_NASBENCH201 = (
    "nases_env.envs.multi_objective:MONasBench201Env",
    "nases_env.envs.vector:mo_nasbench201_vector_env",
)
_NASBENCH201 = ("nases_env.envs.nasbench201:NasBench201Env", "nases_env.envs.vector:nasbench201_vector_env")
_QUERY = ("nases_env.envs.query:QueryEnv", "nases_env.envs.vector:query_vector_env")
_SYNTHETIC = ("nases_env.envs.synthetic:SyntheticEnv", "nases_env.envs.vector:synthetic_vector_env")
_TRANSNAS_MICRO = ("nases_env.envs.transnas_micro:TransNASMicroEnv", "nases_env.envs.vector:transnas_micro_vector_env")

_ENVS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "NASES-CIFAR10-v0": (_IMAGE, {"dataset": "cifar10"}),
    "NASES-CIFAR100-v0": (_IMAGE, {"dataset": "cifar100"}),
    "NASES-FashionMNIST-v0": (_IMAGE, {"dataset": "fashion_mnist"}),
    "NASES-SVHN-v0": (_IMAGE, {"dataset": "svhn"}),
    "NASES-ImageFolder-v0": (_IMAGE, {"dataset": "image_folder"}),
    "NASES-Digits-v0": (_IMAGE, {"dataset": "digits"}),
    "NASES-Accel-v0": (_ACCEL, {}),
    "NASES-NASBench201-v0": (_NASBENCH201, {}),
    "NASES-Query-v0": (_QUERY, {}),
    "NASES-Synthetic-v0": (_SYNTHETIC, {}),
    "NASES-TransNASMicro-v0": (_TRANSNAS_MICRO, {}),
}

_MO_ENVS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "NASES-MO-CIFAR10-v0": (_MO_IMAGE, {"dataset": "cifar10"}),
    "NASES-MO-Digits-v0": (_MO_IMAGE, {"dataset": "digits"}),
    "NASES-MO-ImageFolder-v0": (_MO_IMAGE, {"dataset": "image_folder"}),
    "NASES-MO-NASBench201-v0": (_MO_NASBENCH201, {}),
}

ENV_IDS = tuple(_ENVS)
"""The ids of all environments of this package with one objective."""

MO_ENV_IDS = tuple(_MO_ENVS)
"""The ids of all environments of this package with several objectives."""


def register_envs() -> None:
    """Register all environments with Gymnasium."""
    for env_id, ((entry_point, vector_entry_point), kwargs) in {**_ENVS, **_MO_ENVS}.items():
        register(
            env_id,
            entry_point=entry_point,
            vector_entry_point=vector_entry_point,
            kwargs=kwargs,
            max_episode_steps=MAX_EPISODE_STEPS,
            disable_env_checker=env_id in _MO_ENVS,  # it requires a scalar reward
        )
