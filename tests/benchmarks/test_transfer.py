"""The benchmark of transfer between tasks, on a table in which the tasks agree."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nases_agents import model_assisted

from benchmarks.transfer import METHODS, Args, Job, Result, analyze, main, regrets_of_tables, run_job
from nases_env.errors import InputError
from nases_env.evaluation.transnas import TASKS
from tests.commands import run_benchmark

FEW = ("class_object", "jigsaw")
"""The tasks of the searches in these tests."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table in which the metric is the share of 1x1 convolutions."""
    lines = [f"arch,{','.join(TASKS)}"]
    for cell in itertools.product(range(4), repeat=6):
        share = cell.count(2) / 6
        lines.append(f'"{cell}",{100 * share},{100 * share},{100 * share},{share},{share},{100 * share},{share - 1}')
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join([*lines, ""]))
    return str(path)


def test_related_tasks_help_and_wrong_ones_are_overruled(table: str) -> None:
    methods = ("learning", "transfer", "transfer_negated")
    args = Args(budgets=(3, 20), earlier_budget=20, table=table, methods=methods, tasks=FEW)
    results = {(result.method, result.task): result.regrets for result in run_job(Job(0, args))}
    assert set(results) == {(method, task) for method in methods for task in FEW}
    for task in FEW:
        assert results["transfer", task][0] < results["learning", task][0]
        assert results["transfer", task][1] == 0  # the best cell is found
        assert results["transfer_negated", task][0] > results["transfer", task][0]
        assert results["transfer_negated", task][1] < 1


def test_same_seed_gives_the_same_results(table: str) -> None:
    args = Args(budgets=(6,), earlier_budget=8, table=table, methods=("bayesian_optimization_transfer",), tasks=FEW)
    first, again, other = (run_job(Job(seed, args)) for seed in (0, 0, 1))
    assert first == again != other


def test_differences_are_paired_by_seed_and_positive_if_ours_is_better() -> None:
    args = Args(budgets=(5,), methods=("learning", "transfer"), num_seeds=3)
    rng = np.random.default_rng(0)
    results = []
    for seed, task in itertools.product(range(3), TASKS):
        regret = float(rng.uniform(1, 2))
        results += [Result("learning", task, seed, [regret]), Result("transfer", task, seed, [regret - 0.25])]
    report = analyze(results, args)
    expected = pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})
    assert report["differences"] == {"transfer – no transfer": {"5": expected}}
    assert report["tasks"]["jigsaw"]["differences"] == {"transfer – no transfer": {"5": expected}}
    mean = np.mean([result.regrets[0] for result in results if result.method == "transfer"])
    assert report["regrets"]["transfer"]["5"]["value"] == pytest.approx(mean)


def test_regrets_of_the_cells_that_other_tables_put_first() -> None:
    # The third task is the sum of the two others. Their mean puts the cells 2, 3, 1, 0 in this order.
    accuracies = np.array([[0.0, 10.0, 4.0, 5.0], [1.0, 0.0, 5.0, 3.5], [1.0, 10.0, 9.0, 8.5]])
    regrets = regrets_of_tables(accuracies, (1, 2, 3))["mean"]
    np.testing.assert_allclose(regrets[2] * accuracies[2].std(), [1.0, 1.0, 0.0])
    assert regrets.shape == (3, 3)

    first, second = np.random.default_rng(0).normal(size=(2, 100))
    regrets = regrets_of_tables(np.array([first, second, first + 3 * second]), (1,))["fitted to the task"]
    np.testing.assert_allclose(regrets[2], 0.0, atol=1e-12)


def test_settings_depend_on_the_earlier_agent_and_the_environment(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = Args(table=table, tasks=FEW)
    before = args.settings()
    monkeypatch.setattr("benchmarks.transfer.EARLIER_AGENTS", {"random_search": model_assisted})
    assert args.settings()["code"] != before["code"]
    assert before["environment"]["embedding"]


def test_command_prints_tables_and_writes_json(table: str, tmp_path: Path) -> None:
    options = ("--num-seeds", "2", "--budgets", "5", "--earlier-budget", "6", "--num-processes", "1", "--table", table)
    few = ("--tasks", "jigsaw", "normal", "--output", str(tmp_path / "out.json"))
    output = run_benchmark("transfer", (*options, *few), tmp_path).stdout
    for text in ("policy gradient and transfer", "transfer, negated rewards – no transfer", "jigsaw", "5 children"):
        assert text in output
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["regrets"]) == set(METHODS)
    assert report["tables_of_other_tasks"] == {"mean": {"5": 0.0}, "fitted to the task": {"5": 0.0}}  # they agree
    assert len(report["results"]) == 2 * 2 * len(METHODS)


def test_recorded_seeds_are_not_repeated(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"budgets": (5,), "earlier_budget": 5, "table": table, "tasks": FEW, "num_processes": 1}
    args = Args(**options, methods=("learning",), num_seeds=2, output=tmp_path / "out.json")
    main(args)
    report = (tmp_path / "out.json").read_text()
    records = tmp_path / "out.records.jsonl"
    with open(records, "a") as file:
        file.write('{"seed": 3')  # of a killed process
    monkeypatch.setattr("benchmarks.transfer.run_job", None)
    main(args)
    assert (tmp_path / "out.json").read_text() == report
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # the records have other settings
        main(dataclasses.replace(args, budgets=(4,)))
    records.write_text("[]\n")
    with pytest.raises(InputError, match=r"line 1 of .*out\.records\.jsonl is not a record of this benchmark; remove"):
        main(args)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("transfre",)}, r"unknown method 'transfre' \(did you mean 'transfer'\?\)"),
        ({"methods": ()}, "pass at least one method"),
        ({"tasks": ("jigsaw", "norml")}, r"unknown task 'norml' \(did you mean 'normal'\?\)"),
        ({"tasks": ("jigsaw",)}, "pass at least two different tasks"),
        ({"budgets": (0,)}, "numbers of children, 1 or larger"),
        ({"num_seeds": 1}, "--num-seeds must be at least 2, not 1"),
        ({"earlier_budget": 4}, "--earlier-budget must be at least 5, not 4"),
    ],
)
def test_invalid_options_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)  # type: ignore[arg-type]


def test_invalid_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv"):
        main(Args(table=str(tmp_path / "missing.csv")))
