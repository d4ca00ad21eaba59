"""The totals of a search are exact."""

from __future__ import annotations

import pytest

from nases_env.report import Child, Finalist
from tests.report.runs import count_all, make_children, make_run


def test_totals_count_all_trials() -> None:
    children = [
        Child(1, "a", "ok", 0.5, seconds=1.0),
        Child(2, "b", "timed_out", 0.0, seconds=10.0, device="cuda:0"),
        Child(3, "a", "ok", 0.5, seconds=1.0, is_new=False),
        Child(4, "c", "failed", 0.0),
        Child(5, "d", "timed_out", 0.0, is_new=False),
        Child(6, "e", "ok", 0.2, seconds=100.0, device="cuda:0"),
    ]
    totals = count_all(children)
    assert (totals.num_trials, totals.num_distinct, totals.num_promotions, totals.num_failures) == (6, 5, 0, 3)
    assert totals.rewards.tolist() == [0.5, 0.5, 0.2]
    assert totals.failures == {"timed_out": 2, "failed": 1}
    assert totals.seconds_by_device == {"cpu": 1.0, "cuda:0": 110.0}
    finalists = [Finalist(6, Child(6, "e", "ok", 0.3, seconds=1000.0, device="mps"), 0.25)]
    assert make_run(children, finalists=finalists).seconds_by_device == {"cpu": 1.0, "cuda:0": 110.0, "mps": 1000.0}


def test_time_of_a_promoted_child_is_that_of_its_last_rung() -> None:
    rungs = [
        Child(1, "a", "ok", 0.5, seconds=1.0, fidelity=1),
        Child(2, "b", "ok", 0.4, seconds=2.0, fidelity=1),
        Child(3, "a", "ok", 0.6, seconds=30.0, fidelity=3, is_promotion=True, device="cuda:0"),
        Child(4, "a", "ok", 0.7, seconds=400.0, fidelity=9, is_promotion=True),
        Child(5, "a", "ok", 0.5, seconds=1.0, fidelity=1, is_new=False),
    ]
    totals = count_all(rungs)
    assert totals.seconds_by_device == {"cpu": 402.0}
    assert (totals.num_promotions, totals.num_distinct) == (2, 2)


def test_empty_search_has_totals_of_zero() -> None:
    totals = count_all([])
    assert (totals.num_trials, totals.num_distinct, totals.num_failures) == (0, 0, 0)
    assert not totals.seconds_by_device


def test_time_of_many_children_is_their_sum() -> None:
    children = make_children(3000)
    totals = count_all(children)
    assert totals.seconds_by_device == {"cpu": pytest.approx(sum(child.seconds for child in children))}
    assert totals.num_distinct == 3000
