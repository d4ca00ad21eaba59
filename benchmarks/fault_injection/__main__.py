"""Fault-injection benchmark: a search with injected faults must produce the same trajectory as one without faults.

    python -m benchmarks.fault_injection --output fault_injection.json

``toy`` is regularized evolution on children that take 50 ms; ``digits`` is REINFORCE with elites on children that are
trained and write checkpoints; ``rungs`` is the same with promotions, which continue from these checkpoints. Each search runs
twice from the command line with the same options: once without faults (the reference) and once with faults at random
moments. Workers are killed or stopped (a stopped worker hangs). Children raise an exception, exceed the memory limit, exit
their process or print random bytes. The search itself is killed and resumed with ``--resume``. At the end, both searches
must have the same trajectory and the same results, and no lease, process or temporary file may remain.

``two_searches_toy`` and ``two_searches_digits`` run two equal searches concurrently on one store; each child must be
evaluated only once.

``fuzz`` passes random inputs to all commands and to the environments: command lines, damaged files, unusual images, and
arguments of any type. Each input must give a result, or an error of one line, within 20 s and 2 GiB, and files that are only
read must not change. ``python -m benchmarks.fault_injection.fuzzing`` repeats one of these inputs.

``concurrency`` runs eight commands at a time at random moments on the same run directories and the same store: searches,
``nases status``, ``validate``, ``train`` and ``store``. ``kills`` kills ``nases train``, ``reproduce``, ``pretrain`` and
``store merge`` at random moments and runs them again, until they end; the results must be those of commands that were not
killed.

The benchmark signals only processes that it has started; those of a search have a marker in their environment, the others a
session.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.common.console import wide_console
from benchmarks.fault_injection import checks
from benchmarks.fault_injection.concurrency import run_concurrency
from benchmarks.fault_injection.control_dir import ControlDir
from benchmarks.fault_injection.fuzzing import campaign as fuzzing
from benchmarks.fault_injection.injector import (
    FAULTS,
    SEARCH_KILL,
    FaultInjector,
    SearchFailed,
    draw_schedule,
    first_occurrences,
    wait_for_end,
)
from benchmarks.fault_injection.kills import run_kills
from benchmarks.fault_injection.search_process import SearchProcess
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError
from nases_env.search.run_dir import read_trajectory
from nases_env.seeding import numpy_generator

Campaign = Literal["toy", "digits", "two_searches_toy", "two_searches_digits", "rungs", "fuzz", "concurrency", "kills"]
CAMPAIGNS: tuple[Campaign, ...] = get_args(Campaign)

MEMORY_LIMIT_GIB = 1.0
ALLOCATED_MIB = 1536  # by a child with the fault "memory", in addition to the memory of its worker
MIN_WIDTH = 120  # characters of the table if the output is not a terminal


@dataclass(frozen=True)
class Args:
    """Options of the benchmark."""

    campaigns: tuple[Campaign, ...] = CAMPAIGNS
    """toy, digits and rungs: a search with injected faults. two_searches_*: two concurrent searches without faults on one
    store. fuzz: random inputs. concurrency: eight commands at a time on the same files.
    kills: commands that are killed and run again."""
    toy_children: int = 200
    """Budget of the toy search."""
    digits_children: int = 24
    """Budget of the searches on digits, with and without rungs."""
    num_kills: int = 20
    """Number of kills of each search."""
    num_faults: int = 5
    """Number of faults of each other kind, listed under injected faults in the output."""
    num_rounds: int = 200
    """Number of rounds of eight concurrent commands."""
    num_command_kills: int = 100
    """Number of kills of commands other than a search."""
    num_merged_rows: int = 4000
    """Number of evaluations in the store that is merged while the command is killed."""
    num_envs: int = 4
    """Number of concurrent evaluations."""
    num_workers: int = 2
    """Number of worker processes of a search, and of the campaign fuzz."""
    num_inputs: int = 1000
    """Number of random inputs of the campaign fuzz."""
    seed: int = 0
    """Seed of the searches and of the faults."""
    work_dir: Path | None = None
    """New directory for the files of the searches; unset: a temporary one, which is kept if a check fails."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        least = {
            **{"toy_children": 2, "digits_children": 2, "num_kills": 0, "num_faults": 0},
            **{"num_envs": 1, "num_workers": 1, "num_inputs": 1},
            **{"num_rounds": 1, "num_command_kills": 1, "num_merged_rows": 1},
        }
        for option, number in least.items():
            if getattr(self, option) < number:
                raise InputError(f"--{option.replace('_', '-')} must be at least {number}, not {getattr(self, option)}")
        if not self.campaigns:
            raise InputError(f"name at least one campaign with --campaigns: {', '.join(CAMPAIGNS)}")
        if self.work_dir is not None and self.work_dir.exists():
            raise InputError(f"--work-dir {self.work_dir} exists; pass a new directory")


