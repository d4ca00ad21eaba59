from __future__ import annotations

import math
from typing import Literal

import pytest

from nases_env.training import TrainingSettings
from nases_env.training.schedule import learning_rate, restarted_learning_rate


def sgdr(epoch: float, first_length: float, lr_max: float, lr_min: float) -> float:
    """Equation 5 of Loshchilov & Hutter, with the cycle found by iteration."""
    length = first_length
    while epoch >= length - 1e-9:
        epoch -= length
        length *= 2
    return lr_min + (lr_max - lr_min) * (1 + math.cos(math.pi * epoch / length)) / 2


@pytest.mark.parametrize(
    ("num_epochs", "num_cycles", "first_length", "batches_per_epoch"),
    [(70, 3, 10, 351), (630, 6, 10, 39), (7, 3, 1, 5), (12, 1, 12, 10), (10, 2, 10 / 3, 6), (1, 3, 1 / 7, 4)],
)
def test_cosine_equals_sgdr(num_epochs: int, num_cycles: int, first_length: float, batches_per_epoch: int) -> None:
    settings = TrainingSettings(num_epochs=num_epochs, num_cycles=num_cycles)
    num_batches = num_epochs * batches_per_epoch
    rates = [learning_rate(settings, batch, num_batches) for batch in range(num_batches)]
    expected = [sgdr(batch / batches_per_epoch, first_length, 0.05, 0.001) for batch in range(num_batches)]
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("num_epochs", "num_cycles", "restarts"), [(70, 3, [0, 10, 30]), (630, 6, [0, 10, 30, 70, 150, 310])]
)
def test_restarts_of_the_paper(num_epochs: int, num_cycles: int, restarts: list[int]) -> None:
    settings = TrainingSettings(num_epochs=num_epochs, num_cycles=num_cycles)
    num_batches = num_epochs * 351
    rates = [learning_rate(settings, batch, num_batches) for batch in range(num_batches)]
    assert [batch / 351 for batch in range(num_batches) if rates[batch] == 0.05] == restarts
    before_restart = [rates[restart * 351 - 1] for restart in restarts[1:]] + [rates[-1]]
    assert before_restart == pytest.approx([0.001] * len(restarts), abs=1e-5)


@pytest.mark.parametrize("num_batches", [1, 2, 3, 7, 100])
def test_triangular(num_batches: int) -> None:
    settings = TrainingSettings(schedule="triangular", lr_max=0.1)
    for batch in range(num_batches):
        middle = (batch + 0.5) / num_batches
        expected = 0.1 * middle / 0.25 if middle < 0.25 else 0.1 * (1 - middle) / 0.75
        assert learning_rate(settings, batch, num_batches) == pytest.approx(expected)
        assert learning_rate(settings, batch, num_batches) > 0


@pytest.mark.parametrize("schedule", ["cosine", "triangular"])
def test_schedule_restarts_after_each_rung(schedule: Literal["cosine", "triangular"]) -> None:
    settings = TrainingSettings(num_epochs=9, num_cycles=1, schedule=schedule)
    rates = [restarted_learning_rate(settings, batch, (2, 5, 9), 10) for batch in range(90)]
    parts = [learning_rate(settings, batch, 10 * length) for length in (2, 3, 4) for batch in range(10 * length)]
    assert rates == parts


def test_rungs_at_the_cycles_of_sgdr_are_the_same_schedule() -> None:
    settings = TrainingSettings(num_epochs=15, num_cycles=4)
    single = TrainingSettings(num_epochs=15, num_cycles=1)
    rates = [restarted_learning_rate(single, batch, (1, 3, 7, 15), 7) for batch in range(105)]
    assert rates == pytest.approx([learning_rate(settings, batch, 105) for batch in range(105)], abs=1e-12)
