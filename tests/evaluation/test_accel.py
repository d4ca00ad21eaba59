"""The surrogate of Accel-NASBench: predictions, their description, and the error message for every kind of invalid file."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from nases_env.errors import InputError
from nases_env.evaluation import AccelEvaluator, Status
from nases_env.evaluation.accel_surrogate import SETTINGS
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.accel import Accel

SPACE = Accel()
HEADER = ",".join([*AccelEvaluator.architecture_columns, "latency_zcu102", "macs", "params", "val_top1"])


def values_of(architecture: Architecture) -> np.ndarray:
    return np.array(SPACE.values(architecture)).reshape(7, 4)


def accuracy_of(architecture: Architecture) -> float:
    """Return an invented accuracy in percent."""
    expansion, kernel_size, num_layers, excitation = values_of(architecture).T
    return float(50 + np.sum(np.log(expansion * num_layers)) + 0.3 * np.sum(kernel_size) - 3 + 0.2 * np.sum(excitation))


def size_of(architecture: Architecture) -> int:
    """Return an invented number of parameters, a sum over the blocks."""
    expansion, kernel_size, num_layers, excitation = values_of(architecture).T
    widths = np.arange(1, 8)
    return int(np.sum(1000 * widths * (10 * expansion * num_layers + kernel_size**2 + 3 * excitation * expansion)))


def line_of(architecture: Architecture, accuracy: float | None = None) -> str:
    millions = size_of(architecture) / 1e6
    accuracy = accuracy_of(architecture) if accuracy is None else accuracy
    return f"{SPACE.to_string(architecture)},3.5,{100 * millions},{millions},{accuracy!r}"


NETWORKS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(900)]
OTHERS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(10_000, 10_050)]
LINES = [HEADER, *map(line_of, NETWORKS)]

REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")
TABLE_NAME = "accel-nasbench.csv"
requires_real_table = pytest.mark.skipif(
    REAL_DATA_DIR is None or not Path(REAL_DATA_DIR, TABLE_NAME).is_file(),
    reason=f"NASES_DATA_DIR does not contain {TABLE_NAME}",
)


def write_table(path: Path, lines: Sequence[str] = LINES) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("table") / "table.csv")


def rewards(path: str, architectures: Sequence[Architecture] = OTHERS) -> list[float]:
    evaluator = AccelEvaluator(path=path)
    return [evaluator.evaluate(architecture, seed=0).reward for architecture in architectures]


def test_reward_is_the_prediction_for_networks_in_the_table_and_others(table: str) -> None:
    evaluator = AccelEvaluator(path=table)
    for architecture in (NETWORKS[3], *OTHERS):
        evaluation = evaluator.evaluate(architecture, seed=3)
        assert evaluation.status is Status.OK
        assert evaluation.reward == pytest.approx(accuracy_of(architecture) / 100, abs=0.02)
        assert evaluation.reward != accuracy_of(architecture) / 100
        assert evaluator.evaluate(architecture, seed=4) == dataclasses.replace(evaluation, seed=4)
    true = [accuracy_of(architecture) for architecture in OTHERS]
    assert scipy.stats.spearmanr(rewards(table), true).statistic > 0.95


def test_batches_and_single_networks_have_the_same_predictions(table: str) -> None:
    batch = AccelEvaluator(path=table).surrogate.predict_accuracies(OTHERS)
    assert batch.tolist() == pytest.approx(rewards(table), abs=1e-12)


def test_order_of_rows_and_columns_and_other_columns_have_no_effect(table: str, tmp_path: Path) -> None:
    columns = np.random.default_rng(0).permutation(len(HEADER.split(","))).tolist()
    lines = [",".join(["note", *(line.split(",")[column] for column in columns)]) for line in LINES]
    other = write_table(tmp_path / "other.csv", [lines[0], *lines[:0:-1]])
    assert rewards(other) == rewards(table)
    assert AccelEvaluator(path=other).digest() == AccelEvaluator(path=table).digest()


def test_results_of_the_same_network_are_averaged(table: str, tmp_path: Path) -> None:
    accuracy = accuracy_of(NETWORKS[0])
    twice = [HEADER, *(line_of(NETWORKS[0], accuracy + difference) for difference in (-0.25, 0.25)), *LINES[2:]]
    other = write_table(tmp_path / "other.csv", twice)
    assert rewards(other) == pytest.approx(rewards(table), abs=1e-9)
    assert len(AccelEvaluator(path=other).networks.architectures) == len(NETWORKS)


def test_description_depends_on_the_results_and_the_settings(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = AccelEvaluator(path=table)
    before = evaluator.digest()
    changed = [HEADER, line_of(NETWORKS[0], 50), *LINES[2:]]
    assert AccelEvaluator(path=write_table(tmp_path / "other.csv", changed)).digest() != before
    assert AccelEvaluator(path=write_table(tmp_path / "copy.csv")).digest() == before
    assert AccelEvaluator(path=write_table(tmp_path / "copy.csv", LINES[:-1])).digest() != before
    monkeypatch.setitem(SETTINGS, "gamma", 0.02)
    assert evaluator.digest() != before


def test_sizes_are_predicted_and_rounded_to_thousands(table: str) -> None:
    evaluator = AccelEvaluator(path=table)
    for architecture in OTHERS:
        evaluation = evaluator.evaluate(architecture, seed=0)
        assert evaluation.num_params == pytest.approx(size_of(architecture), abs=1000)
        assert evaluation.num_flops == pytest.approx(200 * size_of(architecture), rel=1e-3)
        assert evaluation.num_params % 1000 == evaluation.num_flops % 2000 == 0


def test_sizes_that_are_missing_or_cannot_be_predicted_are_0(tmp_path: Path) -> None:
    header = [name for name in HEADER.split(",") if name != "macs"]
    drawn = np.random.default_rng(0).uniform(1, 2, len(NETWORKS)).tolist()
    rows = [f"{SPACE.to_string(network)},3.5,{size},60" for network, size in zip(NETWORKS, drawn, strict=True)]
    evaluation = AccelEvaluator(path=write_table(tmp_path / "table.csv", [",".join(header), *rows])).evaluate(OTHERS[0], 0)
    assert (evaluation.num_params, evaluation.num_flops) == (0, 0)
    assert evaluation.reward == pytest.approx(0.6)


def test_surrogate_is_fitted_once_for_all_equal_evaluators(table: str, tmp_path: Path) -> None:
    first = AccelEvaluator(path=table)
    again = pickle.loads(pickle.dumps(first))
    assert again == first
    assert hash(again) == hash(first)
    assert len(pickle.dumps(first)) < 1000
    assert again.surrogate is first.surrogate
    path = write_table(tmp_path / "table.csv")
    before = AccelEvaluator(path=path).evaluate(OTHERS[0], seed=0).reward
    write_table(tmp_path / "table.csv", [HEADER, *(line_of(network, 10.0) for network in NETWORKS)])
    assert AccelEvaluator(path=path).evaluate(OTHERS[0], seed=0).reward == pytest.approx(0.1)
    assert before > 0.5


def test_table_is_found_by_path_then_variable_then_data_dir(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"set table \(--env-kwargs table FILE\) or the .* NASES_ACCEL_TABLE .*put accel-nasbench.csv "
    ):
        AccelEvaluator().prepare()
    (tmp_path / TABLE_NAME).touch()
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert AccelEvaluator().table == tmp_path / TABLE_NAME
    monkeypatch.setenv("NASES_ACCEL_TABLE", table)
    assert AccelEvaluator().table == Path(table)
    assert AccelEvaluator(path="~/table.csv").table == Path.home() / "table.csv"
    with pytest.raises(
        InputError, match=r"cannot read the table .* \(No such file or directory\); set table or NASES_ACCEL"
    ):
        AccelEvaluator(path="absent.csv").prepare()


def changed(line: str) -> list[str]:
    return [*LINES[:3], line, *LINES[4:]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is not a valid CSV file; use a CSV file with the columns block0_e to block6_se and val_top1|its header is"),
        ([HEADER.replace("val_top1", "top1"), *LINES[1:]], "is not a table of Accel-NASBench: its header is different; use"),
        ([HEADER.replace("block3_k", "block3"), *LINES[1:]], "its header is different"),
        ([HEADER.replace("latency_zcu102", "macs"), *LINES[1:]], "its header is different"),
        (LINES[:51], "has 50 networks; a surrogate needs at least 100, copy the whole file again"),
        (LINES[:1], "has 0 networks; a surrogate needs"),
        (
            changed(LINES[3].rpartition(",")[0]),
            r"line 4 of .* is not a valid row \(it has 31 entries\); use a CSV file with",
        ),
        (changed("2" + LINES[3][1:]), r"line 4 of .*\(block 0 expansion is 2; it must be one of 1, 4, 6\)"),
        (
            changed("x" + LINES[3][1:]),
            r"line 4 of .*\(an architecture of accel is written as 28 integers separated by commas",
        ),
        (changed(line_of(NETWORKS[2], 100.5)), r"\(100.5 is not an accuracy in percent\)"),
        (changed(line_of(NETWORKS[2], float("nan"))), r"\(nan is not an accuracy in percent\)"),
        (changed(f"{SPACE.to_string(NETWORKS[2])},3.5,1,0,60"), r"\(0 is not a number of params in millions\)"),
        (changed(f"{SPACE.to_string(NETWORKS[2])},3.5,inf,1,60"), r"\(inf is not a number of macs in millions\)"),
        (changed(f"{SPACE.to_string(NETWORKS[2])},3.5,1,few,60"), r"\('few' is not a number\)"),
    ],
)
def test_invalid_table_is_a_one_line_error(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", lines)
    with pytest.raises(InputError, match=message) as caught:
        AccelEvaluator(path=path).prepare()
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_incomplete_last_line_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(LINES)[:-3])
    with pytest.raises(InputError, match="is truncated: its last line is incomplete"):
        AccelEvaluator(path=str(path)).prepare()


def test_other_search_space_is_an_input_error(table: str) -> None:
    with pytest.raises(InputError, match="the table of Accel-NASBench requires the search space accel, not enas_micro"):
        AccelEvaluator("enas_micro", table)


@requires_real_table
def test_surrogate_of_the_real_table() -> None:
    assert REAL_DATA_DIR is not None
    evaluator = AccelEvaluator(path=str(Path(REAL_DATA_DIR, TABLE_NAME)))
    architectures, columns = evaluator.networks
    assert len(architectures) == 5125
    predicted = evaluator.surrogate.predict_accuracies(architectures)
    assert scipy.stats.spearmanr(predicted, columns["val_top1"]).statistic > 0.99
    for architecture, params, macs in list(zip(architectures, columns["params"], columns["macs"], strict=True))[::500]:
        evaluation = evaluator.evaluate(architecture, seed=0)
        assert evaluation.num_params == pytest.approx(1e6 * params, rel=1e-3)
        assert evaluation.num_flops == pytest.approx(2e6 * macs, rel=1e-3)