class Scenario(NamedTuple):
    """A search into which faults are injected.

    Attributes:
        agent: name of a file in ``agents``, without suffix.
        options: command-line options of the search.
        num_children: budget of the search.
        num_ahead: number of children that it may record before the next event.
        max_pause: maximum delay of an event in seconds after it is due; about the duration of ``num_ahead`` children.
    """

    agent: str
    options: tuple[str, ...]
    num_children: int
    num_ahead: int
    max_pause: float


def make_scenarios(args: Args) -> dict[str, Scenario]:
    """Return the searches by name. The time limits are generous enough for a busy machine."""
    common = (
        *("--seed", str(args.seed), "--num-envs", str(args.num_envs), "--executor", "processes"),
        *("--num-workers", str(args.num_workers), "--max-retries", "20", "--memory-limit", str(MEMORY_LIMIT_GIB)),
    )
    toy = (
        *("--env-id", "NASES-Query-v0", "--search-space", "benchmarks.fault_injection.faulty_spaces:ToySpace"),
        *("--budget", str(args.toy_children), "--time-limit", "5"),
    )
    digits = (
        *(
            "--env-id",
            "NASES-Digits-v0",
            "--search-space",
            "benchmarks.fault_injection.faulty_spaces:TrainedSpace",
            "--preset",
            "smoke",
        ),
        *("--budget", str(args.digits_children), "--time-limit", "10"),
        *("--checkpoint-interval", "0", "--learning-starts", "6", "--train-freq", "3"),
    )
    epochs = ("--child.num-epochs", "4")
    rungs = ("--rungs", "1,2,4", "--reduction-factor", "2")
    return {
        "toy": Scenario("regularized_evolution", (*common, *toy), args.toy_children, 2 * args.num_envs, 0.1),
        "digits": Scenario("elite_reinforce", (*common, *digits, *epochs), args.digits_children, 2, 1.5),
        "rungs": Scenario("elite_reinforce", (*common, *digits, *rungs), args.digits_children, 2, 1.5),
    }


@contextmanager
def killed_at_exit(*searches: SearchProcess) -> Iterator[None]:
    """Kill all remaining processes of ``searches`` when the context exits."""
    try:
        yield
    finally:
        for search in searches:
            search.kill_all()


def run_without_faults(*searches: SearchProcess) -> float:
    """Run ``searches`` concurrently without faults, and return the seconds that they take."""
    start = time.monotonic()
    for search in searches:
        search.start()
    wait_for_end(searches)
    return time.monotonic() - start


