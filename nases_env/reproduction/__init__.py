"""The paper's whole protocol by one command: pretraining, search and final training, for several seeds, and a report."""

from nases_env.reproduction.args import ReproduceArgs
from nases_env.reproduction.command import reproduce_command

__all__ = ["ReproduceArgs", "reproduce_command"]
