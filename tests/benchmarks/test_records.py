"""Searches with smaller budgets are prefixes, and a file of records survives what may happen to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.records import Record, RecordFile, find_bests, find_repeats
from nases_env.errors import InputError


def record(seed: int = 0, rewards: tuple[float, ...] = (0.5, 0.7, 0.7, 0.6, 0.9)) -> Record:
    bests = find_bests(rewards)
    return Record("agent", seed, "settings", 1.0, list(rewards), [3, 5], bests, [number / 10 for number in bests])


def test_the_best_by_validation_of_a_prefix_decides_the_test_accuracy() -> None:
    search = Record("agent", 0, "settings", 1.0, [0.5, 0.7, 0.7, 0.6, 0.9], [], [1, 2, 5], [0.91, 0.93, 0.92])
    assert find_bests(search.rewards) == search.bests  # of equals the first
    assert search.valid_accuracy([1, 2, 3, 4, 5]).tolist() == [0.5, 0.7, 0.7, 0.7, 0.9]
    assert search.test_accuracy([1, 2, 3, 4, 5]).tolist() == [0.91, 0.93, 0.93, 0.93, 0.92]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_prefixes_are_searches_of_their_own(choices: list[int]) -> None:
    """Five children, the better the higher their number; a child's test accuracy is no order of its reward."""
    rewards, keys = [choice / 10 for choice in choices], [str(choice) for choice in choices]
    test_accuracies = [choice * 7 % 5 / 10 for choice in choices]
    bests = find_bests(rewards)
    search = Record("a", 0, "s", 1.0, rewards, find_repeats(keys), bests, [test_accuracies[best - 1] for best in bests])
    for budget in range(1, len(choices) + 1):
        assert search.valid_accuracy([budget]) == max(rewards[:budget])
        assert search.test_accuracy([budget]) == test_accuracies[int(np.argmax(rewards[:budget]))]
        assert search.num_distinct(budget) == len(set(keys[:budget]))


def test_records_come_back_as_they_were_added(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "new" / "folder" / "records.jsonl")
    assert file.load() == ([], False)
    for seed in range(3):
        file.append(record(seed))
    assert file.load() == ([record(0), record(1), record(2)], False)


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_record_that_was_cut_off_is_dropped_and_the_next_has_a_line_of_its_own(left: int, tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(record(0))
    line = file.path.read_bytes()
    file.path.write_bytes(line + line[:left])
    assert file.load() == ([record(0)], True)
    file.append(record(1))
    assert file.load() == ([record(0), record(1)], False)


@pytest.mark.parametrize("line", ["{", "[]", "1", json.dumps({"agent": "random_search"})])
def test_another_line_that_is_no_record_is_an_error(line: str, tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(record(0))
    with open(file.path, "a") as stream:
        stream.write(line + "\n")
    before = file.path.read_bytes()
    with pytest.raises(InputError, match=r"line 2 of .*records.jsonl is no record"):
        file.load()
    assert file.path.read_bytes() == before
