"""Estimates of the duration of searches."""

from __future__ import annotations

from collections import Counter

import pytest

from nases_env.evaluation import PRESETS, TrainingEvaluator
from nases_env.execution import ExecutionSettings
from nases_env.retraining.timing import START_SECONDS, SearchTime, count_concurrent
from nases_env.search import SearchArgs


def search_time(num_concurrent: int = 1, num_workers: int = 1, num_finalists: int = 0) -> SearchTime:
    return SearchTime({None: 10.0}, 15.0, 4, num_finalists, num_workers, num_concurrent)


@pytest.mark.parametrize(
    ("timed", "budget", "recorded", "expected"),
    [
        (search_time(), 7, 0, 70),
        (search_time(num_concurrent=3, num_workers=3), 7, 0, 30),
        (search_time(num_finalists=5), 7, 0, 70 + 75),
        (search_time(num_finalists=5), 2, 0, 20 + 30),  # no more finalists than children
        (search_time(num_concurrent=2, num_workers=4, num_finalists=5), 7, 0, 40 + 30),
        (search_time(num_finalists=5), 7, 4, 30 + 75),
        (search_time(num_finalists=5), 7, 7, 75),
    ],
)
def test_children_that_are_left_and_finalists_are_counted(
    timed: SearchTime, budget: int, recorded: int, expected: float
) -> None:
    assert timed.estimate(budget, Counter({None: recorded})) == START_SECONDS + expected


def test_recorded_trials_are_those_of_each_rung() -> None:
    timed = SearchTime({1: 1.0, 3: 2.0, 9: 6.0}, 9.0, 4, num_finalists=2, num_workers=1, num_concurrent=1)
    assert timed.per_child(16) == (16 * 1 + 4 * 2 + 1 * 6) / 16
    assert timed.estimate(16, {}) == START_SECONDS + 16 * 1 + 4 * 2 + 1 * 6 + 2 * 9
    assert timed.estimate(16, {1: 10, 3: 2}) == START_SECONDS + 6 * 1 + 2 * 2 + 1 * 6 + 2 * 9


def test_time_of_finalists_is_left_for_them() -> None:
    assert search_time().num_children(START_SECONDS + 100) == 10
    assert search_time(num_finalists=4).num_children(START_SECONDS + 100) == 4
    assert search_time(num_concurrent=2, num_workers=2, num_finalists=4).num_children(START_SECONDS + 100) == 14
    assert search_time(num_finalists=4).num_children(10) == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (SearchArgs(num_envs=4, execution=ExecutionSettings(num_workers=2)), 2),
        (SearchArgs(num_envs=2, execution=ExecutionSettings(num_workers=4)), 2),
        (SearchArgs(num_envs=2, ask_batch_size=3, execution=ExecutionSettings(num_workers=4)), 3),
        (SearchArgs(num_envs=4, execution=ExecutionSettings("serial")), 1),
        (SearchArgs(), 1),
    ],
)
def test_workers_and_proposals_limit_the_concurrent_children(args: SearchArgs, expected: int) -> None:
    assert count_concurrent(TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"]), args) == expected
