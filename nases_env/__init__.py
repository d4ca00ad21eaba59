"""Neural architecture search in embedding space, as Gymnasium environments.

Importing this package registers them:

    >>> import gymnasium, nases_env
    >>> env = gymnasium.make("NASES-Digits-v0")

``load_model`` reads a trained model back; it is imported when it is asked for, since it needs torch.
"""

from typing import TYPE_CHECKING

from nases_env.registration import ENV_IDS, register_envs
from nases_env.version import __version__

if TYPE_CHECKING:
    from nases_env.model_io import load_model

__all__ = ["ENV_IDS", "__version__", "load_model"]


def __getattr__(name: str) -> object:
    if name == "load_model":
        from nases_env.model_io import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_envs()
