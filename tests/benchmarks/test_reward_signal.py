"""The benchmark of signal and noise of the validation accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.reward_signal import analyze, icc_interval


def test_icc_of_known_accuracies() -> None:
    assert analyze(np.array([[0.1, 0.1], [0.3, 0.3]]))["icc"] == pytest.approx(1.0)
    assert analyze(np.array([[0.1, 0.3], [0.3, 0.1]]))["icc"] == 0.0


def test_icc_of_equal_accuracies_is_undefined() -> None:
    equal = np.full((3, 2), 0.1)  # the variance of their means is not exactly 0
    assert math.isnan(analyze(equal)["icc"])
    assert np.isnan(icc_interval(equal, np.random.default_rng(0))).all()
