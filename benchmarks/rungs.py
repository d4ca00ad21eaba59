"""Rungs on NAS-Bench-201: does continuing the best tenth of the children from 12 to 200 epochs improve the result?

    python -m benchmarks.rungs --output rungs.json

With each seed, an agent searches three times: with rewards after 12 epochs alone, with the rungs 12 and 200, and with 12
epochs alone but more children, at most as many training epochs as the search with rungs. The result of a search is its best
child: by the accuracy after 12 epochs, or after 200 epochs among the promoted children. Its test accuracy after 200 epochs
is compared. The result by the mean of both is the promoted child with the highest mean of its two accuracies, each
standardized over the promoted children. The seed determines the order of the operators. The numbers of epochs in the table
assume that all children are distinct: an agent that repeats children needs fewer epochs and promotes fewer children.

The accuracies are read from two CSV files: the table of NAS-Bench-201 (see ``NASES-NASBench201-v0``), and one with the
columns ``arch`` and ``valid_accuracy_200_epochs_cifar10``.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from tqdm import tqdm

from benchmarks.common import statistics
from benchmarks.common.report import TextTable, format_interval
from benchmarks.common.searches import run_agent
from benchmarks.common.workers import map_unordered
from benchmarks.search_quality.comparison import AGENTS
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.nasbench201 import COLUMN_200, RUNGS, TABLE_NAME, NasBench201Evaluator
from nases_env.search import SearchLoop, Trial
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator

SOURCE_COLUMN = "valid_accuracy_200_epochs_cifar10"
TABLE_200_HINT = f"pass a CSV file with arch,{SOURCE_COLUMN} with --table-200"
VARIANTS = {"short": "12 epochs", "equal": "12 epochs, equal cost", "rungs": "rungs 12, 200", "mean": "mean of both"}
"""The compared results and their headings. The last two are chosen in the same search."""
DIFFERENCES = {
    "rungs – 12 epochs": ("rungs", "short"),
    "mean of both – 12 epochs": ("mean", "short"),
    "rungs – equal cost": ("rungs", "equal"),
}
TABLE_WIDTH = 280  # characters


@dataclass
class Args:
    """Options of the benchmark."""

    agents: tuple[str, ...] = (
        "random_search",
        "regularized_evolution",
        "local_search",
        "discrete_reinforce",
        "elite_reinforce",
        "model_assisted",
        "ppo",
    )
    """Names of the agents, as in search_quality."""
    budget: int = 100
    """Number of children."""
    reduction_factor: int = 10
    """The inverse of the fraction of children that are promoted."""
    num_seeds: int = 50
    """Number of searches of each agent, at least 2."""
    table: Path | None = None
    """CSV file with the accuracies after 12 epochs; unset: the default table of the environment."""
    table_200: Path | None = None
    """CSV file with the validation accuracies after 200 epochs; unset: nasbench201-latency.csv in NASES_DATA_DIR."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel searches, with one thread each."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        for option, minimum in {"budget": 1, "reduction_factor": 2, "num_seeds": 2, "num_processes": 1}.items():
            if getattr(self, option) < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {getattr(self, option)}")
        if self.budget < self.reduction_factor:
            raise InputError(
                f"--budget {self.budget} promotes no child; it must be at least --reduction-factor, {self.reduction_factor}"
            )

    @property
    def equal_budget(self) -> int:
        """Number of children with 12 epochs that cost as many epochs as the search with rungs."""
        return self.budget + self.num_promotions * (RUNGS[1] - RUNGS[0]) // RUNGS[0]

    @property
    def num_promotions(self) -> int:
        """Number of promoted children."""
        return self.budget // self.reduction_factor


class Job(NamedTuple):
    """The searches of one agent with one seed."""

    agent: str
    seed: int
    table: str
    args: Args


class Result(NamedTuple):
    """The test accuracy in [0, 1] of the result of each search, by its name in ``VARIANTS``."""

    agent: str
    seed: int
    test_accuracies: dict[str, float]


def merge_tables(table: Path | None, table_200: Path | None, merged: Path) -> None:
    """Write the table of NAS-Bench-201 with the accuracies after 200 epochs as its fifth column to ``merged``.

    Raises:
        InputError: if a file cannot be read or is not valid, or the second one lacks a cell.
    """
    evaluator = NasBench201Evaluator(path=None if table is None else str(table))
    evaluator.prepare()  # an error names this file, not the merged one
    if table_200 is None:
        table_200 = Path(os.environ.get("NASES_DATA_DIR") or ".", "nasbench201-latency.csv")
    accuracies = _read_accuracies(table_200)
    with (
        open(evaluator.table, newline="", encoding="utf-8-sig") as file,
        open(merged, "w", newline="", encoding="utf-8") as target,
    ):
        header, *rows = csv.reader(file)
        if missing := [row[0] for row in rows if row[0] not in accuracies]:
            raise InputError(f"{table_200} has no row for {missing[0]}; {TABLE_200_HINT}")
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow([*header[:4], COLUMN_200])
        writer.writerows([*row[:4], accuracies[row[0]]] for row in rows)


