"""The benchmark of rungs on NAS-Bench-201."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.rungs import Args, Job, Result, analyze, best_mean, merge_tables, run_job
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, NasBench201Evaluator, Status
from nases_env.search import Agent, SearchLoop, Trial
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.commands import run_benchmark
from tests.evaluation.test_nasbench201 import STRINGS, write_table


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table in which row ``i`` has i / 200 percent after 12 epochs, and one with the opposite order after 200 epochs."""
    folder = tmp_path_factory.mktemp("tables")
    lines = [f"{text},{99 - row / 200:.3f},1.5" for row, text in enumerate(STRINGS)]
    table_200 = folder / "table_200.csv"
    write_table(table_200, ["arch,valid_accuracy_200_epochs_cifar10,ms_raspi4", *lines[::-1]])
    return Path(write_table(folder / "table.csv")), table_200


def test_tables_are_merged_by_cell(tables: tuple[Path, Path], tmp_path: Path) -> None:
    merge_tables(*tables, tmp_path / "merged.csv")
    evaluator = NasBench201Evaluator(path=str(tmp_path / "merged.csv"), rungs=(12, 200))
    for row in (0, 7000):
        architecture = NasBench201().from_string(STRINGS[row])
        rewards = [evaluator.at_fidelity(rung).evaluate(architecture, 0).reward for rung in (12, 200)]
        assert rewards == pytest.approx([row / 20_000, 0.99 - row / 20_000], abs=1e-5)


HEADER_200 = "arch,valid_accuracy_200_epochs_cifar10"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .* \(No such file or directory\); pass a CSV file with"),
        (b"", "has no column arch; pass a CSV file with arch,valid_accuracy_200_epochs_cifar10 with --table-200"),
        (b"arch,ms_raspi4\n", "has no column valid_accuracy_200_epochs_cifar10; pass"),
        (b"arch\xff\n", "is not a valid CSV file; pass"),
        (f"{HEADER_200}\n{STRINGS[0]},50\n".encode(), r"has no row for \|none~0\|.*; pass"),
        (f"{HEADER_200}\n{STRINGS[0]}\n".encode(), "line 2 of .* has nothing in place of an accuracy in percent; pass"),
        (f"{HEADER_200}\n{STRINGS[0]},high\n".encode(), "line 2 of .* has high in place of"),
        (f"{HEADER_200}\n{STRINGS[0]},nan\n".encode(), "line 2 of .* has nan in place of"),
    ],
)
def test_invalid_table_200_is_one_line(
    content: bytes | None, message: str, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    table_200 = tmp_path / "table_200.csv"
    if content is not None:
        table_200.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        merge_tables(tables[0], table_200, tmp_path / "merged.csv")
    assert str(table_200) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda text: "", lambda text: f"{text}\n", lambda text: f"x{text}", lambda text: text[:-60]]
)
def test_error_names_the_invalid_table(change: Callable[[str], str], tables: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(change(tables[0].read_text()))
    with pytest.raises(InputError, match=re.escape(str(table))) as caught:
        merge_tables(table, tables[1], tmp_path / "merged.csv")
    assert "\n" not in str(caught.value)


def test_rungs_find_the_best_promoted_child(tables: tuple[Path, Path], tmp_path: Path) -> None:
    """After 200 epochs, the order is the opposite of that after 12 epochs, and that of the test accuracies."""
    options = ("--table", str(tables[0]), "--table-200", str(tables[1]), "--num-seeds", "2", "--budget", "20")
    agents = ("--agents", "random_search", "ppo", "--reduction-factor", "4", "--num-processes", "1")
    output = run_benchmark("rungs", (*options, *agents, "--output", str(tmp_path / "out.json")), tmp_path).stdout
    assert "rungs – equal cost" in output
    report = json.loads((tmp_path / "out.json").read_text())
    # 5 promotions of 188 epochs cost as much as 78 children.
    assert report["epochs"] == {"short": 240, "equal": (20 + 78) * 12, "rungs": 240 + 5 * 188, "mean": 240 + 5 * 188}
    for metrics in report["agents"].values():
        assert metrics["differences"]["rungs – 12 epochs"]["value"] > 0


def test_result_by_the_mean_of_both_accuracies() -> None:
    """The second child is neither the best after 12 epochs nor after 200, but it is nearly the best after both."""
    space = NasBench201()
    children = [space.from_string(STRINGS[row]) for row in range(4)]
    short, long = (0.60, 0.59, 0.50, 0.40), (0.70, 0.89, 0.90, None)  # the last child is not promoted
    trials = [
        Trial(0, child, Evaluation(child.key, 0, Status.OK, score=reward), is_promotion=rewards is long)
        for rewards in (short, long)
        for child, reward in zip(children, rewards, strict=True)
        if reward is not None
    ]
    assert best_mean(trials) == children[1]


def test_budget_without_a_promotion_is_one_line() -> None:
    with pytest.raises(InputError, match="--budget 9 promotes no child; it must be at least --reduction-factor, 10"):
        Args(budget=9)


def test_each_search_knows_its_own_budget(
    tables: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule of REINFORCE depends on the budget, so a part of a longer search is not a search of that budget."""
    table = tmp_path / "table.csv"
    merge_tables(*tables, table)
    searches: list[SearchLoop] = []
    run = SearchLoop.run

    def record_and_run(search: SearchLoop, agent: Agent, ask_batch_size: int) -> None:
        searches.append(search)
        run(search, agent, ask_batch_size)

    monkeypatch.setattr(SearchLoop, "run", record_and_run)
    run_job(Job("random_search", 0, str(table), Args(budget=20, reduction_factor=4)))
    assert [(search.budget, search.num_children, search.env.rungs) for search in searches] == [
        (20, 20, ()),
        (98, 98, ()),
        (20, 20, (12, 200)),
    ]


def test_differences_are_paired_by_seed() -> None:
    args = Args(agents=("random_search",), num_seeds=3)
    accuracies = [(0.5, 0.6, 0.7, 0.5), (0.1, 0.2, 0.3, 0.3), (0.8, 0.8, 0.9, 0.9)]
    results = [
        Result("random_search", seed, dict(zip(("short", "equal", "rungs", "mean"), values, strict=True)))
        for seed, values in enumerate(accuracies)
    ]
    metrics = analyze(results, args)["agents"]["random_search"]
    assert metrics["test_accuracy"]["rungs"]["value"] == pytest.approx(1.9 / 3)
    assert metrics["differences"]["rungs – 12 epochs"]["value"] == pytest.approx(0.5 / 3)
    assert metrics["differences"]["mean of both – 12 epochs"]["value"] == pytest.approx(0.1)
    assert metrics["differences"]["rungs – equal cost"] == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})
