"""The table of TransNAS-Bench-101: its tasks, and the error message for every kind of invalid file."""

from __future__ import annotations

import itertools
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status, TransNASEvaluator
from nases_env.evaluation.transnas import TASKS
from nases_env.search_spaces import EnasMicro
from nases_env.search_spaces.transnas_micro import TransNASMicro

SPACE = TransNASMicro()
HEADER = "arch,class_object,class_scene,jigsaw,autoencoder,normal,segmentsemantic,room_layout"
CELLS = list(itertools.product(range(4), repeat=6))
LINES = [
    HEADER,
    *(
        f'"{cell}",{row / 100},{row / 200},{row / 50},{row / 5000},{row / 8000},{100 - row / 100},{-row / 1000}'
        for row, cell in enumerate(CELLS)
    ),
]
"""The lines of a table; for example, row ``i`` has the accuracy ``i / 100`` and the loss ``i / 1000``."""

REWARDS: dict[str, Callable[[int], float]] = {
    "class_object": lambda row: row / 10_000,
    "class_scene": lambda row: row / 20_000,
    "jigsaw": lambda row: row / 5000,
    "autoencoder": lambda row: row / 5000,
    "normal": lambda row: row / 8000,
    "segmentsemantic": lambda row: 1 - row / 10_000,
    "room_layout": lambda row: 1 / (1 + row / 1000),
}

REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")
TABLE_NAME = "transnasbench101-micro.csv"
requires_real_table = pytest.mark.skipif(
    REAL_DATA_DIR is None or not Path(REAL_DATA_DIR, TABLE_NAME).is_file(),
    reason=f"NASES_DATA_DIR does not contain {TABLE_NAME}",
)


def write_table(path: Path, lines: list[str] = LINES) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("table") / "table.csv")


def real_table() -> str:
    assert REAL_DATA_DIR is not None
    return str(Path(REAL_DATA_DIR, TABLE_NAME))


def changed(row: int, line: str) -> list[str]:
    """Return the lines with another one for ``row``."""
    return [*LINES[: row + 1], line, *LINES[row + 2 :]]


@pytest.mark.parametrize("task", TASKS)
def test_reward_is_the_metric_of_the_task_in_0_to_1_for_any_seed(task: str, table: str) -> None:
    evaluator = TransNASEvaluator(path=table, task=task)
    for row in (0, 1, 1234, 4095):
        architecture = SPACE.architecture(CELLS[row])
        evaluation = evaluator.evaluate(architecture, seed=row)
        assert evaluation == Evaluation(architecture.key, row, Status.OK, valid_accuracy=evaluation.reward)
        assert evaluation.reward == pytest.approx(REWARDS[task](row), abs=1e-12)


def test_the_default_task_is_the_first_one(table: str) -> None:
    assert list(TASKS) == HEADER.split(",")[1:]
    assert TransNASEvaluator(path=table) == TransNASEvaluator(path=table, task="class_object")


@pytest.mark.parametrize("task", TASKS)
def test_rewards_increase_with_the_metric(task: str) -> None:
    metric = TASKS[task]
    values = np.linspace(max(metric.lowest, -1e3), metric.highest, 100)
    rewards = [metric.to_reward(value) for value in [metric.lowest, *values[1:].tolist()]]
    assert all(low < high for low, high in itertools.pairwise(rewards))
    assert rewards[0] == pytest.approx(0)
    assert rewards[-1] == 1


def test_operators_are_numbered_as_in_the_table_for_any_order(table: str) -> None:
    cell = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
    row = CELLS.index((0, 1, 2, 3, 0, 1))
    for space in (SPACE, TransNASMicro(SPACE.operators[::-1])):
        evaluator = pickle.loads(pickle.dumps(TransNASEvaluator(space, table)))
        assert evaluator.evaluate(space.from_string(cell), seed=0).reward == pytest.approx(row / 10_000)


