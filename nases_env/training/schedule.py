"""The learning rate at every batch."""

from __future__ import annotations

import math

from nases_env.training.settings import TrainingSettings

WARM_UP_FRACTION = 0.25  # share of the training in which the triangle rises


def learning_rate(settings: TrainingSettings, batch: int, num_batches: int) -> float:
    """The learning rate of one batch.

    ``cosine`` is SGDR (Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5, with
    T_mult = 2): ``settings.num_cycles`` cosines from ``lr_max`` towards ``lr_min``, each twice as long as the one before,
    which together fill the training; the first lasts 1 / (2^num_cycles - 1) of it. The paper's 70 epochs in 3 cycles, and
    630 in 6, both make that first cycle 10 epochs (section 4.2).

    ``triangular`` rises linearly from 0 to ``lr_max`` in the first quarter and falls linearly to 0 in the rest; a batch gets
    the rate at its middle, so that no batch is trained with 0.

    Args:
        batch: 0 .. num_batches - 1, counted over the whole training.
        num_batches: all batches of the training.
    """
    if settings.schedule == "triangular":
        progress = (batch + 0.5) / num_batches
        return settings.lr_max * min(progress / WARM_UP_FRACTION, (1 - progress) / (1 - WARM_UP_FRACTION))
    # In integers, so that a restart is at exactly the batch where it belongs: the position is counted in units of
    # 1 / num_batches of the first cycle's length, and cycle i covers [2^i - 1, 2^(i+1) - 1) first-cycle lengths.
    position = batch * (2**settings.num_cycles - 1)
    cycle = (position // num_batches + 1).bit_length() - 1
    within = (position - (2**cycle - 1) * num_batches) / (2**cycle * num_batches)
    return settings.lr_min + 0.5 * (settings.lr_max - settings.lr_min) * (1 + math.cos(math.pi * within))
