"""The table of NAS-Bench-201: its accuracies, and the error message for every kind of invalid file."""

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
from nases_env.evaluation import Evaluation, NasBench201Evaluator, Status
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces import EnasMicro
from nases_env.search_spaces.nasbench201 import NasBench201

SPACE = NasBench201()
HEADER = "arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,test_accuracy_200_epochs"
STRINGS = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*cell) for cell in itertools.product(OPERATORS, repeat=6)]
LINES = [HEADER, *(f"{text},{row / 200:.3f},{row / 300:.2f},{99 - row / 200:.4f}" for row, text in enumerate(STRINGS))]
"""The lines of a table; row ``i`` has the accuracies ``i / 200``, ``i / 300`` and ``99 - i / 200``."""

REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")
TABLE_NAME = "nasbench201-cifar10.csv"
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


def test_reward_is_the_validation_accuracy_after_12_epochs_for_any_seed(table: str) -> None:
    evaluator = NasBench201Evaluator("nasbench201", table)
    for row in (0, 1, 4321, 15_624):
        architecture = SPACE.from_string(STRINGS[row])
        evaluation = evaluator.evaluate(architecture, seed=row)
        assert evaluation == Evaluation(
            architecture.key, row, Status.OK, valid_accuracy=float(f"{row / 200:.3f}") / 100, num_epochs=12
        )
        assert evaluation.reward == evaluation.valid_accuracy
        assert evaluator.report_test_accuracy(architecture) == pytest.approx(0.99 - row / 20_000)


def test_evaluation_does_not_contain_the_test_accuracy(table: str) -> None:
    evaluator = NasBench201Evaluator("nasbench201", table)
    before, after = SPACE.from_string(STRINGS[7]), SPACE.from_string(STRINGS[8])
    test_accuracy = evaluator.report_test_accuracy(before)
    assert test_accuracy != evaluator.report_test_accuracy(after)
    record = evaluator.evaluate(before, seed=0).to_dict()
    assert not any("test" in name for name in record)
    assert not any(value in (test_accuracy, 100 * test_accuracy) for value in record.values())


def test_order_of_operators_does_not_change_results(table: str) -> None:
    permuted = NasBench201(OPERATORS[::-1])
    evaluator = NasBench201Evaluator(permuted, table)
    again = pickle.loads(pickle.dumps(evaluator))
    assert again == evaluator
    assert hash(again) == hash(evaluator)
    assert again != NasBench201Evaluator(SPACE, table)
    for row in (3, 14_000):
        expected = NasBench201Evaluator(SPACE, table).evaluate(SPACE.from_string(STRINGS[row]), seed=0)
        assert again.evaluate(permuted.from_string(STRINGS[row]), seed=0) == expected


def test_table_is_found_by_path_then_variable_then_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reward(path: str | None) -> float:
        return NasBench201Evaluator("nasbench201", path).evaluate(SPACE.from_string(STRINGS[0]), seed=0).reward

    paths = [tmp_path / "named.csv", tmp_path / "variable.csv", tmp_path / TABLE_NAME]
    for accuracy, path in enumerate(paths, start=1):
        write_table(path, [HEADER, f"{STRINGS[0]},{accuracy},0,0", *LINES[2:]])
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert reward(None) == 0.03
    monkeypatch.setenv("NASES_NASBENCH201_TABLE", str(paths[1]))
    assert reward(None) == 0.02
    assert reward(str(paths[0])) == 0.01
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reward("~/named.csv") == 0.01
    monkeypatch.chdir(tmp_path)
    assert reward("named.csv") == 0.01


