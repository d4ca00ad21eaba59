"""Neural architecture search in embedding space, as Gymnasium environments.

Importing this package registers them:

    >>> import gymnasium, nases_env
    >>> env = gymnasium.make("NASES-Digits-v0")
"""

from nases_env.registration import ENV_IDS, register_envs

__version__ = "0.1.0"

__all__ = ["ENV_IDS", "__version__"]

register_envs()
