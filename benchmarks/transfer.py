"""Transfer on TransNAS-Bench-101: what are earlier searches on other tasks worth in a search on a new task?

    python -m benchmarks.transfer --output transfer.json

Each of the seven tasks in turn is the new one. With each seed, every task is searched first, and the new search transfers
from the run directories of the others. It is compared, seed by seed, with searches without transfer, with and without the
policy gradient, and with searches that transfer from run directories whose rewards are shuffled or negated. The seed
determines the order of the operators.

The regret of a search is the best accuracy of the task minus the best accuracy that the search found, in standard
deviations of the accuracies of all cells. Differences are means over tasks and seeds; their intervals are bootstrap
intervals over seeds.

For comparison, the full tables of the other tasks are used without a search: the first cells in the order of their mean
normal score, and in the order of the linear combination that fits the table of the task itself best, which no search could
know.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from nases_agents import bayesian_optimization, model_assisted, random_search
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.model_assisted import ModelAssisted
from nases_agents.policy import rank_normalize
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

from benchmarks.common import statistics
from benchmarks.common.identity import describe_environment, digest_of_files, sources_of_agent
from benchmarks.common.records import RecordFile
from benchmarks.common.report import TextTable
from benchmarks.common.searches import run_agent
from benchmarks.common.workers import map_unordered
from benchmarks.search_quality.comparison import NO_LEARNING
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import TransNASEvaluator
from nases_env.evaluation.transnas import TASKS
from nases_env.search import SearchArgs, make_env
from nases_env.search.run_dir import CONFIG, TRAJECTORY, read_trajectory
from nases_env.seeding import derive_seed, numpy_generator

EARLIER_AGENTS: dict[str, Any] = {
    "random_search": random_search,
    "bayesian_optimization": bayesian_optimization,
    "model_assisted": model_assisted,
}
"""The modules of the agents of the earlier searches."""

METHODS = {
    "no_learning": "no learning",
    "learning": "policy gradient",
    "transfer": "policy gradient and transfer",
    "transfer_shuffled": "transfer, shuffled rewards",
    "transfer_negated": "transfer, negated rewards",
    "bayesian_optimization": "Bayesian optimization",
    "bayesian_optimization_transfer": "Bayesian optimization and transfer",
}
"""The compared searches and their labels."""

DIFFERENCES = {
    "learning and transfer – neither": ("transfer", "no_learning"),
    "learning – no learning": ("learning", "no_learning"),
    "transfer – no transfer": ("transfer", "learning"),
    "transfer, shuffled rewards – no transfer": ("transfer_shuffled", "learning"),
    "transfer, negated rewards – no transfer": ("transfer_negated", "learning"),
    "transfer – no transfer (Bayesian optimization)": ("bayesian_optimization_transfer", "bayesian_optimization"),
}
"""Pairs (ours, theirs) by title; a positive difference is a smaller regret of ours."""

TABLE_WIDTH = 200  # characters


@dataclass
class Args:
    """Options of the benchmark."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Names of the compared searches."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Names of the tasks, at least two; each one in turn is the new one."""
    budgets: tuple[int, ...] = (5, 10, 20)
    """Numbers of children after which the best is compared; a search ends at the largest."""
    earlier_agent: Literal["random_search", "bayesian_optimization", "model_assisted"] = "random_search"
    """Agent of the earlier searches."""
    earlier_budget: int = 100
    """Number of children of each earlier search, at least 5."""
    num_seeds: int = 100
    """Number of searches of each method for each task, at least 2."""
    first_seed: int = 0
    """First seed; the others follow consecutively."""
    table: str | None = None
    """Table of TransNAS-Bench-101, micro; unset: the default path of the environment."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel searches, with one thread each."""
    output: Path = Path("transfer.json")
    """JSON file for the measurements. Next to it, the results of each seed are recorded as soon as they are known; the same
    command continues with the other seeds."""

    def __post_init__(self) -> None:
        for kind, names, known in (("method", self.methods, METHODS), ("task", self.tasks, TASKS)):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {kind} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
        if len(set(self.tasks)) < max(2, len(self.tasks)):
            raise InputError("pass at least two different tasks with --tasks")
        for option, minimum in {"num_seeds": 2, "first_seed": 0, "earlier_budget": 5, "num_processes": 1}.items():
            if getattr(self, option) < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {getattr(self, option)}")
        if not self.methods or not self.budgets or min(self.budgets) < 1:
            raise InputError("pass at least one method with --methods, and numbers of children, 1 or larger, with --budgets")

    def settings(self) -> dict[str, Any]:
        """Return what determines the results of a seed, as JSON values."""
        names = ("methods", "tasks", "budgets", "earlier_agent", "earlier_budget")
        sources = sources_of_agent(ModelAssisted) | sources_of_agent(BayesianOptimization)
        sources.add(Path(EARLIER_AGENTS[self.earlier_agent].__file__))
        options = _options(Job(self.first_seed, self), self.tasks[0])
        env = make_env(SearchArgs(**options))
        values = {
            **{name: getattr(self, name) for name in names},
            "code": digest_of_files(sources),
            "environment": {**describe_environment(env, None, None), "table": None},
            "table": [TransNASEvaluator(path=self.table, task=task).digest() for task in self.tasks],
        }
        settings: dict[str, Any] = json.loads(json.dumps(values))
        return settings