def run_with_faults(scenario: Scenario, args: Args, name: str, folder: Path) -> dict[str, Any]:
    """Run one campaign, a search with and without faults, and return its measurements."""
    reference, faulted = (
        SearchProcess(scenario.agent, scenario.options, folder / each, ControlDir(folder / each / "control"))
        for each in ("reference", "faulted")
    )
    metrics: dict[str, Any] = {"children": scenario.num_children, "counts": {}, "seconds": {}}
    with killed_at_exit(reference, faulted):
        try:
            metrics["seconds"]["reference"] = run_without_faults(reference)
        except SearchFailed as failure:
            return {**metrics, "checks": {"the reference search ends": [str(failure)]}}
        keys = [record["key"] for record in read_trajectory(reference.run_dir)]
        rng = numpy_generator(args.seed, "fault campaign", name)
        last = first_occurrences(keys)[-1]
        schedule = draw_schedule(rng, last, args.num_kills, args.num_faults, scenario.max_pause)
        injector = FaultInjector(faulted, keys, num_ahead=scenario.num_ahead, memory=ALLOCATED_MIB, rng=rng)
        start = time.monotonic()
        failures = []
        with tqdm(total=len(schedule), unit="event", desc=name, dynamic_ncols=True) as bar:
            try:
                injector.run(schedule, lambda event: bar.update())
            except SearchFailed as failure:
                failures.append(str(failure))
        metrics["seconds"]["faulted"] = time.monotonic() - start
        metrics["checks"] = check_faulted(injector, reference, args, failures)
        metrics["counts"] = {
            **injector.counts,
            "repeated_evaluations": checks.num_repeated(faulted),
            "resumed_trainings": checks.num_resumed_trainings(faulted),
        }
        metrics["failed_attempts"] = checks.failed_attempts(faulted)
    return metrics


def check_faulted(
    injector: FaultInjector, reference: SearchProcess, args: Args, failures: Sequence[str]
) -> dict[str, list[str]]:
    """Check a search with injected faults, and return the problems by check."""
    counts, faulted = injector.counts, injector.search
    expected = {SEARCH_KILL: args.num_kills, "resume": args.num_kills, **dict.fromkeys(FAULTS, args.num_faults)}
    ends = f"the search ends with all children after {args.num_kills} kills and {len(FAULTS) * args.num_faults} faults"
    missing = [f"{counts[kind]} of {number} {kind}" for kind, number in expected.items() if counts[kind] != number]
    if failures or missing:
        return {ends: [*failures, *missing]}
    # A completed evaluation is lost only if its worker or its search ends before the result is in the store.
    max_lost = counts[SEARCH_KILL] * args.num_workers + counts["kill"] + counts["stop"]
    return {
        ends: [],
        "the trajectory equals the reference": checks.run_check(checks.compare_trajectories, faulted, reference),
        "the store has each child once, with the results of the reference": checks.run_check(
            checks.compare_stores, faulted, reference
        ),
        "only evaluations lost with a killed process are repeated": [
            *checks.run_check(checks.check_completed, reference, 0),
            *checks.run_check(checks.check_completed, faulted, max_lost),
        ],
        **checks.run_common_checks(faulted),
    }


