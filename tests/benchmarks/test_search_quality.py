"""Tests of the comparison of agents: equal conditions, resumption, and searches that do not depend on test accuracies."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import multiprocessing.context
import os
import runpy
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from nases_agents import regularized_evolution

from benchmarks.common import regret
from benchmarks.common.identity import Table, describe_environment, read_table
from benchmarks.common.records import Record
from benchmarks.search_quality.comparison import (
    ABLATIONS,
    AGENTS,
    DEFAULT_AGENTS,
    DIFFERENCES,
    Args,
    Job,
    main,
    make_jobs,
    open_environment,
    run_search,
)
from nases_env.embedding import Embedding, save_embedding
from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.evaluation.table import TableEvaluator
from nases_env.evaluation.training import SPLIT_CACHE
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search import make_env
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator
from nases_env.training.datasets import IMAGE_CACHE
from tests.commands import ROOT, run_benchmark
from tests.evaluation.test_accel import LINES as ACCEL_LINES
from tests.evaluation.test_accel import write_table as write_accel_table
from tests.evaluation.test_transnas import write_table as write_transnas_table
from tests.processes import ForkedCommand
from tests.training.images import write_folder, write_image

SCRIPT = "benchmarks.search_quality"


def write_table(path: Path, test_seed: int) -> str:
    """Write a table in which only the 200-epoch column depends on ``test_seed``."""
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
    """Options of a comparison that takes a few seconds."""
    return {
        "agents": ("random_search", "regularized_evolution"),
        "num_seeds": 2,
        "budgets": (20, 8),
        "table": tables[0],
        "embedding": embedding,
        "num_processes": 1,
    }


@pytest.fixture
def small(options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return {**options, "output": tmp_path / "out" / "metrics.json"}


class Compared(NamedTuple):
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def compared(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """The directory and the printed text of a finished comparison with these options."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(Args(**options, output=folder / "metrics.json"))
    return Compared(folder, printed.getvalue())


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save no figures, which takes longer than a comparison of a few children."""
    monkeypatch.setattr("nases_env.visualization.save", lambda figure, path: None)


_tables: dict[str, Table | None] = {}


def read_table_once(nases: NASESEnv) -> Table | None:
    """Read the rewards of each table only once, which takes longer than a search."""
    if not isinstance(nases.evaluator, TableEvaluator):
        return read_table(nases)
    digest = nases.evaluator.digest()
    if digest not in _tables:
        _tables[digest] = read_table(nases)
    return _tables[digest]


@pytest.fixture(scope="module", autouse=True)
def _reuse_tables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.search_quality.comparison.read_table", read_table_once)
        yield


def jobs_of(args: Args) -> list[Job]:
    nases = open_environment(args)
    return make_jobs(args, nases, describe_environment(nases, read_table_once(nases), args.table))


def without_time(metrics: dict[str, Any]) -> dict[str, Any]:
    """Remove durations and the path of the output."""
    metrics["settings"]["output"] = None
    for agent in metrics["agents"].values():
        agent["seconds_per_search"] = None
    return metrics


def records_in(output: Path) -> list[Record]:
    lines = output.with_suffix(".records.jsonl").read_text().splitlines()
    return [Record(**json.loads(line)) for line in lines]


def test_output_agrees_with_the_records(compared: Compared) -> None:
    output = compared.folder / "metrics.json"
    metrics = json.loads(output.read_text())
    records = records_in(output)
    assert len(records) == 4
    for record in records:
        for budget in (8, 20):
            values = metrics["agents"][record.agent]["at"][str(budget)]
            best = record.rewards.index(max(record.rewards[:budget])) + 1
            assert values["reward"]["values"][record.seed] == max(record.rewards[:budget])
            expected = record.test_accuracies[record.incumbent_steps.index(best)] if record.test_accuracies else None
            assert values["test_accuracy"]["values"][record.seed] == expected
    assert list(metrics["agents"]["random_search"]["at"]) == ["8", "20"]
    assert "probability_of_improvement" in metrics["agents"]["regularized_evolution"]["at"]["20"]
    assert "probability_of_improvement" not in metrics["agents"]["random_search"]["at"]["20"]
    # The table has 15,625 random accuracies up to 90 and 95%.
    assert metrics["optimum"] == {
        "reward": pytest.approx(0.90, abs=0.001),
        "test_accuracy": pytest.approx(0.95, abs=0.001),
        "is_known": True,
    }
    curve = metrics["regret"]["test_accuracy"]["random_search"]
    mean = metrics["agents"]["random_search"]["at"]["20"]["test_accuracy"]["mean"]
    assert curve["mean"][-1] == pytest.approx(100 * (metrics["optimum"]["test_accuracy"] - mean))
    assert metrics["regret"]["children"][-1] == 20
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert ">regularized evolution</text>" in output.with_suffix(".svg").read_text()
    row = next(line for line in output.with_suffix(".md").read_text().splitlines() if line.startswith("| random_search"))
    assert all(cell.strip() in compared.printed for cell in row.split("|"))


def test_every_agent_has_its_own_color_and_a_readable_label() -> None:
    curve = regret.Curve(np.array([2.0, 1.0]), np.array([1.0, 0.5]), np.array([3.0, 2.0]))
    panels = {"reward": dict.fromkeys(AGENTS, curve)}
    labels = {name: entry.label for name, entry in AGENTS.items()}
    (axes,) = regret.draw("a title", [1, 2], panels, [list(AGENTS)], labels).axes
    lines = axes.get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == len(AGENTS)
    defaults = [line for line in lines if line.get_label() in {labels[name] for name in DEFAULT_AGENTS}]
    assert len({line.get_color() for line in defaults}) == len(DEFAULT_AGENTS)
    assert {str(line.get_label()) for line in lines} == set(labels.values())
    assert len(set(labels.values())) == len(AGENTS)
    assert not any("_" in label for label in labels.values())


@pytest.mark.usefixtures("without_figures")
def test_comparison_is_resumed(small: dict[str, Any], compared: Compared, capsys: pytest.CaptureFixture[str]) -> None:
    args = Args(**small)
    shutil.copytree(compared.folder, args.output.parent)
    file, before = args.output.with_suffix(".records.jsonl"), without_time(json.loads(args.output.read_text()))
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    file.write_text(lines[0] + lines[2] + lines[3][:50])
    capsys.readouterr()

    main(args)
    assert "2 searches are already in " in (shown := capsys.readouterr().out)
    assert "the last record in " in shown
    assert without_time(json.loads(args.output.read_text())) == before
    again = file.read_text().splitlines(keepends=True)
    assert again[:2] == [lines[0], lines[2]]
    assert len(again) == 4

    main(args)  # nothing is missing
    assert file.read_text().splitlines(keepends=True) == again


@pytest.mark.usefixtures("without_figures")
def test_records_of_other_experiments_are_kept_but_not_used(
    small: dict[str, Any], compared: Compared, tables: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(compared.folder, small["output"].parent)
    for change in ({"budgets": (8,)}, {"table": tables[1]}):
        capsys.readouterr()
        main(Args(**{**small, **change}))
        assert "0 searches are already in " in capsys.readouterr().out
    main(Args(**small))
    assert "4 searches are already in " in capsys.readouterr().out
    assert len(records_in(small["output"])) == 12


def test_settings_digest_depends_on_everything_that_determines_a_search(
    small: dict[str, Any], tables: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.safetensors"
    save_embedding(Embedding(NasBench201(), embedding_size=6, hidden_size=8, loss="cross_entropy", seed=1), other)
    moved = tmp_path / "moved.csv"
    moved.write_bytes(Path(tables[0]).read_bytes())
    args = Args(**small)
    settings = {job.agent: job.settings for job in jobs_of(args)}
    assert len(set(settings.values())) == 2
    assert {job.agent: job.settings for job in jobs_of(dataclasses.replace(args, table=str(moved)))} == settings
    for change in ({"embedding": str(other)}, {"table": tables[1]}, {"budgets": (9,)}):
        changed = {job.agent: job.settings for job in jobs_of(dataclasses.replace(args, **change))}
        assert not set(changed.values()) & set(settings.values())
    evolution = AGENTS["regularized_evolution"]
    options = regularized_evolution.Args(population_size=5)
    monkeypatch.setitem(AGENTS, "regularized_evolution", evolution._replace(options=options))
    changed = {job.agent: job.settings for job in jobs_of(args)}
    assert changed["random_search"] == settings["random_search"]
    assert changed["regularized_evolution"] != settings["regularized_evolution"]


def test_settings_digest_depends_on_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_folder(folder, per_class=10)
    args = Args(agents=("random_search",), env_id="NASES-ImageFolder-v0", preset="smoke", data_dir=str(folder))
    before = jobs_of(args)[0].settings
    assert jobs_of(dataclasses.replace(args, first_seed=1))[0].settings == before
    write_image(folder / "train" / "cat" / "0000.png", seed=1000)
    IMAGE_CACHE.clear()
    SPLIT_CACHE.clear()
    assert jobs_of(args)[0].settings != before


def lead_session() -> None:
    """Make this process the leader of a new session, and fork its workers, which saves the time of their imports."""
    os.setsid()
    # New interpreters would not inherit the handler of SIGTERM.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    multiprocessing.get_context = lambda method: multiprocessing.context.ForkContext()  # type: ignore


@pytest.mark.usefixtures("without_figures")
def test_interrupted_comparison_ends_its_workers_and_is_resumed(small: dict[str, Any], tmp_path: Path) -> None:
    """The searches are equal to those in one process."""
    output = small["output"]
    options = ["--agents", *small["agents"], "--output", str(output), "--budgets", *map(str, small["budgets"])]
    options += ["--table", small["table"], "--embedding", small["embedding"], "--num-seeds"]
    benchmark = functools.partial(runpy.run_module, SCRIPT, run_name="__main__", alter_sys=True)
    process = ForkedCommand(benchmark, *options, "5000", "--num-processes", "2", folder=ROOT, prepare=lead_session)
    records = output.with_suffix(".records.jsonl")
    while not (records.exists() and records.read_text().count("\n") > 2) and process.is_running():
        time.sleep(0.05)
    assert len(psutil.Process(process.pid).children()) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    ended = process.wait()
    assert ended.returncode == 130, ended.stderr
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)
    assert "Traceback" not in ended.stderr
    assert "run the same command to resume" in ended.stdout
    assert not output.exists()

    recorded = records_in(output)
    assert len(recorded) > 2
    num_seeds = 2 + max(record.seed for record in recorded)
    run_benchmark("search_quality", [*options, str(num_seeds), "--num-processes", "1"], tmp_path)
    assert sorted((record.seed, record.agent) for record in records_in(output)) == [
        (seed, agent) for seed in range(num_seeds) for agent in sorted(small["agents"])
    ]
    here = tmp_path / "here.json"
    main(Args(**{**small, "num_seeds": num_seeds, "output": here}))
    ours, theirs = (without_time(json.loads(path.read_text())) for path in (here, output))
    assert ours["agents"] == theirs["agents"]
    assert ours["regret"] == theirs["regret"]


def test_operator_order_depends_on_the_seed_but_not_on_the_agent(small: dict[str, Any]) -> None:
    jobs = jobs_of(Args(**{**small, "num_seeds": 4}))
    orders: dict[int, set[tuple[str, ...]]] = {}
    for job in jobs:
        assert int(job.options.env_kwargs["operator_permutation_seed"]) == job.options.seed == job.seed
        orders.setdefault(job.seed, set()).add(make_env(job.options).search_space.operators)
    assert all(len(same) == 1 for same in orders.values())
    assert len(set.union(*orders.values())) == 4


@pytest.mark.parametrize("agent", AGENTS)
def test_searches_do_not_depend_on_test_accuracies(agent: str, small: dict[str, Any], tables: tuple[str, str]) -> None:
    """Tables that differ only in the test accuracies result in equal searches."""
    assert not [field.name for field in dataclasses.fields(Evaluation) if "test" in field.name]
    # Model-assisted agents, which are slow, learn before every fifth child.
    num_children = 15 if agent.startswith("model_assisted") else 30
    records = []
    for table in tables:
        args = Args(**{**small, "agents": (agent,), "table": table, "budgets": (num_children,)})
        records.append(run_search(make_jobs(args, open_environment(args), {})[0]))
    assert records[0].rewards == records[1].rewards
    assert records[0].duplicate_steps == records[1].duplicate_steps
    assert len(records[0].rewards) == num_children
    assert records[0].test_accuracies != records[1].test_accuracies


def test_rewards_are_compared_if_test_accuracies_are_unknown(tmp_path: Path) -> None:
    output = tmp_path / "metrics.json"
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "output": output}
    main(Args(agents=("random_search",), env_id="NASES-Synthetic-v0", **options))
    metrics = json.loads(output.read_text())
    assert metrics["measure"] == "reward"
    assert not metrics["permuted"]
    best = max(max(record.rewards) for record in records_in(output))
    assert metrics["optimum"] == {"reward": best, "is_known": False}
    assert list(metrics["regret"]) == ["children", "reward"]


@pytest.mark.usefixtures("without_figures")
def test_every_seed_has_its_own_random_landscape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {
        "env_id": "NASES-Synthetic-v0",
        "agents": ("random_search", "regularized_evolution"),
        "num_seeds": 3,
        "budgets": (5,),
        "num_processes": 1,
    }
    args = Args(**options, random_landscapes=True, output=tmp_path / "metrics.json")
    main(args)
    records, jobs = records_in(args.output), jobs_of(args)
    for record in records:
        job = next(job for job in jobs if (job.agent, job.seed) == (record.agent, record.seed))
        assert job.options.env_kwargs == {"landscape_seed": str(job.seed)}
        assert job.settings == record.settings
    metrics = json.loads(args.output.read_text())
    best = [max(max(record.rewards) for record in records if record.seed == seed) for seed in range(3)]
    assert len(set(best)) == 3
    assert metrics["optimum"] == {"reward": best, "is_known": False}
    values = metrics["agents"]["random_search"]["at"]["5"]["reward"]["values"]
    curve = metrics["regret"]["reward"]["random_search"]
    assert curve["mean"][-1] == pytest.approx(100 * np.mean(np.subtract(best, values)))

    capsys.readouterr()
    main(dataclasses.replace(args, first_seed=1))
    assert "4 searches are already in " in capsys.readouterr().out
    for env_kwargs in ({}, {"landscape_seed": "0"}):
        main(dataclasses.replace(args, random_landscapes=False, env_kwargs=env_kwargs))
        assert "0 searches are already in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "--random-landscapes: NASES-NASBench201-v0 does not take --env-kwargs landscape_seed"),
        (
            {"env_id": "NASES-Synthetic-v0", "env_kwargs": {"operator": "sep_conv_5x5"}},
            "--random-landscapes: pass either operator or landscape_seed, not both",
        ),
    ],
)
def test_random_landscapes_need_an_environment_that_takes_them(env: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        main(Args(random_landscapes=True, output=tmp_path / "out" / "metrics.json", **env))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_figures")
def test_optimum_of_a_table_without_test_accuracies_is_known_and_the_task_determines_the_records(tmp_path: Path) -> None:
    table = write_transnas_table(tmp_path / "table.csv")
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "table": table}
    settings = set()
    for task, best in {"jigsaw": 0.819, "room_layout": 1.0}.items():
        output = tmp_path / f"{task}.json"
        env: dict[str, Any] = {"env_id": "NASES-TransNASMicro-v0", "env_kwargs": {"task": task}}
        main(Args(agents=("random_search",), output=output, **env, **options))
        metrics = json.loads(output.read_text())
        assert metrics["measure"] == "reward"
        assert metrics["permuted"]
        assert metrics["optimum"] == {"reward": pytest.approx(best), "is_known": True}
        settings |= {record.settings for record in records_in(output)}
    assert len(settings) == 2


@pytest.mark.usefixtures("without_figures")
def test_optimum_of_a_surrogate_is_not_known_and_its_table_determines_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "metrics.json"
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "output": output}
    for number, lines in enumerate((ACCEL_LINES, ACCEL_LINES[:-1])):
        monkeypatch.setenv("NASES_ACCEL_TABLE", write_accel_table(tmp_path / f"{number}.csv", lines))
        main(Args(agents=("random_search",), env_id="NASES-Accel-v0", **options))
        metrics = json.loads(output.read_text())
        assert (metrics["measure"], metrics["permuted"]) == ("reward", False)
        assert not metrics["optimum"]["is_known"]
    assert len({record.settings for record in records_in(output)}) == 2


@pytest.mark.usefixtures("without_figures")
def test_custom_environment(tmp_path: Path) -> None:
    output = tmp_path / "metrics.json"
    options: dict[str, Any] = {"num_seeds": 2, "budgets": (5,), "num_processes": 1, "output": output}
    main(Args(agents=("local_search",), env_id="tests.benchmarks.own_env:Own-v0", **options))
    at = json.loads(output.read_text())["agents"]["local_search"]["at"]["5"]
    assert at["test_accuracy"]["mean"] == pytest.approx(at["reward"]["mean"] / 2)


def test_ablations_run_only_if_they_are_named() -> None:
    assert Args().agents == tuple(DEFAULT_AGENTS)
    assert not set(Args().agents) & set(ABLATIONS)
    assert {entry.variant_of for entry in ABLATIONS.values()} <= set(DEFAULT_AGENTS)


def test_differences_refer_to_existing_agents() -> None:
    for ours, theirs in DIFFERENCES.values():
        assert {ours, theirs} <= set(AGENTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": ("random_serch",)}, r"unknown agent 'random_serch' \(did you mean 'random_search'\?\)"),
        ({"agents": ()}, "pass at least one agent"),
        ({"budgets": (0, 5)}, "1 or larger"),
        ({"num_seeds": 1}, "--num-seeds must be at least 2, not 1"),
        ({"env_kwargs": {"table": "table.csv"}}, "--env-kwargs cannot set table: use --table"),
        (
            {"env_kwargs": {"operator_permutation_seed": "1"}},
            "cannot set operator_permutation_seed: each search sets its own",
        ),
        (
            {"env_kwargs": {"landscape_seed": "1"}, "random_landscapes": True},
            "cannot set landscape_seed: with --random-landscapes, each search sets its own",
        ),
        ({"num_processes": 0}, "--num-processes must be at least 1, not 0"),
        ({"output": Path("metrics.png")}, r"--output must end in \.json, as metrics\.json does"),
    ],
)
def test_invalid_options_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**change)


def test_missing_table_raises_an_error_before_anything_is_written(small: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table"):
        main(Args(**{**small, "table": str(tmp_path / "absent.csv")}))
    assert not small["output"].parent.exists()