def test_description_and_digest_depend_on_task_and_metrics_only(table: str, tmp_path: Path) -> None:
    evaluator = TransNASEvaluator(path=table, task="jigsaw")
    description = evaluator.describe()
    assert description["task"] == "jigsaw"
    rows = np.random.default_rng(0).permutation(LINES[1:]).tolist()
    shuffled = write_table(tmp_path / "shuffled.csv", [f"{HEADER},synflow", *(f"{line},nonsense" for line in rows)])
    permuted = TransNASMicro(SPACE.operators[::-1])
    assert TransNASEvaluator(permuted, shuffled, "jigsaw").describe() == description
    other_metric = write_table(tmp_path / "other.csv", changed(5, f'"{CELLS[5]}",0.05,0.025,0.2,0.001,0,99,-0.005'))
    digests = {
        TransNASEvaluator(path=path, task=task).digest() for path in (table, other_metric) for task in ("jigsaw", "normal")
    }
    assert len(digests) == 4


def test_table_is_found_by_path_then_variable_then_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reward(path: str | None) -> float:
        return TransNASEvaluator(path=path).evaluate(SPACE.architecture(CELLS[0]), seed=0).reward

    paths = [tmp_path / "named.csv", tmp_path / "variable.csv", tmp_path / TABLE_NAME]
    for accuracy, path in enumerate(paths, start=1):
        write_table(path, changed(0, f'"{CELLS[0]}",{accuracy},0,0,0,0,0,0'))
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert reward(None) == 0.03
    monkeypatch.setenv("NASES_TRANSNAS_TABLE", str(paths[1]))
    assert reward(None) == 0.02
    assert reward(str(paths[0])) == 0.01


def message_of(evaluator: TransNASEvaluator) -> str:
    messages = set()
    for action in (evaluator.prepare, evaluator.describe, lambda: evaluator.evaluate(SPACE.architecture(CELLS[0]), seed=0)):
        with pytest.raises(InputError) as caught:
            action()
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message
    return message


def test_missing_table_is_an_input_error(tmp_path: Path) -> None:
    message = message_of(TransNASEvaluator())
    for hint in (
        "no table of TransNAS-Bench-101: set table",
        "NASES_TRANSNAS_TABLE",
        TABLE_NAME,
        "NASES_DATA_DIR (not set)",
    ):
        assert hint in message
    absent = tmp_path / "absent.csv"
    message = message_of(TransNASEvaluator(path=str(absent)))
    assert message.startswith(
        f"cannot read the table {absent} (No such file or directory); set table or NASES_TRANSNAS_TABLE"
    )
    assert "(Is a directory)" in message_of(TransNASEvaluator(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is not a valid CSV file; use a CSV file with the header arch,class_object,"),
        (['"arch'], "is not a valid CSV file"),
        (LINES[1:], "is not a table of TransNAS-Bench-101: its header is different; use a CSV file with the header arch,"),
        (["arch,accuracy", *LINES[1:]], "its header is different"),
        ([f"{HEADER},jigsaw", *LINES[1:]], "its header is different"),
        (LINES[:1], "is truncated: it has 0 of TransNAS-Bench-101's 4,096 cells; copy the whole file again"),
        (LINES[:-1], "is truncated: it has 4,095 of"),
        ([*LINES, LINES[7]], r"lines 8 and 4098 of .* are both for \(0, 0, 0, 0, 1, 2\); remove the wrong one"),
        (changed(2, ""), r"line 4 of .* is not a valid row \(it has 0 entries\); use"),
        (changed(2, '"(0, 0, 0, 0, 0, 2)",1,2'), r"line 4 of .*\(it has 3 entries\)"),
        (changed(2, "resnet18,1,1,1,1,1,1,-1"), r"line 4 of .*\(a cell is written as six operators .*, not 'resnet18'\)"),
        (changed(2, '"(0, 0, 0, 0, 0, 4)",1,1,1,1,1,1,-1'), r"six operators from 0 to 3, .* not '\(0, 0, 0, 0, 0, 4\)'"),
        (changed(2, f'"{CELLS[2]}",1,1,1,1,1,1,low'), r"line 4 of .*\('low' is not a number\)"),
        (
            changed(2, f'"{CELLS[2]}",1,1,100.1,1,1,1,-1'),
            "100.1 is not a metric in percent, which the column jigsaw contains",
        ),
        (changed(2, f'"{CELLS[2]}",nan,1,1,1,1,1,-1'), "nan is not a metric in percent, which the column class_object"),
        (
            changed(2, f'"{CELLS[2]}",1,1,1,1,1.01,1,-1'),
            r"1.01 is not a structural similarity in \[0, 1\], which the column n",
        ),
        (changed(2, f'"{CELLS[2]}",1,1,1,1,1,1,0.7'), "0.7 is not a negative loss, which the column room_layout contains"),
        (changed(2, f'"{CELLS[2]}",1,1,1,1,1,1,-inf'), "-inf is not a negative loss"),
    ],
)
def test_invalid_table_is_an_input_error(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", lines)
    found = message_of(TransNASEvaluator(path=path))
    assert path in found
    assert re.search(message, found)


def test_incomplete_last_line_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(LINES)[:-3])
    assert "is truncated: its last line is incomplete" in message_of(TransNASEvaluator(path=str(path)))