def _read_accuracies(path: Path) -> dict[str, float]:
    """Return the validation accuracies after 200 epochs, in percent, by the string of the cell."""
    accuracies: dict[str, float] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for column in ("arch", SOURCE_COLUMN):
                if column not in (reader.fieldnames or ()):
                    raise InputError(f"{path} has no column {column}; {TABLE_200_HINT}")
            for row in reader:
                accuracies[row["arch"]] = _percentage(row[SOURCE_COLUMN], f"line {reader.line_num} of {path}")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); {TABLE_200_HINT}") from error
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is not a valid CSV file; {TABLE_200_HINT}") from None
    return accuracies


def _percentage(text: str | None, place: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 100.0:
        raise InputError(f"{place} has {text or 'nothing'} in place of an accuracy in percent; {TABLE_200_HINT}")
    return number


def run_job(job: Job) -> Result:
    """Run the searches of one agent with one seed; test accuracies are read after their end."""
    args = job.args
    searches = {
        "short": _search(job, args.budget, ()),
        "equal": _search(job, args.equal_budget, ()),
        "rungs": _search(job, args.budget, RUNGS),
    }
    results = {name: _test_accuracy(search, _best(search)) for name, search in searches.items()}
    results["mean"] = _test_accuracy(searches["rungs"], best_mean(searches["rungs"].trials))
    return Result(job.agent, job.seed, results)


def _search(job: Job, budget: int, rungs: tuple[int, ...]) -> SearchLoop:
    agent, options = AGENTS[job.agent].agent, AGENTS[job.agent].options
    options = dataclasses.replace(
        options,
        env_id="NASES-NASBench201-v0",
        env_kwargs={"table": job.table, "operator_permutation_seed": str(job.seed)},
        budget=budget,
        seed=job.seed,
        rungs=rungs,
    )
    return run_agent(agent, options, reduction_factor=job.args.reduction_factor)


def _best(search: SearchLoop) -> Architecture:
    assert search.best is not None
    return search.best.architecture


def best_mean(trials: Sequence[Trial]) -> Architecture:
    """Return the promoted child with the highest mean of its rewards at both rungs, standardized over the promoted ones."""
    promoted = [trial for trial in trials if trial.is_promotion]
    first = {trial.architecture.key: trial.evaluation.reward for trial in trials if not trial.is_promotion}
    rewards = np.array([(first[trial.architecture.key], trial.evaluation.reward) for trial in promoted])
    scores = (rewards - rewards.mean(0)) / np.maximum(rewards.std(0), 1e-12)
    return promoted[int(scores.mean(1).argmax())].architecture


def _test_accuracy(search: SearchLoop, architecture: Architecture) -> float:
    evaluator = search.env.evaluator
    assert isinstance(evaluator, NasBench201Evaluator)
    return evaluator.report_test_accuracy(architecture)


def analyze(results: Sequence[Result], args: Args) -> dict[str, Any]:
    """Return the mean test accuracy of each agent and search, and the differences paired by seed; accuracies in [0, 1]."""
    rng = numpy_generator(0, "rungs", "bootstrap")
    agents: dict[str, Any] = {}
    for agent in dict.fromkeys(args.agents):
        of_agent = sorted((result for result in results if result.agent == agent), key=lambda result: result.seed)
        values = {name: np.array([result.test_accuracies[name] for result in of_agent]) for name in VARIANTS}
        agents[agent] = {
            "test_accuracy": {name: statistics.mean(values[name], rng)._asdict() for name in VARIANTS},
            "differences": {
                title: statistics.mean(values[first] - values[second], rng)._asdict()
                for title, (first, second) in DIFFERENCES.items()
            },
        }
    rung_epochs = args.budget * RUNGS[0] + args.num_promotions * (RUNGS[1] - RUNGS[0])
    return {
        "benchmark": "rungs",
        "settings": dataclasses.asdict(args),
        "epochs": {
            "short": args.budget * RUNGS[0],
            "equal": args.equal_budget * RUNGS[0],
            "rungs": rung_epochs,
            "mean": rung_epochs,
        },
        "agents": agents,
        "results": [result._asdict() for result in results],
    }


def make_table(report: Mapping[str, Any]) -> TextTable:
    """Return the table of all agents, best first."""
    epochs = report["epochs"]
    headings = ["agent", *(f"{heading} ({epochs[name]:,} epochs)" for name, heading in VARIANTS.items()), *DIFFERENCES]
    ordered = sorted(report["agents"].items(), key=lambda item: -item[1]["test_accuracy"]["rungs"]["value"])
    rows = [
        [
            AGENTS[agent].label,
            *(format_interval(**metrics["test_accuracy"][name]) for name in VARIANTS),
            *(format_interval(**metrics["differences"][title], sign="+") for title in DIFFERENCES),
        ]
        for agent, metrics in ordered
    ]
    settings = report["settings"]
    title = f"test accuracy % (95%), {settings['budget']} children, {settings['num_seeds']} seeds"
    return TextTable(title, headings, rows)


def main(args: Args) -> None:
    """Compare searches on NAS-Bench-201 with rungs and with 12 epochs alone."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, TABLE_NAME)
        merge_tables(args.table, args.table_200, table)
        jobs = [Job(agent, seed, str(table), args) for seed in range(args.num_seeds) for agent in dict.fromkeys(args.agents)]
        results = list(tqdm(map_unordered(run_job, jobs, args.num_processes), total=len(jobs), unit="search"))
    report = analyze(results, args)
    Console(width=TABLE_WIDTH).print(make_table(report).to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
