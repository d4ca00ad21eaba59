"""Does a search survive whatever happens to it? One that is tormented is compared with one that nobody disturbs.

    python -m benchmarks.fault_injection --output faults.json

"toy" is regularized evolution on children that cost 50 ms, "digits" is REINFORCE on children that are trained and write
checkpoints. Each search runs from the command line twice, with the same options. The second time, at random moments, workers
are killed, workers are stopped so that they hang, children raise an exception, occupy too much memory, end their process or
write junk, and the search itself is killed and gone on with by --resume. In the end both must have the same trajectory and
the same results, and nothing may be left over.

"two_searches_toy" and "two_searches_digits" start two equal searches at once on one store: each child must be evaluated once
in all.

Only processes that the benchmark started are touched: they have a mark in their environment.
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

from benchmarks.fault_injection import checks
from benchmarks.fault_injection.control_dir import FaultFolder
from benchmarks.fault_injection.injector import (
    FAULTS,
    SEARCH_KILL,
    SearchFailed,
    Tormentor,
    draw_schedule,
    first_occurrences,
    wait_for_end,
)
from benchmarks.fault_injection.search_process import SearchProcess
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError
from nases_env.search.run_dir import read_trajectory
from nases_env.seeding import numpy_generator

Campaign = Literal["toy", "digits", "two_searches_toy", "two_searches_digits"]
CAMPAIGNS: tuple[Campaign, ...] = get_args(Campaign)

MEMORY_LIMIT_GIB = 1.0
OCCUPIED_MIB = 1536  # by a child whose token says so, beside what its worker occupies anyway
MIN_WIDTH = 120


@dataclass(frozen=True)
class Args:
    """What is done to which searches."""

    campaigns: tuple[Campaign, ...] = CAMPAIGNS
    """toy and digits: a search that is tormented. two_searches: one of them, undisturbed, twice at once on one store."""
    toy_children: int = 200
    """The budget of the toy search."""
    digits_children: int = 24
    """The budget of the search on digits."""
    num_kills: int = 20
    """Kills of each search itself."""
    num_faults: int = 5
    """Times of each other fault: workers are killed or stopped, children raise, occupy memory, exit or print."""
    num_envs: int = 4
    """Children in flight at once."""
    num_workers: int = 2
    """Worker processes of a search."""
    seed: int = 0
    """Decides the searches, and when what is done to them."""
    work_dir: Path | None = None
    """New folder for all that the searches write; unset: a temporary one, which stays where a check fails."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        least = {"toy_children": 2, "digits_children": 2, "num_kills": 0, "num_faults": 0, "num_envs": 1, "num_workers": 1}
        for option, number in least.items():
            if getattr(self, option) < number:
                raise InputError(f"--{option.replace('_', '-')} must be at least {number}, not {getattr(self, option)}")
        if not self.campaigns:
            raise InputError(f"name at least one campaign with --campaigns: {', '.join(CAMPAIGNS)}")
        if self.work_dir is not None and self.work_dir.exists():
            raise InputError(f"--work-dir {self.work_dir} exists; name a new folder")


class Kind(NamedTuple):
    """A search that is tormented.

    Attributes:
        agent: the name of a file in ``agents``.
        options: of its command line, beside those of all kinds.
        num_children: its budget.
        num_ahead: children that it may record before the next event.
        max_pause: seconds that an event waits at most once it is due: about what ``num_ahead`` children take.
    """

    agent: str
    options: tuple[str, ...]
    num_children: int
    num_ahead: int
    max_pause: float


