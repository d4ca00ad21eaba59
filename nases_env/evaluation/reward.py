"""Rewards that predict the accuracy after the final training better than the accuracy of a short training does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from nases_env.training import EpochRecord

RewardSignal = Literal["valid_accuracy", "training_speed"]


def training_speed(curve: Sequence[EpochRecord]) -> float:
    """Return the geometric mean of the probability of the correct class during a training, in [0, 1].

    This is exp(-L), where L is the mean training loss over the epochs. A network that learns faster has a higher value (Ru
    et al., 2021, "Speedy Performance Estimation for Neural Architecture Search"). In the first epoch no image was seen
    before, so its loss measures generalization.

    Args:
        curve: the records of the epochs, at least one.
    """
    return math.exp(-sum(record.train_loss for record in curve) / len(curve))


def scale_odds(score: float, num_flops: int, exponent: float) -> float:
    """Return ``score`` with its odds multiplied by a power of the number of MFLOPs, in [0, 1].

    A short training favors networks that learn fast; the final training favors large ones. An exponent above 0 corrects
    for the difference, and one below 0 favors small networks.

    Args:
        score: a number in [0, 1].
        num_flops: floating-point operations of a forward pass of one image, at least 1.
        exponent: the exponent of the number of MFLOPs.
    """
    factor: float = (num_flops / 1e6) ** exponent
    return score * factor / (score * factor + (1 - score))
