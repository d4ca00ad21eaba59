"""Tests of the bootstrap intervals and of the probability of improvement."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import benchmarks.common.statistics as statistics

SMALL_NUMBERS = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=12).map(np.array)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_interval_of_a_mean_over_many_seeds_is_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    estimate = statistics.mean(values, rng())
    error = scipy.stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - error, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + error, abs=0.02)


def test_intervals_contain_the_true_mean_with_nominal_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "NUM_RESAMPLES", 500)
    samples = np.random.default_rng(2).exponential(size=(300, 30))
    estimates = [statistics.mean(sample, rng()) for sample in samples]
    coverage = np.mean([estimate.low <= 1.0 <= estimate.high for estimate in estimates])
    assert 0.87 <= coverage <= 0.97  # percentile intervals of 30 skewed values are a little too narrow


def test_equal_seeds_have_an_interval_of_width_zero() -> None:
    assert statistics.mean(np.full(5, 0.25), rng()) == (0.25, 0.25, 0.25)
    assert statistics.probability_of_improvement(np.full(5, 2.0), np.full(4, 1.0), rng()) == (1, 1, 1)
    assert statistics.probability_of_improvement(np.full(5, 1.0), np.full(4, 1.0), rng()) == (0.5, 0.5, 0.5)


def test_mean_band_has_an_interval_per_point() -> None:
    values = np.random.default_rng(3).normal(size=(20, 4)) * [1, 10, 100, 0]
    low, high = statistics.mean_band(values, rng())
    width = high - low
    assert (low <= values.mean(axis=0)).all()
    assert (values.mean(axis=0) <= high).all()
    assert 3 < width[1] / width[0] < 30
    assert 3 < width[2] / width[1] < 30
    assert width[3] == 0


def test_probability_of_improvement_counts_ties_half() -> None:
    # 1 > 1: half, 1 > 2: no, 3 > 1 and 3 > 2: yes
    estimate = statistics.probability_of_improvement(np.array([1.0, 3.0]), np.array([1.0, 2.0]), rng())
    assert estimate.value == 2.5 / 4
    assert estimate.low < estimate.value < estimate.high


@given(SMALL_NUMBERS, SMALL_NUMBERS)
def test_probability_of_improvement_is_the_mann_whitney_statistic(
    ours: statistics.Numbers, baseline: statistics.Numbers
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "NUM_RESAMPLES", 20)
        forward = statistics.probability_of_improvement(ours, baseline, rng())
        backward = statistics.probability_of_improvement(baseline, ours, rng())
    statistic = scipy.stats.mannwhitneyu(ours, baseline, method="asymptotic").statistic
    assert forward.value == pytest.approx(statistic / (len(ours) * len(baseline)))
    assert forward.value + backward.value == pytest.approx(1)