def make_kinds(args: Args) -> dict[str, Kind]:
    """The searches by name. Limits of time are such that a busy machine does not meet them."""
    common = (
        *("--seed", str(args.seed), "--num-envs", str(args.num_envs), "--executor", "processes"),
        *("--num-workers", str(args.num_workers), "--max-retries", "20", "--memory-limit", str(MEMORY_LIMIT_GIB)),
    )
    toy = (
        *("--env-id", "NASES-Query-v0", "--search-space", "faults.spaces:ToySpace"),
        *("--budget", str(args.toy_children), "--time-limit", "5"),
    )
    digits = (
        *("--env-id", "NASES-Digits-v0", "--search-space", "faults.spaces:TrainedSpace", "--preset", "smoke"),
        *("--budget", str(args.digits_children), "--time-limit", "10", "--child.num-epochs", "4"),
        *("--checkpoint-interval", "0", "--learning-starts", "6", "--train-freq", "3"),
    )
    return {
        "toy": Kind("regularized_evolution", (*common, *toy), args.toy_children, 2 * args.num_envs, 0.1),
        "digits": Kind("reinforce", (*common, *digits), args.digits_children, 2, 1.5),
    }


@contextmanager
def ended(*searches: SearchProcess) -> Iterator[None]:
    """Leaves no process behind, whatever happens inside."""
    try:
        yield
    finally:
        for search in searches:
            search.end()


def run_undisturbed(*searches: SearchProcess) -> float:
    """The seconds that ``searches`` take, which are started together."""
    start = time.monotonic()
    for search in searches:
        search.start()
    wait_for_end(searches)
    return time.monotonic() - start


def torment(kind: Kind, args: Args, name: str, folder: Path) -> dict[str, Any]:
    """The figures of one campaign: a search that nobody disturbs, and the same one tormented."""
    reference, tormented = (
        SearchProcess(kind.agent, kind.options, folder / each, FaultFolder(folder / each / "faults"))
        for each in ("undisturbed", "tormented")
    )
    figures: dict[str, Any] = {"children": kind.num_children, "counts": {}, "seconds": {}}
    with ended(reference, tormented):
        try:
            figures["seconds"]["undisturbed"] = run_undisturbed(reference)
        except SearchFailed as failure:
            return {**figures, "checks": {"the undisturbed search ends": [str(failure)]}}
        keys = [record["key"] for record in read_trajectory(reference.run_dir)]
        rng = numpy_generator(args.seed, "fault campaign", name)
        last = first_occurrences(keys)[-1]
        schedule = draw_schedule(rng, last, args.num_kills, args.num_faults, kind.max_pause)
        tormentor = Tormentor(tormented, keys, num_ahead=kind.num_ahead, memory=OCCUPIED_MIB, rng=rng)
        start = time.monotonic()
        failures = []
        with tqdm(total=len(schedule), unit="event", desc=name, dynamic_ncols=True) as bar:
            try:
                tormentor.run(schedule, lambda event: bar.update())
            except SearchFailed as failure:
                failures.append(str(failure))
        figures["seconds"]["tormented"] = time.monotonic() - start
        figures["checks"] = check_tormented(tormentor, reference, args, failures)
        figures["counts"] = {
            **tormentor.counts,
            "repeated_evaluations": checks.num_repeated(tormented),
            "continued_trainings": checks.num_continued(tormented),
        }
        figures["failed_attempts"] = checks.failed_attempts(tormented)
    return figures


def check_tormented(
    tormentor: Tormentor, reference: SearchProcess, args: Args, failures: Sequence[str]
) -> dict[str, list[str]]:
    """What is checked of a tormented search, and what is wrong with it."""
    counts, tormented = tormentor.counts, tormentor.search
    expected = {SEARCH_KILL: args.num_kills, "resume": args.num_kills, **dict.fromkeys(FAULTS, args.num_faults)}
    ends = f"the search ends with all its children after {args.num_kills} kills and {len(FAULTS) * args.num_faults} faults"
    missing = [f"{counts[what]} of {number} {what}" for what, number in expected.items() if counts[what] != number]
    if failures or missing:
        return {ends: [*failures, *missing]}
    # A completed evaluation is lost only where its worker, or its search, ends before the result is in the store.
    max_lost = counts[SEARCH_KILL] * args.num_workers + counts["kill"] + counts["stop"]
    return {
        ends: [],
        "the trajectory is that of the undisturbed search": checks.find(checks.trajectory_differs, tormented, reference),
        "the store has each child once, with the undisturbed results": checks.find(
            checks.store_differs, tormented, reference
        ),
        "no evaluation is repeated but for those lost with a killed process": [
            *checks.find(checks.completions_differ, reference, 0),
            *checks.find(checks.completions_differ, tormented, max_lost),
        ],
        **checks.check_alone(tormented),
    }