def run_two(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Run two equal searches that share a store, and return the measurements."""
    control, store = ControlDir(folder / "control"), folder / "store" / "shared.sqlite"
    first, second = (
        SearchProcess(scenario.agent, scenario.options, folder / each, control, store) for each in ("first", "second")
    )
    metrics: dict[str, Any] = {"children": scenario.num_children, "counts": {}, "seconds": {}}
    with killed_at_exit(first, second):
        try:
            metrics["seconds"]["reference"] = run_without_faults(first, second)
        except SearchFailed as failure:
            return {**metrics, "checks": {"both searches end": [str(failure)]}}
        metrics["counts"]["repeated_evaluations"] = checks.num_repeated(first)
        metrics["checks"] = {
            "both searches end": [],
            "both trajectories are equal": checks.run_check(checks.compare_trajectories, second, first),
            "the store has each child once": checks.run_check(checks.check_store_content, first),
            "each child is evaluated only once": checks.run_check(checks.check_completed, first, 0),
            **checks.run_common_checks(first, second),
        }
    return metrics


def run_campaigns(args: Args, folder: Path) -> dict[str, dict[str, Any]]:
    """Run the selected campaigns, and return their measurements by name."""
    scenarios = make_scenarios(args)
    metrics: dict[str, dict[str, Any]] = {}
    for name, scenario in scenarios.items():
        if name in args.campaigns:
            metrics[name] = run_with_faults(scenario, args, name, folder / name)
    for name, scenario in scenarios.items():
        pair = f"two_searches_{name}"
        if pair in args.campaigns:
            metrics[pair] = run_two(scenario, folder / pair)
    if "fuzz" in args.campaigns:
        metrics["fuzz"] = fuzzing.run_campaign(args.num_inputs, args.num_workers, args.seed, folder / "fuzz")
    if "concurrency" in args.campaigns:
        metrics["concurrency"] = run_concurrency(folder / "concurrency", args.num_rounds, args.seed)
    if "kills" in args.campaigns:
        metrics["kills"] = run_kills(folder / "kills", args.num_command_kills, args.num_merged_rows, args.seed)
    return metrics


def faults_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the faults that were injected into searches."""
    table = Table(title="injected faults", title_justify="left")
    table.add_column("", no_wrap=True)
    rows = {
        "children": ["children"],
        "search killed, resumed": [SEARCH_KILL, "resume"],
        "workers killed, stopped": ["kill", "stop"],
        "… while evaluating a child": ["while_evaluating"],
        "children that raised": ["raise"],
        "… exceeded the memory limit": ["memory"],
        "… exited": ["exit"],
        "… printed random bytes": ["print"],
        "repeated evaluations": ["repeated_evaluations"],
        "resumed trainings": ["resumed_trainings"],
        "seconds without faults": ["reference"],
        "seconds with faults": ["faulted"],
    }
    flat = {name: {"children": each["children"], **each["counts"], **each["seconds"]} for name, each in metrics.items()}
    for name in metrics:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for title, names in rows.items():
        table.add_row(
            title, *(", ".join(f"{each[name]:.0f}" for name in names if name in each) or "–" for each in flat.values())
        )
    return table


def commands_table(name: str, metrics: Mapping[str, Any]) -> Table:
    """Return a table of the commands of a campaign."""
    table = Table(title=name, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("number", justify="right")
    for each, number in {**metrics["counts"], "seconds": round(metrics["seconds"]["faulted"])}.items():
        table.add_row(each, f"{number:,}")
    return table


def show(console: Console, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the injected faults, the inputs, the commands, and the result of each check."""
    searches = {name: each for name, each in metrics.items() if "children" in each}
    if searches:
        console.print(faults_table(searches))
    for name in [name for name in metrics if name not in searches]:
        console.print(fuzzing.make_table(metrics[name]) if name == "fuzz" else commands_table(name, metrics[name]))
    for name, each in metrics.items():
        for check, problems in each["checks"].items():
            console.print(f"{'✘' if problems else '✔'} {name}: {check}", highlight=False, markup=False, soft_wrap=True)
            for problem in checks.shorten(problems):
                console.print(f"    {problem}", highlight=False, markup=False, soft_wrap=True)


def main(args: Args) -> None:
    """Inject faults into searches and compare them with searches without faults."""
    folder = Path(tempfile.mkdtemp(prefix="nases-faults-")) if args.work_dir is None else args.work_dir.absolute()
    try:
        metrics = run_campaigns(args, folder)
    except BaseException:
        if args.work_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    passed = not any(problems for each in metrics.values() for problems in each["checks"].values())
    console = wide_console(MIN_WIDTH)
    show(console, metrics)
    if args.output is not None:
        record = {
            "benchmark": "fault_injection",
            "settings": {name: value for name, value in asdict(args).items() if name not in ("output", "work_dir")},
            "passed": passed,
            "campaigns": {
                name: {
                    **each,
                    "checks": {
                        check: {"passed": not problems, "problems": checks.shorten(problems)}
                        for check, problems in each["checks"].items()
                    },
                }
                for name, each in metrics.items()
            },
        }
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())
    if not passed:
        console.print(f"the files of the searches are in {folder}", highlight=False, soft_wrap=True)
        sys.exit(1)
    if args.work_dir is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    run_command(Args, main)
