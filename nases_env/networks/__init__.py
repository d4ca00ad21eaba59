"""The child networks as plain torch modules."""

from nases_env.networks.settings import NetworkSettings

__all__ = ["NetworkSettings"]