class Job(NamedTuple):
    """All searches of one seed."""

    seed: int
    args: Args


@dataclass(frozen=True)
class Result:
    """The regret of a search after each of the budgets, in standard deviations of the accuracies of the task."""

    method: str
    task: str
    seed: int
    regrets: list[float]


@dataclass(frozen=True)
class SeedRecord:
    """The results of all searches of one seed, and the settings that determine them."""

    seed: int
    settings: dict[str, Any]
    results: list[Result]

    @classmethod
    def from_json(cls, values: Any) -> SeedRecord:
        """Return the record with these values of a JSON object."""
        return cls(values["seed"], values["settings"], [Result(**result) for result in values["results"]])


def run_job(job: Job) -> list[Result]:
    """Search every task, then every task again with transfer from the others."""
    methods, tasks = dict.fromkeys(job.args.methods), job.args.tasks
    with tempfile.TemporaryDirectory() as folder:
        earlier = {task: _search_earlier(job, task, Path(folder, task)) for task in tasks}
        if "transfer_shuffled" in methods:
            rng = numpy_generator(job.seed, "transfer", "shuffled rewards")
            _change_rewards(earlier, "shuffled", lambda rewards: rng.permutation(rewards).tolist())
        if "transfer_negated" in methods:
            _change_rewards(earlier, "negated", lambda rewards: [1 - reward for reward in rewards])
        return [_search(job, task, method, earlier) for task in tasks for method in methods]


