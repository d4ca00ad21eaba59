"""Compare agents: the best architecture of each agent within a budget, over many seeds.

    python -m benchmarks.search_quality --table nasbench201-cifar10.csv --output comparison.json
    python -m benchmarks.search_quality --env-id NASES-Digits-v0 --agents random_search reinforce --num-seeds 5 --budgets 64

Smaller budgets are prefixes of the search with the largest: the best of 100 children is the best of the first 100 of 300.
(An agent that plans with its budget would plan with the largest.) Repeated children count. The agents see validation
accuracies. If the evaluator can report the test accuracy of fully trained children, it is read after a search, and the test
accuracy of the child with the best validation accuracy is compared; otherwise its validation accuracy. All agents search the
same environments. If an environment can permute its operators, the seed of the search determines the order, so that no agent
profits from a particular order.

The tables in Markdown (.md), regret curves (.png, .svg), and one line per search (.records.jsonl) are written next to the
output. A record is on disk as soon as its search has ended, and the same command resumes an interrupted comparison. A record
is reused only if everything that determines it is equal: the options of agent and environment, the largest budget, the
table, the embedding, the code, and the versions of libraries. Other records stay in the file, and their searches run again.

To compare another agent or other options, add a line to ROWS.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from nases_agents import discrete_reinforce, local_search, model_assisted, regularized_evolution, reinforce, sb3
from nases_agents.discrete_reinforce import DiscreteReinforce
from nases_agents.local_search import LocalSearch
from nases_agents.model_assisted import ModelAssisted
from nases_agents.random_search import RandomSearch
from nases_agents.regularized_evolution import RegularizedEvolution
from nases_agents.reinforce import Reinforce
from rich.console import Console
from tqdm import tqdm

from benchmarks.common import regret, report
from benchmarks.common.identity import Table, describe_environment, digest_of_files, digest_of_text, read_table, sources_of
from benchmarks.common.records import Record, RecordFile, find_bests, find_repeats
from benchmarks.common.workers import run_all
from nases_env import visualization
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.envs import NASESEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search.agent import Agent
from nases_env.signals import defer_signals

NO_LEARNING = 1e-12  # a learning rate


class Row(NamedTuple):
    """An agent in the comparison.

    Attributes:
        agent: an ``Agent`` class with the arguments (environment, options), or a function of (search, options) that uses up
            the budget of the search.
        options: options of the agent; environment, budget and seed are those of the comparison.
        variant_of: the row from which this one differs in one option.
    """

    agent: type[Agent] | Callable[[SearchLoop, Any], None]
    options: SearchArgs
    variant_of: str | None = None


ROWS: dict[str, Row] = {
    "random_search": Row(RandomSearch, SearchArgs()),
    "regularized_evolution": Row(RegularizedEvolution, regularized_evolution.Args()),
    "local_search": Row(LocalSearch, local_search.Args()),
    "discrete_reinforce": Row(DiscreteReinforce, discrete_reinforce.Args()),
    "discrete_reinforce_independent": Row(DiscreteReinforce, discrete_reinforce.Args(controller="independent")),
    "reinforce": Row(Reinforce, reinforce.Args()),
    "model_assisted": Row(ModelAssisted, model_assisted.Args()),
    "ppo": Row(sb3.learn, sb3.Args(algorithm="ppo")),
    "a2c": Row(sb3.learn, sb3.Args(algorithm="a2c")),
    "sac": Row(sb3.learn, sb3.Args(algorithm="sac")),
    "td3": Row(sb3.learn, sb3.Args(algorithm="td3")),
    "reinforce_random_weights": Row(Reinforce, reinforce.Args(init="random"), "reinforce"),
    "reinforce_no_learning": Row(Reinforce, reinforce.Args(learning_rate=NO_LEARNING), "reinforce"),
    "reinforce_paper": Row(Reinforce, reinforce.Args(**reinforce.PAPER), "reinforce"),
    "reinforce_paper_random_weights": Row(Reinforce, reinforce.Args(**reinforce.PAPER, init="random"), "reinforce"),
}
"""The agents, by the name under which they are compared."""

BASELINE = "random_search"

DIFFERENCES: dict[str, tuple[str, str]] = {
    "model-assisted – model-free": ("model_assisted", "reinforce"),
    "simulator weights – random weights": ("reinforce", "reinforce_random_weights"),
    "the same in Algorithm 1 as it stands": ("reinforce_paper", "reinforce_paper_random_weights"),
    "embedding – discrete actions of an LSTM": ("reinforce", "discrete_reinforce"),
    "embedding – independent discrete actions": ("reinforce", "discrete_reinforce_independent"),
    "learning – no learning": ("reinforce", "reinforce_no_learning"),
    "our defaults – Algorithm 1 as it stands": ("reinforce", "reinforce_paper"),
}
"""What sets two rows apart, and the two rows, which are compared seed by seed."""

MIN_WIDTH = 140  # characters of the tables, where no terminal says how wide it is


@dataclass
class Args:
    """What is compared."""

    agents: tuple[str, ...] = tuple(ROWS)
    """Rows of the comparison."""
    num_seeds: int = 100
    """Searches of each agent, at least 2."""
    first_seed: int = 0
    """The seeds are this one and those that follow."""
    budgets: tuple[int, ...] = (100, 300)
    """Children after which the best is compared; a search ends at the largest."""
    env_id: str = "NASES-NASBench201-v0"
    """The environment, by its id; MODULE:ID for one that MODULE registers."""
    table: str | None = None
    """The table of results, for an environment that reads one; unset: where that environment's documentation says."""
    search_space: str | None = None
    """Name of a built-in search space or MODULE:CLASS of a custom one; unset: that of the environment."""
    embedding: str | None = None
    """File with a pretrained embedding, as written by `nases pretrain`; unset: the built-in one."""
    preset: str = "auto"
    """Size and training of the children, for an environment that trains them."""
    data_dir: str | None = None
    """The folder with the data, for an environment that trains; unset: NASES_DATA_DIR."""
    num_processes: int = os.cpu_count() or 1
    """Searches side by side, one thread each; with 1, in the process of the command itself."""
    output: Path = Path("search_quality.json")
    """JSON file for the measurements; the other files are written next to it."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in ROWS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, ROWS)}; known: {', '.join(ROWS)}")
        for option, least in {"num_seeds": 2, "first_seed": 0, "num_processes": 1}.items():
            if getattr(self, option) < least:
                raise InputError(f"--{option.replace('_', '-')} must be at least {least}, not {getattr(self, option)}")
        if not self.agents or not self.budgets or min(self.budgets) < 1:
            raise InputError("name at least one agent with --agents, and one number of children, from 1 on, with --budgets")
        if self.output.suffix != ".json":
            raise InputError(f"--output must end in .json, as {self.output.with_suffix('.json')} does, not {self.output}")


class Job(NamedTuple):
    """One search.

    Attributes:
        agent: the name of its row.
        changes: what the comparison sets of the row's options.
        settings: digest of all that decides the result but the seed.
    """

    agent: str
    changes: dict[str, Any]
    settings: str

    @property
    def seed(self) -> int:
        """Of everything random in the search."""
        return int(self.changes["seed"])

    @property
    def options(self) -> SearchArgs:
        """All options, the agent's and the environment's."""
        return dataclasses.replace(ROWS[self.agent].options, **self.changes)


def environment_options(args: Args) -> dict[str, Any]:
    """Return the options that all searches share."""
    names = ("env_id", "search_space", "embedding", "preset", "data_dir")
    env_kwargs = {} if args.table is None else {"table": args.table}
    return {"budget": max(args.budgets), "env_kwargs": env_kwargs, **{name: getattr(args, name) for name in names}}


def open_environment(args: Args) -> NASESEnv:
    """The environment, with all that it needs found."""
    env = make_env(SearchArgs(**environment_options(args)))
    env.reset(seed=args.first_seed)
    return cast(NASESEnv, env.unwrapped)


def make_jobs(args: Args, nases: NASESEnv, environment: Mapping[str, Any]) -> list[Job]:
    """All searches, seed by seed, so that a comparison that is interrupted has as many of each agent."""
    permutes = "operator_permutation_seed" in inspect.signature(type(nases)).parameters
    changes, jobs = environment_options(args), []
    for name in dict.fromkeys(args.agents):
        agent, options, _ = ROWS[name]
        settings = {
            **dataclasses.asdict(dataclasses.replace(options, **changes)),
            **environment,
            "agent_code": digest_of_files(sources_of(agent)),
        }
        digest = digest_of_text(json.dumps(settings, default=str))
        for seed in range(args.first_seed, args.first_seed + args.num_seeds):
            env_kwargs = {**changes["env_kwargs"], **({"operator_permutation_seed": seed} if permutes else {})}
            jobs.append(Job(name, {**changes, "seed": seed, "env_kwargs": env_kwargs}, digest))
    return sorted(jobs, key=lambda job: job.seed)


def run_search(job: Job) -> Record:
    """Runs a search, and looks test accuracies up when it is over."""
    agent, options = ROWS[job.agent].agent, job.options
    start = time.perf_counter()
    env = make_env(options)
    env.reset(seed=job.seed)
    search = SearchLoop(cast(NASESEnv, env.unwrapped), options.budget)
    if isinstance(agent, type):
        search.run(agent(search.env, options), options.ask_batch_size)
    else:
        agent(search, options)
    seconds = time.perf_counter() - start
    children = search.trials[: options.budget]
    assert len(children) == options.budget, f"{job.agent} evaluated {len(children)} of {options.budget} children"
    rewards = [child.evaluation.reward for child in children]
    bests = find_bests(rewards)
    report_test_accuracy = getattr(search.env.evaluator, "report_test_accuracy", None)
    return Record(
        agent=job.agent,
        seed=job.seed,
        settings=job.settings,
        seconds=seconds,
        rewards=rewards,
        repeats=find_repeats([child.evaluation.key for child in children]),
        bests=bests,
        test_accuracies=report_test_accuracy
        and [float(report_test_accuracy(children[number - 1].architecture)) for number in bests],
    )


def complete(jobs: Sequence[Job], file: RecordFile, num_processes: int) -> dict[str, list[Record]]:
    """Runs the searches that ``file`` lacks, and gives the records of all, by agent and in the order of seeds."""
    known, was_cut_off = file.load()
    if was_cut_off:
        print(f"the last record in {file.path} was cut off: that search runs again")
    finished = {(record.agent, record.seed, record.settings): record for record in known}
    wanted = {(job.agent, job.seed, job.settings): job for job in jobs}
    missing = [job for key, job in wanted.items() if key not in finished]
    if known:
        num_others = len(finished.keys() - wanted.keys())
        print(f"{len(wanted) - len(missing)} are already in {file.path}, with {num_others} of other seeds, options or code")
    sys.stdout.flush()
    with (
        tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="search", dynamic_ncols=True) as bar,
        closing(run_all(run_search, missing, num_processes)) as records,
    ):
        for record in records:
            with defer_signals():
                file.append(record)
            finished[record.agent, record.seed, record.settings] = record
            bar.set_postfix(last=record.agent, refresh=False)
            bar.update()
    completed: dict[str, list[Record]] = {}
    for key in wanted:
        completed.setdefault(key[0], []).append(finished[key])
    return completed


def find_optimum(records: Mapping[str, Sequence[Record]], table: Table | None) -> dict[str, float]:
    """The best validation and test accuracy: in the table, or else, in any of the searches."""
    found = [record for rows in records.values() for record in rows]
    valid_accuracies, test_accuracies = (
        zip(*table.values(), strict=True)
        if table
        else (
            [max(record.rewards) for record in found],
            [accuracy for record in found for accuracy in record.test_accuracies or ()],
        )
    )
    optimum = {"valid_accuracy": max(valid_accuracies)}
    return {**optimum, "test_accuracy": max(test_accuracies)} if test_accuracies else optimum


def main(args: Args) -> None:
    """Compare agents on the same searches over many seeds."""
    nases = open_environment(args)
    table = read_table(nases)
    environment = describe_environment(nases, table, args.table)
    jobs = make_jobs(args, nases, environment)
    file = RecordFile(args.output.with_suffix(".records.jsonl"))
    print(f"{args.env_id}: {len(jobs)} searches for {max(args.budgets)} children, {args.num_processes} at a time")
    try:
        records = complete(jobs, file, args.num_processes)
    except KeyboardInterrupt:
        print(f"interrupted: finished searches are in {file.path}; run the same command to resume")
        raise
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, probably because memory ran out; run the same command with fewer --num-processes "
            f"to resume from {file.path}"
        ) from error
    write_results(args, jobs, environment, records, table)


def write_results(
    args: Args,
    jobs: Sequence[Job],
    environment: Mapping[str, Any],
    records: Mapping[str, Sequence[Record]],
    table: Table | None,
) -> None:
    """Figures, tables and curves of a comparison that is complete, to files and to the terminal."""
    figures = report.analyse(records, sorted(set(args.budgets)), BASELINE, DIFFERENCES, args.first_seed)
    grids = report.tables(figures)
    optimum = find_optimum(records, table)
    points = regret.points_until(max(args.budgets))
    curves = regret.curves(records, points, optimum, args.first_seed)
    content = {
        "benchmark": "search_quality",
        "settings": dataclasses.asdict(args),
        "permuted": "operator_permutation_seed" in jobs[0].options.env_kwargs,
        "environment": environment,
        "options": {job.agent: dataclasses.asdict(job.options) for job in jobs},
        **figures,
        "optimum": {**optimum, "is_known": table is not None},
        "regret": {
            "children": points,
            **{measure: {agent: curve.to_dict() for agent, curve in panel.items()} for measure, panel in curves.items()},
        },
    }
    write_atomically(args.output, (json.dumps(content, indent=2, default=str) + "\n").encode())
    write_atomically(args.output.with_suffix(".md"), "\n".join(grid.to_markdown() for grid in grids).encode())
    best = "the best there is" if table else "the best found in any search"
    agents = [name for name in records if ROWS[name].variant_of not in records]
    variants = [name for name in records if name not in agents]
    groups = [agents, [*dict.fromkeys(str(ROWS[name].variant_of) for name in variants), *variants]] if variants else [agents]
    figure = regret.draw(f"{args.env_id}, {args.num_seeds} seeds: regret against {best}", points, curves, groups)
    for ending in (".png", ".svg"):
        visualization.save(figure, args.output.with_suffix(ending))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, MIN_WIDTH))
    for grid in grids:
        console.print(grid.to_rich())
    console.print(f"figures, tables and curves: {args.output.with_suffix('.*')}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(Args, main)
