"""Gymnasium environments for neural architecture search in embedding space.

Importing this package registers the environments:

    >>> import gymnasium, nases_env
    >>> gymnasium.register_envs(nases_env)  # has no effect; linters would remove an unused import
    >>> env = gymnasium.make("NASES-Digits-v0")

``load_model`` loads a trained model; it is imported lazily because it requires torch.
"""

from typing import TYPE_CHECKING

from nases_env.registration import ENV_IDS, MO_ENV_IDS, register_envs
from nases_env.version import __version__

if TYPE_CHECKING:
    from nases_env.model_io import load_model

__all__ = ["ENV_IDS", "MO_ENV_IDS", "__version__", "load_model"]


def __getattr__(name: str) -> object:
    if name == "load_model":
        from nases_env.model_io import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_envs()