def test_file_is_read_once_and_again_by_a_new_evaluator_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "table.csv")
    architecture = SPACE.from_string(STRINGS[0])
    assert NasBench201Evaluator("nasbench201", path).evaluate(architecture, seed=0).reward == 0
    with monkeypatch.context() as context:
        context.setattr("builtins.open", None)  # opening any file fails
        assert NasBench201Evaluator(SPACE, path).evaluate(architecture, seed=0).reward == 0
    write_table(tmp_path / "table.csv", [HEADER, f"{STRINGS[0]},12.345,0,0", *LINES[2:]])
    assert NasBench201Evaluator(SPACE, path).evaluate(architecture, seed=0).reward == pytest.approx(0.12345)


def test_row_order_line_endings_and_byte_order_mark_do_not_change_results(table: str, tmp_path: Path) -> None:
    path = tmp_path / "shuffled.csv"
    rows = np.random.default_rng(0).permutation(LINES[1:]).tolist()
    path.write_bytes(b"\xef\xbb\xbf" + "".join(line + "\r\n" for line in [HEADER, *rows]).encode())
    for row in (5, 12_345):
        architecture = SPACE.from_string(STRINGS[row])
        expected = NasBench201Evaluator("nasbench201", table).evaluate(architecture, seed=0)
        assert NasBench201Evaluator("nasbench201", str(path)).evaluate(architecture, seed=0) == expected


def message_of(evaluator: NasBench201Evaluator) -> str:
    messages = []
    for action in (
        evaluator.prepare,
        lambda: evaluator.evaluate(SPACE.from_string(STRINGS[0]), seed=0),
        lambda: evaluator.report_test_accuracy(SPACE.from_string(STRINGS[0])),
    ):
        with pytest.raises(InputError) as caught:
            action()
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    assert "\n" not in messages[0]
    return messages[0]


def test_missing_table_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(NasBench201Evaluator("nasbench201"))
    for hint in ("set table", "NASES_NASBENCH201_TABLE", "nasbench201-cifar10.csv", "NASES_DATA_DIR", "not set"):
        assert hint in message
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    message = message_of(NasBench201Evaluator("nasbench201"))
    assert "set table (--env-kwargs table FILE) or the environment variable NASES_NASBENCH201_TABLE" in message
    assert f"directory NASES_DATA_DIR ({tmp_path})" in message


def test_unreadable_path_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent.csv"
    expected = f"cannot read the table {absent} (No such file or directory); set table or NASES_NASBENCH201_TABLE"
    assert message_of(NasBench201Evaluator("nasbench201", str(absent))).startswith(expected)
    monkeypatch.setenv("NASES_NASBENCH201_TABLE", str(absent))
    assert message_of(NasBench201Evaluator("nasbench201")).startswith(expected)
    assert "(Is a directory)" in message_of(NasBench201Evaluator("nasbench201", str(tmp_path)))


def changed(row: int, line: str) -> list[str]:
    return [*LINES[:row], line, *LINES[row + 1 :]]


