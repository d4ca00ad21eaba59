"""Custom tables: their form, the map to rewards, the description, and the error message for every kind of invalid file."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nases_env.errors import InputError
from nases_env.evaluation import FRACTION, NEGATIVE_LOSS, PERCENT, Evaluation, Metric, Status, TaskTableEvaluator
from nases_env.quantity import ACCURACY, Quantity
from nases_env.search_spaces import Architecture, SearchSpace

HEADER = ("arch", "accuracy", "similarity", "loss", "speed")


class Pairs(SearchSpace):
    """Two decisions whose order has no effect: 16 lists of decisions, 10 architectures."""

    name = "pairs"
    decision_sizes = (4, 4)
    decision_names = ("one", "other")

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(decisions))


class Pairings(TaskTableEvaluator):
    benchmark = "Pairings"
    space_class = Pairs
    table_variable = "PAIRINGS_TABLE"
    table_name = "pairings.csv"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": PERCENT,
        "similarity": FRACTION,
        "loss": NEGATIVE_LOSS,
        "speed": Metric("a negative time", -10, 0, lambda value: 1 + value / 10),
    }


class OwnMetrics(Pairings):
    metrics: ClassVar[Mapping[str, Metric]] = {
        "points": Metric("points", 0, 100, lambda value: value),
        "logarithm": Metric("a positive number", 0, 100, math.log),
        "undefined": Metric("a number", 0, 100, lambda value: math.nan),
    }


SPACE = Pairs()
PAIRS = list(itertools.combinations_with_replacement(range(4), 2))


def results(row: int) -> tuple[float, ...]:
    """Return the entries of a row in the order of ``HEADER``."""
    return (10 * row, row / 10, -row, -row / 2)


def write_table(path: Path, rows: Iterable[Iterable[object]] | None = None, header: Iterable[str] = HEADER) -> str:
    entries = (
        [(SPACE.to_string(SPACE.architecture(pair)), *results(row)) for row, pair in enumerate(PAIRS)]
        if rows is None
        else rows
    )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([tuple(header), *entries])
    path.write_text(text.getvalue(), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def unset_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRINGS_TABLE", raising=False)


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_table(tmp_path / "table.csv")


def architecture(*choices: int) -> Architecture:
    return SPACE.architecture(choices)


@pytest.mark.parametrize(
    ("task", "reward"),
    [
        ("accuracy", lambda row: row / 10),
        ("similarity", lambda row: row / 10),
        ("loss", lambda row: 1 / (1 + row)),
        ("speed", lambda row: 1 - row / 20),
    ],
)
def test_reward_is_the_metric_of_the_task_for_any_seed(table: str, task: str, reward: Callable[[int], float]) -> None:
    evaluator = Pairings(SPACE, table, task=task)
    for row, pair in enumerate(PAIRS):
        found = evaluator.evaluate(architecture(*pair), seed=row)
        assert found == Evaluation(architecture(*pair).key, row, Status.OK, valid_accuracy=found.reward)
        assert found.reward == pytest.approx(reward(row))
        assert evaluator.evaluate(architecture(*reversed(pair)), seed=row) == found
    assert evaluator.labels() == {"task": task}


def test_rewards_are_named_in_reports_by_their_metric(table: str) -> None:
    quantities = {task: Pairings(SPACE, table, task=task).quantity for task in Pairings.metrics}
    assert quantities == {
        "accuracy": ACCURACY,
        "similarity": Quantity("metric"),
        "loss": Quantity("1 / (1 + loss)"),
        "speed": Quantity("metric"),
    }
    assert [quantity.format(0.5) for quantity in quantities.values()] == ["50.00%", "0.5000", "0.5000", "0.5000"]


def test_architectures_are_genotypes_in_json() -> None:
    assert SPACE.to_string(architecture(1, 3)) == '{"decisions": [1, 3]}'
    for text in ('{"decisions": [1, 3]}', '{"search_space": "pairs", "decisions": [1, 3]}'):
        assert SPACE.from_string(text) == architecture(1, 3)


def test_order_of_rows_and_columns_and_other_columns_have_no_effect(table: str, tmp_path: Path) -> None:
    rows = [("note", -row, SPACE.to_string(architecture(*reversed(pair)))) for row, pair in enumerate(PAIRS)]
    other = write_table(tmp_path / "other.csv", rows[::-1], ("comment", "loss", "arch"))
    first, second = (Pairings(SPACE, path, task="loss") for path in (table, other))
    assert first.rows()[architecture(1, 2).key]["loss"] == second.rows()[architecture(1, 2).key]["loss"]
    assert first.digest() == second.digest()


def test_description_depends_on_the_task_and_the_rewards(table: str, tmp_path: Path) -> None:
    changed = [(SPACE.to_string(architecture(*pair)), *results(row + (row == 3))) for row, pair in enumerate(PAIRS)]
    other = write_table(tmp_path / "other.csv", changed)
    digests = [Pairings(SPACE, path, task=task).digest() for path in (table, other) for task in Pairings.metrics]
    assert len(set(digests)) == 8
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(table).read_bytes())
    evaluator = Pairings(SPACE, str(copy), task="accuracy")
    assert evaluator.digest() == digests[0]
    assert evaluator.describe().keys() == {"evaluator", "task", "table"}


def test_evaluator_is_picklable_and_is_found_by_path_then_variable_then_data_dir(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = pickle.loads(pickle.dumps(Pairings("tests.evaluation.test_task_table:Pairs", None, task="accuracy")))
    with pytest.raises(InputError) as caught:
        evaluator.prepare()
    assert str(caught.value) == (
        "no table of Pairings: set table (--env-kwargs table FILE) or the environment variable PAIRINGS_TABLE "
        "to its CSV file, or put pairings.csv into the directory NASES_DATA_DIR (not set)"
    )
    write_table(tmp_path / "pairings.csv")
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert evaluator.table == tmp_path / "pairings.csv"
    monkeypatch.setenv("PAIRINGS_TABLE", table)
    assert evaluator.table == Path(table)
    assert evaluator.evaluate(architecture(3, 3), seed=0).reward == 0.9


def test_file_that_changes_after_it_was_read_is_an_error_until_it_is_restored(table: str) -> None:
    """Its results would be stored under the description of the earlier content."""
    before = Path(table).read_bytes()
    evaluator = Pairings(SPACE, table, task="accuracy")
    digest = evaluator.digest()
    copies = [evaluator, dataclasses.replace(evaluator), pickle.loads(pickle.dumps(evaluator))]
    write_table(Path(table), [(text, 100 - int(str(row))) for text, row in ROWS], ("arch", "accuracy"))
    for copy in copies:
        for read in (copy.prepare, copy.describe, lambda copy=copy: copy.evaluate(architecture(3, 3), seed=0)):
            with pytest.raises(InputError) as caught:
                read()
            assert str(caught.value) == (
                f"the table {table} has changed since the first read; undo the change, or start again with a new "
                "search or environment"
            )
    assert Pairings(SPACE, table, task="accuracy").evaluate(architecture(3, 3), seed=0).reward == 0.91
    Path(table).write_bytes(before)
    assert [copy.evaluate(architecture(3, 3), seed=0).reward for copy in copies] == [0.9] * 3
    assert evaluator.digest() == digest


ROWS: list[tuple[object, ...]] = [(SPACE.to_string(architecture(*pair)), row) for row, pair in enumerate(PAIRS)]
LOSSES: list[tuple[object, ...]] = [(text, -row) for row, (text, _) in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("architecture", "accuracy"), ROWS, "is not a table of Pairings: its header is different; use a CSV file with"),
        (("arch", "accuracies"), ROWS, "its header is different; use a CSV file with the header arch,accuracy,sim"),
        (("arch", "arch"), ROWS, "its header is different"),
        (("arch", "loss"), LOSSES, "lacks the column accuracy; add it, or choose a task "),
        (("arch", "accuracy"), ROWS[:-1], "is truncated: it has 9 of Pairings's 10 cells; copy the whole file again"),
        (("arch", "accuracy"), [], "is truncated: it has 0 of Pairings's 10 cells"),
        (("arch", "accuracy"), [*ROWS, ('{"decisions": [1, 0]}', 1)], 'lines 3 and 12 of .* are both for {"decisions": '),
        (("arch", "accuracy"), [("0-1", 1)], r"line 2 of .* is not a valid row \(not an architecture: the text is not JSON"),
        (("arch", "accuracy"), [('{"decisions": [0, 4]}', 1)], r"line 2 of .*\(decision 1 of pairs is 4; it must be in 0"),
        (("arch", "accuracy"), [('{"decisions": [0, 1]}',)], r"line 2 of .*\(it has 1 entries\)"),
        (("arch", "accuracy"), [('{"decisions": [0, 1]}', "high")], r"line 2 of .*\('high' is not a number\)"),
        (("arch", "accuracy"), [('{"decisions": [0, 1]}', 101)], "101 is not a metric in percent, which the column"),
        (("arch", "similarity"), [('{"decisions": [0, 1]}', 2)], r"2 is not a number in \[0, 1\], which the column"),
        (("arch", "loss"), [('{"decisions": [0, 1]}', 1)], "1 is not a negative loss, which the column loss contains"),
    ],
)  # fmt: skip
def test_invalid_table_is_a_one_line_error(
    header: tuple[str, ...], rows: list[tuple[object, ...]], message: str, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "table.csv", rows, header)
    evaluator = Pairings(SPACE, path, task="accuracy")
    with pytest.raises(InputError, match=message) as caught:
        evaluator.prepare()
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["acuracy", 7, None, ["accuracy"], ""])
def test_unknown_task_is_a_one_line_error(table: str, task: Any) -> None:
    with pytest.raises(InputError, match=r"unknown task .*; known: accuracy, similarity, loss, speed") as caught:
        Pairings(SPACE, table, task=task)
    assert "\n" not in str(caught.value)


def test_other_search_space_is_an_input_error(table: str) -> None:
    with pytest.raises(InputError, match="the table of Pairings requires the search space pairs, not enas_micro"):
        Pairings("enas_micro", table, task="accuracy")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("points", "line 3 of .*the metric of the column points converts 10 to 10.0, which is not in"),
        ("logarithm", "line 2 of .*the metric of the column logarithm cannot convert 0: "),
        ("undefined", "line 2 of .*the metric of the column undefined converts 0 to nan, which is not in"),
    ],
)
def test_metric_that_is_not_a_map_to_rewards_is_a_one_line_error(column: str, message: str, tmp_path: Path) -> None:
    rows = [(SPACE.to_string(SPACE.architecture(pair)), 10 * row) for row, pair in enumerate(PAIRS)]
    path = write_table(tmp_path / "table.csv", rows, ("arch", column))
    with pytest.raises(InputError, match=message) as caught:
        OwnMetrics(SPACE, path, task=column).prepare()
    assert "\n" not in str(caught.value)


def test_ignored_columns_may_contain_any_character(tmp_path: Path) -> None:
    notes = ["a\x0cb", "a\u2028b", "a\nb", *[""] * 7]
    rows = [(SPACE.to_string(SPACE.architecture(pair)), 50, note) for pair, note in zip(PAIRS, notes, strict=True)]
    Pairings(SPACE, write_table(tmp_path / "table.csv", rows, ("arch", "accuracy", "note")), task="accuracy").prepare()
    rows[3] = (rows[3][0], 101, "")
    with pytest.raises(InputError, match="line 6 of"):
        Pairings(SPACE, write_table(tmp_path / "wrong.csv", rows, ("arch", "accuracy", "note")), task="accuracy").prepare()
