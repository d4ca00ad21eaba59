"""The benchmark of the surrogate of Accel-NASBench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.ensemble

from benchmarks.accel_surrogate import REGRESSORS, Args, climb, measure
from nases_env.errors import InputError
from nases_env.evaluation import AccelEvaluator
from nases_env.search_spaces.accel import Accel
from tests.commands import run_benchmark
from tests.evaluation.test_accel import NETWORKS, write_table

SPACE = Accel()


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the regressors of the benchmark with a tenth of their trees."""

    def reduce(name: str, number: str) -> None:
        make = getattr(sklearn.ensemble, name)
        monkeypatch.setattr(sklearn.ensemble, name, lambda **options: make(**{**options, number: options[number] // 10}))

    reduce("GradientBoostingRegressor", "n_estimators")
    reduce("HistGradientBoostingRegressor", "max_iter")


@pytest.mark.usefixtures("few_trees")
def test_benchmark_compares_regressors_and_writes_json(tmp_path: Path) -> None:
    output = tmp_path / "output.json"
    table = write_table(tmp_path / "table.csv")
    options = ("--table", str(table), "--num-folds", "2", "--num-starts", "2", "--output", str(output))
    printed = run_benchmark("accel_surrogate", options, tmp_path).stdout
    record = json.loads(output.read_text())
    assert record["num_networks"] == len(NETWORKS)
    assert record["digest"] == AccelEvaluator(path=table).digest()
    for name in (*REGRESSORS, "params", "macs"):
        assert name in printed
        assert record["results"][name]["kendall"] > 0.8
    assert record["results"]["params"]["max_relative_error"] < 1e-3
    best = AccelEvaluator(path=table).evaluate(SPACE.from_string(record["local_search"]["architecture"]), seed=0)
    assert best.reward == pytest.approx(record["local_search"]["accuracy"])
    assert f"best accuracy of the surrogate: {best.reward:.2%}" in printed
    last = SPACE.architecture([size - 1 for size in SPACE.decision_sizes])
    assert record["simple_choices"]["last_choices"] == pytest.approx(AccelEvaluator(path=table).evaluate(last, 0).reward)
    assert 0 < record["simple_choices"]["best_random"] < best.reward


def test_local_search_ends_where_no_decision_improves(tmp_path: Path) -> None:
    surrogate = AccelEvaluator(path=write_table(tmp_path / "table.csv")).surrogate
    best, accuracy = climb(surrogate, NETWORKS[0])
    rng = np.random.default_rng(0)
    neighbors = [SPACE.mutate(best, rng) for _ in range(200)]
    assert accuracy >= surrogate.predict_accuracies(neighbors).max()
    assert accuracy > surrogate.predict_accuracies(NETWORKS).max()


def test_measurements_of_known_predictions() -> None:
    values = np.array([1.0, 2.0, 4.0])
    found = measure(np.array([1.5, 2.0, 3.0]), values)
    assert (found["kendall"], found["spearman"]) == (1, 1)
    assert found["mean_absolute_error"] == pytest.approx(0.5)
    assert found["max_relative_error"] == 0.5
    assert found["r2"] == pytest.approx(1 - 1.25 / (14 / 3))


@pytest.mark.parametrize(("name", "value"), [("num_folds", 1), ("num_starts", 0), ("seed", -1)])
def test_numbers_that_are_too_small_are_input_errors(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least {value + 1}, not {value}"):
        Args(**{name: value})  # type: ignore[arg-type]