def text_of(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "is not a valid CSV file; use a CSV file with the header arch,valid_accuracy"),
        (lambda: b"\x1f\x8b\x08\x00\xff\xfe", "is not a valid CSV file; use a CSV file with the header"),
        (lambda: b'arch,"valid\n', "is not a valid CSV file; use"),
        (lambda: b"PK\x03\x04 an archive\n", "is not a table of NAS-Bench-201: its header is different; use a CSV file"),
        (lambda: text_of(LINES[1:]), "its header is different"),
        (lambda: text_of([HEADER.rpartition(",")[0], *LINES[1:]]), "its header is different"),
        (lambda: text_of(LINES[:1]), "is truncated: it has 0 of NAS-Bench-201's 15,625 cells; copy the whole file again"),
        (lambda: text_of(LINES[:-1]), "is truncated: it has 15,624 of"),
        (lambda: text_of(LINES)[:-3], "is truncated: its last line is incomplete; copy the whole file again"),
        (lambda: text_of(LINES)[:-1], "is truncated: its last line is incomplete"),
        (lambda: text_of(LINES)[:-30], "is truncated: its last line is incomplete"),
        (lambda: text_of([*LINES, LINES[7]]), r"lines 8 and 15627 of .* are both for \|.*\|; remove the wrong one"),
        (lambda: text_of(changed(9, LINES[4])), "lines 5 and 10 of"),
        (lambda: text_of(changed(3, f"{STRINGS[2]},1,2")), r"line 4 of .* is not a valid row \(it has 3 entries\); use"),
        (lambda: text_of(changed(3, "")), r"line 4 of .*\(it has 0 entries\)"),
        (
            lambda: text_of(changed(3, "resnet18,1,2,3")),
            r"line 4 of .*\(a cell of nasbench201 is written .*not 'resnet18'\)",
        ),
        (
            lambda: text_of(changed(3, STRINGS[2].replace("none", "max_pool_3x3") + ",1,2,3")),
            r"line 4 of .*\(unknown operator 'max_pool_3x3'",
        ),
        (lambda: text_of(changed(3, f"{STRINGS[2]},1,2,high")), r"line 4 of .*\('high' is not a number\); use"),
        (lambda: text_of(changed(3, f"{STRINGS[2]},100.1,2,3")), r"line 4 of .*\(100.1 is not an accuracy"),
        (lambda: text_of(changed(3, f"{STRINGS[2]},1,-2,3")), r"\(-2 is not an accuracy in percent\)"),
        (lambda: text_of(changed(3, f"{STRINGS[2]},1,2,nan")), r"\(nan is not an accuracy in percent\)"),
    ],
)
def test_invalid_table_is_an_input_error(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content())
    found = message_of(NasBench201Evaluator("nasbench201", str(path)))
    assert str(path) in found
    assert re.search(message, found)


def test_other_search_space_is_an_input_error(table: str) -> None:
    with pytest.raises(InputError, match="requires the search space nasbench201, not enas_micro"):
        NasBench201Evaluator("enas_micro", table)
    architecture = EnasMicro().sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="no row for enas_micro:"):
        NasBench201Evaluator("nasbench201", table).evaluate(architecture, seed=0)


@requires_real_table
def test_known_optimum_of_the_real_table() -> None:
    evaluator = NasBench201Evaluator("nasbench201", real_table())
    evaluator.prepare()
    architectures = [SPACE.architecture(choices) for choices in itertools.product(range(5), repeat=6)]
    by_test = max(architectures, key=evaluator.report_test_accuracy)
    assert evaluator.report_test_accuracy(by_test) == pytest.approx(0.9437, abs=5e-5)
    rewards = [evaluator.evaluate(architecture, seed=0).reward for architecture in architectures]
    assert max(rewards) == pytest.approx(0.84892)
    assert SPACE.to_string(architectures[int(np.argmax(rewards))]) == SPACE.to_string(by_test)