def regrets_of_tables(accuracies: NDArray[np.float64], budgets: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return the regrets of the first cells in orders that the full tables of the other tasks give.

    Args:
        accuracies: the accuracy of each cell, shape (tasks, cells).
        budgets: numbers of cells after which the best is compared.

    Returns:
        Regrets in standard deviations, shape (tasks, budgets), by the order: that of the mean normal score in the other
        tables, and that of a linear combination of the accuracies and normal scores in the other tables, fitted by least
        squares on the table of the task itself. A normal score is the normal quantile of the rank.
    """
    standardized = (accuracies - accuracies.mean(1, keepdims=True)) / accuracies.std(1, keepdims=True)
    normal_scores = np.stack([rank_normalize(torch.from_numpy(of_task)).numpy() for of_task in accuracies])
    last = np.array(budgets) - 1
    regrets: dict[str, list[NDArray[np.float64]]] = {"mean": [], "fitted to the task": []}
    for task, own in enumerate(standardized):
        others = np.delete(normal_scores, task, 0)
        features = np.vstack([np.ones_like(own), np.delete(standardized, task, 0), others]).T
        fitted = features @ np.linalg.lstsq(features, own)[0]
        for name, scores in {"mean": others.mean(0), "fitted to the task": fitted}.items():
            best = np.maximum.accumulate(own[np.argsort(-scores, kind="stable")])
            regrets[name].append(own.max() - best[last])
    return {name: np.array(of_tasks) for name, of_tasks in regrets.items()}


def _options(job: Job, task: str) -> dict[str, Any]:
    env_kwargs = {"task": task, "operator_permutation_seed": str(job.seed)}
    if job.args.table is not None:
        env_kwargs["table"] = job.args.table
    return {"env_id": "NASES-TransNASMicro-v0", "env_kwargs": env_kwargs}


def _search_earlier(job: Job, task: str, run_dir: Path) -> Path:
    """Run the earlier search on a task, as its command does, and return its run directory."""
    agent = EARLIER_AGENTS[job.args.earlier_agent]
    seed, budget = derive_seed(job.seed, "transfer", task), job.args.earlier_budget
    agent.main(agent.Args(**_options(job, task), seed=seed, budget=budget, run_dir=run_dir, quiet=True))
    return run_dir


def _changed(run_dir: Path, name: str) -> Path:
    return run_dir.with_name(f"{run_dir.name}-{name}")


def _change_rewards(earlier: Mapping[str, Path], name: str, change: Callable[[list[float]], Sequence[float]]) -> None:
    """Write copies of the run directories whose rewards are changed."""
    for run_dir in earlier.values():
        records, copy = list(read_trajectory(run_dir)), _changed(run_dir, name)
        rewards = change([record["reward"] for record in records])
        copy.mkdir()
        (copy / CONFIG).write_bytes((run_dir / CONFIG).read_bytes())
        lines = [json.dumps({**record, "reward": reward}) for record, reward in zip(records, rewards, strict=True)]
        (copy / TRAJECTORY).write_text("".join(f"{line}\n" for line in lines))


def _search(job: Job, task: str, method: str, earlier: Mapping[str, Path]) -> Result:
    """Search a task with one of ``METHODS``."""
    others = [path for name, path in earlier.items() if name != task]
    if method in ("transfer_shuffled", "transfer_negated"):
        others = [_changed(path, method.removeprefix("transfer_")) for path in others]
    changes: dict[str, Any] = {"transfer_from": tuple(map(str, others))} if "transfer" in method else {}
    if method == "no_learning":
        changes["learning_rate"] = NO_LEARNING
    options: dict[str, Any] = {**_options(job, task), **changes, "seed": job.seed, "budget": max(job.args.budgets)}
    args: SearchArgs
    if method.startswith("bayesian_optimization"):
        args = bayesian_optimization.Args(**options)
        search = run_agent(BayesianOptimization, args)
    else:
        args = model_assisted.Args(**options)
        search = run_agent(ModelAssisted, args)
    accuracies = _accuracies(task, job.args.table)
    found = np.maximum.accumulate([trial.evaluation.valid_accuracy for trial in search.trials])
    regrets = (accuracies.max() - found[np.array(job.args.budgets) - 1]) / accuracies.std()
    return Result(method, task, job.seed, regrets.tolist())


def _accuracies(task: str, table: str | None) -> NDArray[np.float64]:
    """Return the accuracy of each cell in a task, in the order of the table."""
    return np.array([row[task] for row in TransNASEvaluator(path=table, task=task).rows().values()])


def analyze(results: Sequence[Result], args: Args) -> dict[str, Any]:
    """Return the mean regret of each method, over all tasks and for each task, and the differences paired by seed."""
    rng = numpy_generator(0, "transfer", "bootstrap")
    methods, seeds = list(dict.fromkeys(args.methods)), sorted({result.seed for result in results})
    regrets = {(result.method, result.task, result.seed): result.regrets for result in results}
    # Shape (seeds, tasks, budgets) for each method.
    values = {name: np.array([[regrets[name, task, seed] for task in args.tasks] for seed in seeds]) for name in methods}
    over_tasks = {name: each.mean(1) for name, each in values.items()}
    pairs = {title: pair for title, pair in DIFFERENCES.items() if set(pair) <= set(methods)}

    def estimate(by_seed: Any) -> dict[str, Any]:
        return {str(budget): statistics.mean(by_seed[:, index], rng)._asdict() for index, budget in enumerate(args.budgets)}

    return {
        "benchmark": "transfer",
        "settings": dataclasses.asdict(args),
        "regrets": {name: estimate(over_tasks[name]) for name in methods},
        "differences": {title: estimate(over_tasks[theirs] - over_tasks[ours]) for title, (ours, theirs) in pairs.items()},
        "tasks": {
            task: {
                "regrets": {name: estimate(values[name][:, index]) for name in methods},
                "differences": {
                    title: estimate(values[theirs][:, index] - values[ours][:, index])
                    for title, (ours, theirs) in pairs.items()
                },
            }
            for index, task in enumerate(args.tasks)
        },
        "results": [dataclasses.asdict(result) for result in results],
    }


def make_tables(report: Mapping[str, Any]) -> list[TextTable]:
    """Return the tables of the regrets and of the differences, and those of the differences for each task."""
    settings = report["settings"]
    headings = [f"{budget} children" for budget in settings["budgets"]]
    seeds = f"{settings['num_seeds']} seeds"
    regrets = [[METHODS[name], *_cells(each)] for name, each in report["regrets"].items()]
    regrets += [
        [f"tables of the other tasks, {name}", *(f"{value:.3f}" for value in by_budget.values())]
        for name, by_budget in report["tables_of_other_tasks"].items()
    ]
    tables = [TextTable(f"regret in standard deviations (95%), mean over tasks, {seeds}", ["search", *headings], regrets)]
    places = {"mean over tasks": report, **report["tasks"]}
    for place, part in places.items():
        rows = [[title, *_cells(each, sign="+")] for title, each in part["differences"].items()]
        tables.append(TextTable(f"smaller regret in standard deviations (95%), {place}", ["difference", *headings], rows))
    return tables


def _cells(by_budget: Mapping[str, Mapping[str, float]], sign: str = "") -> list[str]:
    return [
        "{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})".format(sign=sign, **each) for each in by_budget.values()
    ]


def main(args: Args) -> None:
    """Compare searches with and without transfer from earlier searches on other tasks of TransNAS-Bench-101."""
    for task in args.tasks:  # an invalid table is an error of one line, before the workers start
        TransNASEvaluator(path=args.table, task=task).prepare()
    file, settings = RecordFile(args.output.with_suffix(".records.jsonl"), SeedRecord.from_json), args.settings()
    records, was_cut_off = file.load()
    if was_cut_off:
        print(f"the last record in {file.path} was incomplete: its seed runs again")
    known = {record.seed: record.results for record in records if record.settings == settings}
    seeds = range(args.first_seed, args.first_seed + args.num_seeds)
    jobs = [Job(seed, args) for seed in seeds if seed not in known]
    with (
        tqdm(total=len(seeds), initial=len(seeds) - len(jobs), unit="seed") as bar,
        closing(map_unordered(run_job, jobs, args.num_processes)) as finished,
    ):
        for results in finished:
            record = SeedRecord(results[0].seed, settings, results)
            file.append(record)
            known[record.seed] = results
            bar.update()
    report = analyze([result for seed in seeds for result in known[seed]], args)
    accuracies = np.array([_accuracies(task, args.table) for task in args.tasks])
    report["tables_of_other_tasks"] = {
        name: dict(zip(map(str, args.budgets), regrets.mean(0).tolist(), strict=True))
        for name, regrets in regrets_of_tables(accuracies, args.budgets).items()
    }
    for table in make_tables(report):
        Console(width=TABLE_WIDTH).print(table.to_rich())
    write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
