"""The comparison of agents: the same searches for all, gone on with after an interrupt, and blind to test accuracies."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nases_agents import regularized_evolution

from benchmarks.common.identity import describe_environment, read_table
from benchmarks.common.records import Record
from benchmarks.search_quality.__main__ import DIFFERENCES, ROWS, Args, Job, main, make_jobs, open_environment, run_search
from nases_env.embedding import Embedding, save_embedding
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search import make_env
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator
from tests.commands import run_benchmark

SCRIPT = "benchmarks.search_quality"


def write_table(path: Path, test_seed: int) -> str:
    """A table whose 200-epoch column alone depends on ``test_seed``."""
    space, rng, test_rng = NasBench201(), numpy_generator(0, "valid"), numpy_generator(test_seed, "test")
    lines = ["arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,test_accuracy_200_epochs"]
    for decisions in itertools.product(range(len(OPERATORS)), repeat=6):
        valid, test = rng.uniform(10, 90), test_rng.uniform(10, 95)
        lines.append(f"{space.to_string(space.architecture(decisions))},{valid:.3f},{valid:.3f},{test:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tables")
    return write_table(folder / "a.csv", 1), write_table(folder / "b.csv", 2)


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("embedding") / "nasbench201.safetensors"
    save_embedding(Embedding(NasBench201(), embedding_size=6, hidden_size=8, loss="cross_entropy"), path)
    return str(path)


@pytest.fixture(scope="module")
def options(tables: tuple[str, str], embedding: str) -> dict[str, Any]:
    """Of a comparison that ends in seconds."""
    return {
        "agents": ("random_search", "regularized_evolution"),
        "num_seeds": 2,
        "budgets": (20, 8),
        "table": tables[0],
        "embedding": embedding,
        "num_processes": 1,
    }


@pytest.fixture
def few(options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return {**options, "output": tmp_path / "out" / "figures.json"}


@pytest.fixture(scope="module")
def compared(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison with these options that has ended."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    main(Args(**options, output=folder / "figures.json"))
    return folder


def jobs_of(args: Args) -> list[Job]:
    nases = open_environment(args)
    return make_jobs(args, nases, describe_environment(nases, read_table(nases), args.table))


def without_time(figures: dict[str, Any]) -> dict[str, Any]:
    """Nor the place of its files."""
    figures["settings"]["output"] = None
    for agent in figures["agents"].values():
        agent["seconds_per_search"] = None
    return figures


def records_in(output: Path) -> list[Record]:
    lines = output.with_suffix(".records.jsonl").read_text().splitlines()
    return [Record(**json.loads(line)) for line in lines]


def test_what_is_reported_is_what_was_recorded(few: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    args = Args(**few)
    main(args)
    figures = json.loads(args.output.read_text())
    for record in records_in(args.output):
        for budget in (8, 20):
            values = figures["agents"][record.agent]["at"][str(budget)]
            best = record.rewards.index(max(record.rewards[:budget])) + 1
            assert values["valid_accuracy"]["values"][record.seed] == max(record.rewards[:budget])
            expected = record.test_accuracies[record.bests.index(best)] if record.test_accuracies else None
            assert values["test_accuracy"]["values"][record.seed] == expected
    assert list(figures["agents"]["random_search"]["at"]) == ["8", "20"]
    assert "probability_of_improvement" in figures["agents"]["regularized_evolution"]["at"]["20"]
    assert "probability_of_improvement" not in figures["agents"]["random_search"]["at"]["20"]
    # The table has 15,625 random accuracies up to 90 and 95 %.
    assert figures["optimum"] == {
        "valid_accuracy": pytest.approx(0.90, abs=0.001),
        "test_accuracy": pytest.approx(0.95, abs=0.001),
        "is_known": True,
    }
    curve = figures["regret"]["test_accuracy"]["random_search"]
    mean = figures["agents"]["random_search"]["at"]["20"]["test_accuracy"]["mean"]
    assert curve["mean"][-1] == pytest.approx(100 * (figures["optimum"]["test_accuracy"] - mean))
    assert figures["regret"]["children"][-1] == 20
    assert args.output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "regularized_evolution" in args.output.with_suffix(".svg").read_text()
    row = next(
        line for line in args.output.with_suffix(".md").read_text().splitlines() if line.startswith("| random_search")
    )
    shown = capsys.readouterr().out
    assert all(cell.strip() in shown for cell in row.split("|"))


def test_a_comparison_goes_on_where_it_ended(
    few: dict[str, Any], compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = Args(**few)
    shutil.copytree(compared, args.output.parent)
    file, before = args.output.with_suffix(".records.jsonl"), without_time(json.loads(args.output.read_text()))
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    file.write_text(lines[0] + lines[2] + lines[3][:50])
    capsys.readouterr()

    main(args)
    assert "2 are in " in (shown := capsys.readouterr().out)
    assert "the last record in " in shown
    assert without_time(json.loads(args.output.read_text())) == before
    again = file.read_text().splitlines(keepends=True)
    assert again[:2] == [lines[0], lines[2]]
    assert len(again) == 4

    main(args)  # there is nothing left to do
    assert file.read_text().splitlines(keepends=True) == again


def test_records_of_another_experiment_are_left_alone(
    few: dict[str, Any], compared: Path, tables: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(compared, few["output"].parent)
    for change in ({"budgets": (8,)}, {"table": tables[1]}):
        capsys.readouterr()
        main(Args(**{**few, **change}))
        assert "0 are in " in capsys.readouterr().out
    main(Args(**few))
    assert "4 are in " in capsys.readouterr().out
    assert len(records_in(few["output"])) == 12


def test_settings_tell_apart_all_that_decides_a_search(
    few: dict[str, Any], tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.safetensors"
    save_embedding(Embedding(NasBench201(), embedding_size=6, hidden_size=8, loss="cross_entropy", seed=1), other)
    moved = tmp_path / "moved.csv"
    moved.write_bytes(Path(tables[0]).read_bytes())
    args = Args(**few)
    settings = {job.agent: job.settings for job in jobs_of(args)}
    assert len(set(settings.values())) == 2
    assert {job.agent: job.settings for job in jobs_of(dataclasses.replace(args, table=str(moved)))} == settings
    for change in ({"embedding": str(other)}, {"table": tables[1]}, {"budgets": (9,)}):
        changed = {job.agent: job.settings for job in jobs_of(dataclasses.replace(args, **change))}
        assert not set(changed.values()) & set(settings.values())
    evolution = ROWS["regularized_evolution"]
    options = regularized_evolution.Args(population_size=5)
    monkeypatch.setitem(ROWS, "regularized_evolution", evolution._replace(options=options))
    changed = {job.agent: job.settings for job in jobs_of(args)}
    assert changed["random_search"] == settings["random_search"]
    assert changed["regularized_evolution"] != settings["regularized_evolution"]


def test_an_interrupted_comparison_ends_its_workers_and_goes_on(few: dict[str, Any], tmp_path: Path) -> None:
    """And its searches are the same as in one process."""
    output = few["output"]
    options = ["--agents", *few["agents"], "--output", str(output), "--budgets", *map(str, few["budgets"])]
    options += ["--table", few["table"], "--embedding", few["embedding"], "--num-seeds"]
    process = subprocess.Popen(
        [sys.executable, "-m", SCRIPT, *options, "100000", "--num-processes", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background with SIGINT ignored; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = output.with_suffix(".records.jsonl")
    while not (records.exists() and records.read_text().count("\n") > 2) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    shown, errors = process.communicate(timeout=60)  # ends when no worker has these open any more
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command to resume" in shown
    assert not output.exists()

    recorded = records_in(output)
    assert len(recorded) > 2
    num_seeds = 2 + max(record.seed for record in recorded)
    run_benchmark("search_quality", [*options, str(num_seeds), "--num-processes", "1"], tmp_path)
    assert sorted((record.seed, record.agent) for record in records_in(output)) == [
        (seed, agent) for seed in range(num_seeds) for agent in sorted(few["agents"])
    ]
    here = tmp_path / "here.json"
    main(Args(**{**few, "num_seeds": num_seeds, "output": here}))
    ours, theirs = (without_time(json.loads(path.read_text())) for path in (here, output))
    assert ours["agents"] == theirs["agents"]
    assert ours["regret"] == theirs["regret"]


def test_the_seed_numbers_the_operators_for_all_agents_alike(few: dict[str, Any]) -> None:
    jobs = jobs_of(Args(**{**few, "num_seeds": 4}))
    orders: dict[int, set[tuple[str, ...]]] = {}
    for job in jobs:
        assert job.options.env_kwargs["operator_permutation_seed"] == job.options.seed == job.seed
        orders.setdefault(job.seed, set()).add(make_env(job.options).unwrapped.search_space.operators)  # type: ignore[attr-defined]
    assert all(len(same) == 1 for same in orders.values())
    assert len(set.union(*orders.values())) == 4


@pytest.mark.parametrize("agent", ROWS)
def test_no_agent_sees_test_accuracies(agent: str, few: dict[str, Any], tables: tuple[str, str]) -> None:
    """Tables that differ in the test accuracies alone give the same searches."""
    assert not [field.name for field in dataclasses.fields(Evaluation) if "test" in field.name]
    records = []
    for table in tables:
        args = Args(**{**few, "agents": (agent,), "table": table, "budgets": (30,)})
        records.append(run_search(make_jobs(args, open_environment(args), {})[0]))
    assert records[0].rewards == records[1].rewards
    assert records[0].repeats == records[1].repeats
    assert len(records[0].rewards) == 30
    assert records[0].test_accuracies != records[1].test_accuracies


def test_where_nothing_is_known_of_the_test_set_rewards_are_compared(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "output": output}
    main(Args(agents=("random_search",), env_id="NASES-Synthetic-v0", **options))
    figures = json.loads(output.read_text())
    assert figures["measure"] == "valid_accuracy"
    assert not figures["permuted"]
    best = max(max(record.rewards) for record in records_in(output))
    assert figures["optimum"] == {"valid_accuracy": best, "is_known": False}
    assert list(figures["regret"]) == ["children", "valid_accuracy"]


def test_an_environment_of_ones_own(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "output": output}
    main(Args(agents=("local_search",), env_id="tests.benchmarks.own_env:Own-v0", **options))
    at = json.loads(output.read_text())["agents"]["local_search"]["at"]["5"]
    assert at["test_accuracy"]["mean"] == pytest.approx(at["valid_accuracy"]["mean"] / 2)


def test_differences_are_between_rows_that_there_are() -> None:
    for ours, theirs in DIFFERENCES.values():
        assert {ours, theirs} <= set(ROWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": ("random_serch",)}, r"unknown agent 'random_serch' \(did you mean 'random_search'\?\)"),
        ({"agents": ()}, "name at least one agent"),
        ({"budgets": (0, 5)}, "from 1 on"),
        ({"num_seeds": 1}, "--num-seeds must be at least 2, not 1"),
        ({"num_processes": 0}, "--num-processes must be at least 1, not 0"),
        ({"output": Path("figures.png")}, r"--output must end in \.json, as figures\.json does"),
    ],
)
def test_wrong_options_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**change)


def test_a_table_that_is_missing_ends_a_comparison_before_it_writes(few: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table"):
        main(Args(**{**few, "table": str(tmp_path / "absent.csv")}))
    assert not few["output"].parent.exists()
