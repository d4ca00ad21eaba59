"""Statistics over a few seeds, each with a 95% bootstrap interval.

The methods are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021):
percentile intervals from resampled seeds, and the probability of improvement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

NUM_RESAMPLES = 5000
BATCH_SIZE = 50  # resamples in memory at the same time


class Estimate(NamedTuple):
    """A value and the bounds of its 95% bootstrap interval."""

    value: float
    low: float
    high: float


def mean(values: Numbers, rng: np.random.Generator) -> Estimate:
    """Estimate the mean of ``values``, one per seed, shape (seeds,); for a paired comparison, pass differences by seed."""
    low, high = mean_band(values[:, None], rng)
    return Estimate(float(values.mean()), float(low[0]), float(high[0]))


def mean_band(values: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Return the lower and upper bounds, shape (points,), of the means over seeds of ``values``, shape (seeds, points)."""
    low, high = _bootstrap((values,), np.mean, rng)
    return low, high


def probability_of_improvement(ours: Numbers, baseline: Numbers, rng: np.random.Generator) -> Estimate:
    """Estimate P(X > Y) + P(X = Y) / 2 for independent draws X from ``ours`` and Y from ``baseline``, shapes (seeds,).

    This is the Mann-Whitney statistic divided by the number of pairs. Both samples are resampled.
    """
    wins = (ours[:, None] > baseline) + 0.5 * (ours[:, None] == baseline)

    def share(rows: NDArray[np.int64], columns: NDArray[np.int64], axis: int) -> Numbers:
        resampled: Numbers = wins[rows[..., :, None], columns[..., None, :]].mean(axis=(axis - 1, axis))
        return resampled

    low, high = _bootstrap((np.arange(len(ours)), np.arange(len(baseline))), share, rng, axis=-1)
    return Estimate(float(wins.mean()), float(low), float(high))


def _bootstrap(samples: tuple[NDArray[Any], ...], statistic: Any, rng: np.random.Generator, axis: int = 0) -> Any:
    from scipy import stats  # slow to import

    result = stats.bootstrap(
        samples, statistic, axis=axis, n_resamples=NUM_RESAMPLES, batch=BATCH_SIZE, method="percentile", rng=rng
    )
    return result.confidence_interval
