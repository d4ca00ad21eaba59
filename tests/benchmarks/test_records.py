"""Tests of records: prefixes of a search, and files with incomplete or invalid lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.records import Record, RecordFile, find_duplicate_steps, find_incumbent_steps
from nases_env.errors import InputError


def record(seed: int = 0, rewards: tuple[float, ...] = (0.5, 0.7, 0.7, 0.6, 0.9)) -> Record:
    steps = find_incumbent_steps(rewards)
    return Record("agent", seed, "settings", 1.0, list(rewards), [3, 5], steps, [step / 10 for step in steps])


def test_test_accuracy_is_that_of_the_best_child_by_validation() -> None:
    search = Record("agent", 0, "settings", 1.0, [0.5, 0.7, 0.7, 0.6, 0.9], [], [1, 2, 5], [0.91, 0.93, 0.92])
    assert find_incumbent_steps(search.rewards) == search.incumbent_steps  # the first of equal children
    assert search.reward([1, 2, 3, 4, 5]).tolist() == [0.5, 0.7, 0.7, 0.7, 0.9]
    assert search.test_accuracy([1, 2, 3, 4, 5]).tolist() == [0.91, 0.93, 0.93, 0.93, 0.92]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_metrics_of_a_prefix_are_those_of_a_shorter_search(choices: list[int]) -> None:
    """There are five children; their order by test accuracy differs from their order by reward."""
    rewards, keys = [choice / 10 for choice in choices], [str(choice) for choice in choices]
    test_accuracies = [choice * 7 % 5 / 10 for choice in choices]
    steps = find_incumbent_steps(rewards)
    search = Record(
        "a", 0, "s", 1.0, rewards, find_duplicate_steps(keys), steps, [test_accuracies[step - 1] for step in steps]
    )
    for budget in range(1, len(choices) + 1):
        assert search.reward([budget]) == max(rewards[:budget])
        assert search.test_accuracy([budget]) == test_accuracies[int(np.argmax(rewards[:budget]))]
        assert search.num_distinct(budget) == len(set(keys[:budget]))


def test_appended_records_are_loaded(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "new" / "folder" / "records.jsonl", Record.from_json)
    assert file.load() == ([], False)
    for seed in range(3):
        file.append(record(seed))
    assert file.load() == ([record(0), record(1), record(2)], False)


@pytest.mark.parametrize("size", [1, 20, -1])
def test_incomplete_record_is_removed_before_the_next_is_appended(size: int, tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.jsonl", Record.from_json)
    file.append(record(0))
    line = file.path.read_bytes()
    file.path.write_bytes(line + line[:size])
    assert file.load() == ([record(0)], True)
    file.append(record(1))
    assert file.load() == ([record(0), record(1)], False)


@pytest.mark.parametrize("line", ["{", "[]", "1", json.dumps({"agent": "random_search"})])
def test_invalid_line_raises_an_error(line: str, tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.jsonl", Record.from_json)
    file.append(record(0))
    with open(file.path, "a") as stream:
        stream.write(line + "\n")
    before = file.path.read_bytes()
    with pytest.raises(InputError, match=r"line 2 of .*records.jsonl is not a record"):
        file.load()
    assert file.path.read_bytes() == before
