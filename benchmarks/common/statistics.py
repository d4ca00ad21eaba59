"""What is said of numbers that a few seeds gave, each with a 95 % bootstrap interval.

As in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021): percentile intervals,
resampling seeds, and the probability of improvement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

NUM_RESAMPLES = 5000
BATCH_SIZE = 50  # resamples that are held in memory at once


class Estimate(NamedTuple):
    """A number and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def mean(values: Numbers, rng: np.random.Generator) -> Estimate:
    """The mean of one value a seed, shape (seeds,); of differences between two agents on the same seeds, the paired one."""
    low, high = mean_band(values[:, None], rng)
    return Estimate(float(values.mean()), float(low[0]), float(high[0]))


def mean_band(values: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The ends of the intervals of means over seeds: shape (seeds, points) gives two of shape (points,)."""
    low, high = _bootstrap((values,), np.mean, rng)
    return low, high


def probability_of_improvement(ours: Numbers, baseline: Numbers, rng: np.random.Generator) -> Estimate:
    """P(X > Y) + P(X = Y) / 2 for one seed X of ``ours`` and one Y of ``baseline``, shapes (seeds,), drawn independently.

    It is the Mann-Whitney statistic over the number of pairs. Both samples are resampled.
    """
    wins = (ours[:, None] > baseline) + 0.5 * (ours[:, None] == baseline)

    def share(rows: NDArray[np.int64], columns: NDArray[np.int64], axis: int) -> Numbers:
        resampled: Numbers = wins[rows[..., :, None], columns[..., None, :]].mean(axis=(axis - 1, axis))
        return resampled

    low, high = _bootstrap((np.arange(len(ours)), np.arange(len(baseline))), share, rng, axis=-1)
    return Estimate(float(wins.mean()), float(low), float(high))


def _bootstrap(samples: tuple[NDArray[Any], ...], statistic: Any, rng: np.random.Generator, axis: int = 0) -> Any:
    result = scipy.stats.bootstrap(
        samples, statistic, axis=axis, n_resamples=NUM_RESAMPLES, batch=BATCH_SIZE, method="percentile", rng=rng
    )
    return result.confidence_interval