def test_table_without_the_task_is_an_input_error_that_names_the_tasks_it_has(tmp_path: Path) -> None:
    lines = [line.rsplit(",", maxsplit=5)[0] for line in LINES]
    path = write_table(tmp_path / "table.csv", lines)
    assert TransNASEvaluator(path=path).evaluate(SPACE.architecture(CELLS[100]), seed=0).reward == pytest.approx(0.01)
    message = message_of(TransNASEvaluator(path=path, task="jigsaw"))
    assert message.endswith("lacks the column jigsaw; add it, or choose a task that it has: class_object, class_scene")


@pytest.mark.parametrize("task", ["jigsow", 7, ["jigsaw"], None])
def test_unknown_task_is_an_input_error(task: Any, table: str) -> None:
    with pytest.raises(InputError, match=r"unknown task .*; known: class_object, class_scene, jigsaw, autoenc") as caught:
        TransNASEvaluator(path=table, task=task)
    assert "\n" not in str(caught.value)
    assert ("did you mean 'jigsaw'?" in str(caught.value)) == (task in ("jigsow", ["jigsaw"]))


def test_other_search_space_is_an_input_error(table: str) -> None:
    for name in ("enas_micro", "nasbench201"):
        with pytest.raises(InputError, match=f"TransNAS-Bench-101 requires the search space transnas_micro, not {name}"):
            TransNASEvaluator(name, table)
    architecture = EnasMicro().sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="no row for enas_micro:"):
        TransNASEvaluator(path=table).evaluate(architecture, seed=0)


@requires_real_table
@pytest.mark.parametrize(
    ("task", "best", "reward"),
    [
        ("class_object", [(3, 1, 3, 1, 1, 3)], 0.4558619),
        ("class_scene", [(3, 3, 2, 1, 3, 2)], 0.5493631),
        ("jigsaw", [(3, 3, 0, 1, 3, 2)], 0.9537222),
        ("autoencoder", [(1, 2, 0, 3, 1, 0), (1, 2, 1, 3, 1, 0)], 0.57723),
        ("normal", [(1, 3, 0, 1, 2, 3)], 0.58729),
        ("segmentsemantic", [(3, 1, 3, 0, 2, 2)], 0.9461252),
        ("room_layout", [(3, 1, 1, 1, 3, 3)], 1 / 1.601),
    ],
)
def test_best_cells_of_the_real_table(task: str, best: list[tuple[int, ...]], reward: float) -> None:
    evaluator = TransNASEvaluator(path=real_table(), task=task)
    rewards = {cell: evaluator.evaluate(SPACE.architecture(cell), seed=0).reward for cell in CELLS}
    highest = max(rewards.values())
    assert highest == pytest.approx(reward)
    assert [cell for cell in CELLS if rewards[cell] == highest] == best


@requires_real_table
@pytest.mark.parametrize(
    ("task", "digest"),
    [
        ("class_object", "4cd1808baeff4dc649dc5e98ddf63be991761975f1afeff0dc5386982faeefa0"),
        ("room_layout", "6e6525fcc3ae7b2aae0634e18eccf19bbaddff362c7fe8aedadd36c774cb6ec9"),
    ],
)
def test_digest_of_the_real_table_is_that_of_earlier_versions(task: str, digest: str) -> None:
    assert TransNASEvaluator(path=real_table(), task=task).digest() == digest