@requires_real_table
def test_known_row_of_the_real_table() -> None:
    evaluator = NasBench201Evaluator("nasbench201", real_table())
    architecture = SPACE.from_string(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert evaluator.evaluate(architecture, seed=0).reward == pytest.approx(0.63364)
    assert evaluator.report_test_accuracy(architecture) == pytest.approx(0.858633)


def test_rungs_are_the_accuracies_after_12_and_200_epochs(table: str, tmp_path: Path) -> None:
    lines = [f"{HEADER},valid_accuracy_200_epochs", *(f"{line},{50 + row / 400:.3f}" for row, line in enumerate(LINES[1:]))]
    five_columns = write_table(tmp_path / "table.csv", lines)
    evaluator = NasBench201Evaluator("nasbench201", five_columns, rungs=(12, 200))
    evaluator.prepare()
    architecture = SPACE.from_string(STRINGS[1000])
    found = [evaluator.at_fidelity(rung).evaluate(architecture, 0) for rung in (12, 200)]
    assert [evaluation.num_epochs for evaluation in found] == [12, 200]
    assert [evaluation.reward for evaluation in found] == pytest.approx([0.05, 0.525])
    assert evaluator.evaluate(architecture, 0) == found[1]
    description = evaluator.at_fidelity(12).describe()
    assert (description["rungs"], description["fidelity"]) == ([12, 200], 12)
    # Results without rungs do not depend on the column.
    plain = [NasBench201Evaluator("nasbench201", path) for path in (table, five_columns)]
    assert plain[0].describe() == plain[1].describe()
    assert plain[0].evaluate(architecture, 0) == plain[1].evaluate(architecture, 0)


def test_missing_column_and_other_rungs_are_one_line(table: str) -> None:
    evaluator = NasBench201Evaluator("nasbench201", table, rungs=(12, 200))
    for use in (evaluator.prepare, lambda: evaluator.evaluate(SPACE.from_string(STRINGS[0]), 0)):
        with pytest.raises(InputError, match="lacks the column valid_accuracy_200_epochs"):
            use()
    with pytest.raises(InputError, match="the rungs of NAS-Bench-201 are 12 and 200 epochs, not 1, 12"):
        NasBench201Evaluator("nasbench201", table, rungs=(1, 12))
    with pytest.raises(InputError, match="the fidelity is 90; it must be one of the rungs 12, 200"):
        evaluator.at_fidelity(90)


def test_table_of_another_data_set_is_found_by_its_name_and_kept_apart(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    evaluator = NasBench201Evaluator(dataset="cifar100")
    with pytest.raises(InputError) as caught:
        evaluator.prepare()
    put = f"put nasbench201-cifar100.csv into the directory NASES_DATA_DIR ({tmp_path})"
    assert str(caught.value).endswith(f"set table (--env-kwargs table FILE) to its CSV file, or {put}")
    lines = [f"{HEADER},valid_accuracy_200_epochs", *(f"{text},{row / 250:.3f},1,30,70" for row, text in enumerate(STRINGS))]
    write_table(tmp_path / "nasbench201-cifar100.csv", lines)
    monkeypatch.setenv("NASES_NASBENCH201_TABLE", table)  # the table of CIFAR-10
    architecture = SPACE.from_string(STRINGS[1000])
    assert evaluator.evaluate(architecture, seed=0).reward == pytest.approx(0.04)
    assert evaluator.report_test_accuracy(architecture) == pytest.approx(0.3)
    with_rungs = NasBench201Evaluator(dataset="cifar100", rungs=(12, 200))
    assert with_rungs.at_fidelity(200).evaluate(architecture, seed=0).reward == pytest.approx(0.7)
    assert NasBench201Evaluator().evaluate(architecture, seed=0).reward == pytest.approx(0.05)


def test_description_names_other_data_sets_than_cifar10(table: str) -> None:
    evaluators = [NasBench201Evaluator(path=table, dataset=name) for name in ("cifar10", "cifar100", "imagenet16-120")]
    assert [evaluator.describe().get("dataset") for evaluator in evaluators] == [None, "cifar100", "imagenet16-120"]
    assert evaluators[0].describe() == NasBench201Evaluator(path=table).describe()
    assert len({evaluator.digest() for evaluator in evaluators}) == 3


@pytest.mark.parametrize("dataset", ["", "../x", "a/b", "cifar 10", "-", None, 10])
def test_data_set_that_cannot_be_in_a_file_name_is_one_line(dataset: Any) -> None:
    with pytest.raises(
        InputError, match=r"the dataset is .*; it must be the middle of the file name nasbench201-"
    ) as caught:
        NasBench201Evaluator(dataset=dataset)
    assert "\n" not in str(caught.value)


@requires_real_table
def test_digest_of_the_real_table_is_that_of_earlier_versions() -> None:
    digest = "6ae9312d78da5753a819a4615e48df99ffb9c9acad877a9426ad9fd698f98763"
    assert NasBench201Evaluator(path=real_table(), dataset="cifar10").digest() == digest
