"""Compare agents for several objectives on NAS-Bench-201: accuracy after 200 epochs and the latency on a device.

    python -m benchmarks.pareto_quality --output pareto_quality.json

The first measure, for each device and agent, is the hypervolume of the children of a search, relative to that of the true
front. There are two reference points, both with the highest latency of the table: one with the lowest accuracy, and one with
the median accuracy, so that only good networks count. Latencies are on a logarithmic scale. The second measure is from
searches whose latency is limited to a third of the median: the accuracy of the best cell within the limit minus that of the
best child. It is omitted for a device if less than 1% of its cells are within the limit. The seed determines the order of
the operators.

The table is that of ``NASES-MO-NASBench201-v0``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nases_agents import mo_model_assisted, mo_reinforce, nsga2
from nases_agents.mo_model_assisted import MOModelAssisted
from nases_agents.mo_reinforce import MOReinforce
from nases_agents.nsga2 import NSGA2
from nases_agents.random_search import RandomSearch
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

from benchmarks.common import statistics
from benchmarks.common.report import TextTable, format_interval
from benchmarks.common.searches import run_agent
from benchmarks.common.workers import map_unordered
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import COSTS, Limits, NasBench201CostEvaluator
from nases_env.evaluation.nasbench201_costs import ACCURACY_COLUMN
from nases_env.pareto import hypervolume
from nases_env.search import SearchArgs, SearchLoop
from nases_env.search.agent import Agent
from nases_env.seeding import numpy_generator

AGENTS: dict[str, tuple[type[Agent], SearchArgs]] = {
    "mo_model_assisted": (MOModelAssisted, mo_model_assisted.Args()),
    "mo_reinforce": (MOReinforce, mo_reinforce.Args()),
    "nsga2": (NSGA2, nsga2.Args()),
    "random_search": (RandomSearch, SearchArgs()),
}
LIMIT = 1 / 3  # of the median latency, in the searches with a limit
MIN_FEASIBLE = 0.01  # share of the cells within the limit; with fewer, most samples are infeasible
LATENCY = COSTS["latency"]
TABLE_WIDTH = 140  # characters


@dataclass
class Args:
    """Options of the benchmark."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents."""
    devices: tuple[str, ...] = ("ms_pixel3", "ms_titan_rtx_1")
    """Columns of the table with latencies."""
    budget: int = 100
    """Number of children."""
    num_seeds: int = 20
    """Number of searches of each agent, at least 2."""
    first_seed: int = 0
    """Seed of the first search; those of the others follow."""
    table: Path | None = None
    """CSV file with accuracies and latencies; unset: the default table of the environment."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel searches, with one thread each."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        for option, minimum in {"budget": 1, "num_seeds": 2, "first_seed": 0, "num_processes": 1}.items():
            if getattr(self, option) < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {getattr(self, option)}")


class Device(NamedTuple):
    """What the table has for a device.

    Attributes:
        references: the reference points by name, shape (2,) each.
        hypervolumes: the hypervolumes of the true front by name of the reference point.
        limit: the limit of the latency in seconds; None: too few cells are that fast.
        best_accuracy: the highest accuracy within the limit.
    """

    references: dict[str, NDArray[np.float64]]
    hypervolumes: dict[str, float]
    limit: float | None
    best_accuracy: float


class Job(NamedTuple):
    """The searches of one agent with one seed on one device."""

    device: str
    agent: str
    seed: int
    known: Device
    args: Args


class Result(NamedTuple):
    """The measurements of a job.

    Attributes:
        hypervolumes: relative to the true front, by name of the reference point.
        regret: the best accuracy within the limit, less that of the search with the limit; None without a limit.
    """

    device: str
    agent: str
    seed: int
    hypervolumes: dict[str, float]
    regret: float | None


def read_device(args: Args, device: str) -> Device:
    """Read the table for one device.

    Raises:
        InputError: if the table cannot be read or lacks the device.
    """
    rows = NasBench201CostEvaluator(path=None if args.table is None else str(args.table), device=device).rows().values()
    accuracies = np.array([row[ACCURACY_COLUMN] / 100 for row in rows])
    seconds = np.array([row[device] / 1000 for row in rows])
    points = np.stack([accuracies, [LATENCY.value(each) for each in seconds]], axis=1)
    slowest = points[:, 1].min()
    references = {
        "lowest": np.array([accuracies.min(), slowest]),
        "median": np.array([np.median(accuracies), slowest]),
    }
    limit = LIMIT * float(np.median(seconds))
    is_feasible = seconds <= limit
    return Device(
        references,
        {name: hypervolume(points, reference) for name, reference in references.items()},
        limit if is_feasible.mean() >= MIN_FEASIBLE else None,
        float(accuracies[is_feasible].max(initial=0.0)),
    )


def run_job(job: Job) -> Result:
    """Run the searches of one agent with one seed."""
    search = _search(job, Limits())
    points = np.array([search.env.reward_of(trial.evaluation) for trial in search.trials], np.float64)
    shares = {
        name: hypervolume(points, reference) / job.known.hypervolumes[name]
        for name, reference in job.known.references.items()
    }
    regret = None
    if job.known.limit is not None:
        limited = _search(job, Limits(max_latency=job.known.limit))
        regret = job.known.best_accuracy - max(trial.evaluation.reward for trial in limited.trials)
    return Result(job.device, job.agent, job.seed, shares, regret)


def _search(job: Job, limits: Limits) -> SearchLoop:
    agent, options = AGENTS[job.agent]
    kwargs = {"operator_permutation_seed": str(job.seed)}
    if job.args.table is not None:
        kwargs["table"] = str(job.args.table)
    return run_agent(
        agent,
        dataclasses.replace(
            options,
            env_id="NASES-MO-NASBench201-v0",
            env_kwargs=kwargs,
            objectives=f"accuracy,{job.device}",
            budget=job.args.budget,
            seed=job.seed,
            limits=limits,
        ),
    )


def analyze(results: Sequence[Result], args: Args) -> dict[str, Any]:
    """Return the means over seeds, with intervals, by device and agent."""
    rng = numpy_generator(0, "pareto quality", "bootstrap")
    devices: dict[str, Any] = {}
    for device in dict.fromkeys(args.devices):
        devices[device] = {}
        for agent in dict.fromkeys(args.agents):
            found = [result for result in results if (result.device, result.agent) == (device, agent)]
            found.sort(key=lambda result: result.seed)
            regrets = [result.regret for result in found if result.regret is not None]
            devices[device][agent] = {
                "hypervolume": {
                    name: statistics.mean(np.array([result.hypervolumes[name] for result in found]), rng)._asdict()
                    for name in found[0].hypervolumes
                },
                "regret": statistics.mean(np.array(regrets), rng)._asdict() if regrets else None,
            }
    return {
        "benchmark": "pareto_quality",
        "settings": dataclasses.asdict(args),
        "devices": devices,
        "results": [result._asdict() for result in results],
    }


def make_table(report: dict[str, Any]) -> TextTable:
    """Return the table of all devices and agents."""
    rows = [
        [
            device,
            agent,
            *(format_interval(**metrics["hypervolume"][name]) for name in ("lowest", "median")),
            "–" if metrics["regret"] is None else format_interval(**metrics["regret"]),
        ]
        for device, agents in report["devices"].items()
        for agent, metrics in agents.items()
    ]
    settings = report["settings"]
    title = f"hypervolume in % of the true front's (95%), {settings['budget']} children, {settings['num_seeds']} seeds"
    headings = ["device", "agent", "from the lowest accuracy", "from the median", "accuracy lost within the limit"]
    return TextTable(title, headings, rows)


def main(args: Args) -> None:
    """Compare agents for several objectives on NAS-Bench-201."""
    known = {device: read_device(args, device) for device in dict.fromkeys(args.devices)}
    jobs = [
        Job(device, agent, seed, known[device], args)
        for seed in range(args.first_seed, args.first_seed + args.num_seeds)
        for device in known
        for agent in dict.fromkeys(args.agents)
    ]
    results = list(tqdm(map_unordered(run_job, jobs, args.num_processes), total=len(jobs), unit="search"))
    report = analyze(results, args)
    Console(width=TABLE_WIDTH).print(make_table(report).to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
