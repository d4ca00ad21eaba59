"""The Gymnasium environments, one per file."""

from nases_env.envs.accel import AccelEnv
from nases_env.envs.base import ACTION_SCALE, Action, NASESEnv, Observation, unwrap
from nases_env.envs.image import ImageEnv
from nases_env.envs.multi_objective import MOEnv, MOImageEnv, MONasBench201Env
from nases_env.envs.nasbench201 import NasBench201Env
from nases_env.envs.query import QueryEnv
from nases_env.envs.synthetic import SyntheticEnv
from nases_env.envs.table import TableEnv
from nases_env.envs.transnas_micro import TransNASMicroEnv
from nases_env.envs.vector import NASESVectorEnv, vector_entry_point

__all__ = [
    "ACTION_SCALE",
    "AccelEnv",
    "Action",
    "ImageEnv",
    "MOEnv",
    "MOImageEnv",
    "MONasBench201Env",
    "NASESEnv",
    "NASESVectorEnv",
    "NasBench201Env",
    "Observation",
    "QueryEnv",
    "SyntheticEnv",
    "TableEnv",
    "TransNASMicroEnv",
    "unwrap",
    "vector_entry_point",
]
