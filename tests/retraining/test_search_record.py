"""Tests of what a final training states about its search."""

from __future__ import annotations

from nases_env.evaluation import PRESETS, ChildSettings
from nases_env.retraining.search_record import SearchRecord


def describe(settings: ChildSettings) -> str:
    record = SearchRecord("tpe", budget=3, num_children=3, seconds=1.0, on_gpu=False, reward=0.5, settings=settings)
    return record.describe()


def test_accuracy_is_shown_in_percent_and_another_reward_as_a_number() -> None:
    assert describe(PRESETS["smoke"]) == "The architecture is the best of 3 children of tpe by validation accuracy (50.00%)."
    assert describe(PRESETS["cpu"]) == "The architecture is the best of 3 children of tpe by reward (0.5000)."
