"""Learning rate schedules."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from nases_env.training.settings import TrainingSettings

WARM_UP_FRACTION = 0.25  # fraction of the training in which the triangular schedule rises


def learning_rate(settings: TrainingSettings, batch: int, num_batches: int) -> float:
    """Return the learning rate of a batch.

    ``cosine`` is SGDR (Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5, with
    T_mult = 2): ``settings.num_cycles`` cosine cycles from ``lr_max`` to ``lr_min``, each twice as long as the previous
    one. Together they last the whole training, so the first one lasts 1 / (2^num_cycles - 1) of it. The first cycle is 10
    epochs for both of the paper's settings: 70 epochs in 3 cycles, and 630 in 6 (section 4.2).

    ``triangular`` increases linearly from 0 to ``lr_max`` in the first quarter of the training and then decreases linearly
    to 0. It is evaluated at the middle of each batch, so the rate is never 0.

    Args:
        settings: the schedule and its parameters.
        batch: index of the batch in the whole training, 0 .. ``num_batches`` - 1.
        num_batches: number of batches in the whole training.
    """
    if settings.schedule == "triangular":
        progress = (batch + 0.5) / num_batches
        return settings.lr_max * min(progress / WARM_UP_FRACTION, (1 - progress) / (1 - WARM_UP_FRACTION))
    # Integer arithmetic, so that restarts are at the exact batch. The position is in units of 1 / num_batches of the first
    # cycle; cycle i covers [2^i - 1, 2^(i+1) - 1) lengths of the first cycle.
    position = batch * (2**settings.num_cycles - 1)
    cycle = (position // num_batches + 1).bit_length() - 1
    within = (position - (2**cycle - 1) * num_batches) / (2**cycle * num_batches)
    return settings.lr_min + 0.5 * (settings.lr_max - settings.lr_min) * (1 + math.cos(math.pi * within))


def restarted_learning_rate(settings: TrainingSettings, batch: int, rungs: Sequence[int], batches_per_epoch: int) -> float:
    """Return the learning rate of a batch if the schedule restarts after each rung.

    Args:
        settings: the schedule and its parameters.
        batch: index of the batch in the whole training.
        rungs: numbers of epochs, increasing; the last one is the whole training.
        batches_per_epoch: number of batches in an epoch.
    """
    ends = [0, *(rung * batches_per_epoch for rung in rungs)]
    index = bisect.bisect(ends, batch)
    return learning_rate(settings, batch - ends[index - 1], ends[index] - ends[index - 1])