def run_two(kind: Kind, folder: Path) -> dict[str, Any]:
    """The figures of two equal searches that share a store."""
    faults, store = FaultFolder(folder / "faults"), folder / "store" / "shared.sqlite"
    first, second = (SearchProcess(kind.agent, kind.options, folder / each, faults, store) for each in ("first", "second"))
    figures: dict[str, Any] = {"children": kind.num_children, "counts": {}, "seconds": {}}
    with ended(first, second):
        try:
            figures["seconds"]["undisturbed"] = run_undisturbed(first, second)
        except SearchFailed as failure:
            return {**figures, "checks": {"both searches end": [str(failure)]}}
        figures["counts"]["repeated_evaluations"] = checks.num_repeated(first)
        figures["checks"] = {
            "both searches end": [],
            "both trajectories are the same": checks.find(checks.trajectory_differs, second, first),
            "the store has each child once": checks.find(checks.store_lacks, first),
            "each child is evaluated once in all": checks.find(checks.completions_differ, first, 0),
            **checks.check_alone(first, second),
        }
    return figures


def run_campaigns(args: Args, folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of all campaigns by name."""
    kinds = make_kinds(args)
    figures: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        if name in args.campaigns:
            figures[name] = torment(kind, args, name, folder / name)
    for name, kind in kinds.items():
        twice = f"two_searches_{name}"
        if twice in args.campaigns:
            figures[twice] = run_two(kind, folder / twice)
    return figures


def show(console: Console, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what was done and what is wrong."""
    table = Table(title="what was done", title_justify="left")
    table.add_column("", no_wrap=True)
    rows = {
        "children": ["children"],
        "search killed, resumed": [SEARCH_KILL, "resume"],
        "workers killed, stopped": ["kill", "stop"],
        "… with a child under evaluation": ["while_evaluating"],
        "children that raised": ["raise"],
        "… took too much memory": ["memory"],
        "… exited": ["exit"],
        "… wrote junk": ["print"],
        "evaluations repeated": ["repeated_evaluations"],
        "trainings continued": ["continued_trainings"],
        "seconds undisturbed": ["undisturbed"],
        "seconds": ["tormented"],
    }
    flat = {name: {"children": each["children"], **each["counts"], **each["seconds"]} for name, each in figures.items()}
    for name in figures:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for title, names in rows.items():
        table.add_row(
            title, *(", ".join(f"{each[name]:.0f}" for name in names if name in each) or "–" for each in flat.values())
        )
    console.print(table)
    for name, each in figures.items():
        for check, problems in each["checks"].items():
            console.print(f"{'✘' if problems else '✔'} {name}: {check}", highlight=False, markup=False, soft_wrap=True)
            for problem in checks.shorten(problems):
                console.print(f"    {problem}", highlight=False, markup=False, soft_wrap=True)


def main(args: Args) -> None:
    """Torment searches and check that they end as if nothing had been."""
    folder = Path(tempfile.mkdtemp(prefix="nases-faults-")) if args.work_dir is None else args.work_dir.absolute()
    try:
        figures = run_campaigns(args, folder)
    except BaseException:
        if args.work_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    passed = not any(problems for each in figures.values() for problems in each["checks"].values())
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, MIN_WIDTH))
    show(console, figures)
    if args.output is not None:
        record = {
            "benchmark": "fault_campaign",
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
                for name, each in figures.items()
            },
        }
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())
    if not passed:
        console.print(f"what the searches wrote is in {folder}", highlight=False, soft_wrap=True)
        sys.exit(1)
    if args.work_dir is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    run_command(Args, main)
