"""Campaign ``concurrency``: eight commands at a time work on the same run directories and the same store."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.fault_injection.forked_command import (
    ForkedCommand,
    describe_failure,
    find_leftovers,
    find_processes,
    running,
)
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.execution.store import Row
from nases_env.search.run_dir import TRAJECTORY, read_trajectory
from nases_env.seeding import numpy_generator

NUM_PROCESSES = 8
MAX_DELAY = 0.3  # seconds; in a round, the commands start at random moments within this time
PAUSE_SHARE = 0.05  # share of the operations on files before which a command pauses
MAX_PAUSE = 0.5  # seconds
NUM_KINDS = 4
FIRST_BUDGET = 2

REFUSALS: dict[str, tuple[str, ...]] = {
    "resume": ("another search is writing to", "is finished ("),
    "resume second": ("another search is writing to", "is finished ("),
    "train": ("a search is writing to", "another process is training in", "is the training of another architecture"),
    "train base": ("another process is training in",),
}
"""Errors with which a command may refuse to run next to the others; no other command may fail."""

DRAWN = (
    *("resume", "resume second", "status", "status second", "validate", "train", "train base"),
    *("ls", "verify", "export", "merge into", "merge from", "new search"),
)
"""The commands of a round, in addition to the two searches that always run, are drawn from ``NUM_KINDS`` of these."""

CHECKS = {
    "commands": "every command ends with status 0, or refuses with one line and status 2",
    "trajectory": "each trajectory only grows and has all children of its budget, numbered without a gap",
    "store": "no row of the store is lost or changed",
    "leases": "no lease remains in the store",
    "after": "nases status and nases store verify pass after each round",
    "reports": "each report of a final training has all finished seeds",
    "leftovers": "no temporary file remains",
    "processes": "no process is still running",
}


@dataclass
class Files:
    """The files of the campaign in ``folder``."""

    folder: Path
    temporary_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        self.temporary_dir = self.folder.parent / f"{self.folder.name}-tmp"
        self.logs = self.folder.parent / f"{self.folder.name}-logs"
        self.run_dir, self.second, self.base = (self.folder / name for name in ("run", "second", "base"))
        self.store, self.other_store, self.copy = (self.folder / f"{name}.sqlite" for name in ("shared", "base", "copy"))
        for path in (self.folder, self.temporary_dir, self.logs):
            path.mkdir(parents=True)


class Campaign:
    """Runs the rounds and collects the problems.

    Args:
        files: where.
        seed: seed of the commands and of the moments at which they start.
    """

    def __init__(self, files: Files, seed: int) -> None:
        self.files = files
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, list[str]] = {name: [] for name in CHECKS}
        self._rng = numpy_generator(seed, "concurrency")
        self._sessions: set[int] = set()
        self._num_started = 0
        self._rows: dict[tuple[str, str, int], Row] = {}
        self._trajectories: dict[Path, bytes] = {}

    def prepare(self) -> None:
        """Run the first searches, one after another."""
        digits = ("--env-id", "NASES-Digits-v0", "--preset", "smoke", "--num-finalists", "2")
        for run_dir, store, seed in (
            (self.files.run_dir, self.files.store, self.seed),
            (self.files.second, self.files.store, self.seed),
            (self.files.base, self.files.other_store, self.seed + 1),
        ):
            options = ("--seed", str(seed), "--budget", str(FIRST_BUDGET))
            self._run("random_search", *digits, *options, "--run-dir", str(run_dir), "--store", str(store))
        if not self.problems["commands"]:
            self.remember()

    def remember(self) -> None:
        """Remember the files, which the next round may only extend."""
        self._rows = self._read_rows()
        self._trajectories = {path: self._read_trajectory(path) for path in (self.files.run_dir, self.files.second)}

    def run_round(self, number: int) -> None:
        """Run the commands of a round concurrently, wait until all have ended, and check what they left."""
        kinds = self._rng.choice(DRAWN, NUM_KINDS, replace=False)
        names = ["resume", "resume second", *self._rng.choice(kinds, NUM_PROCESSES - 2)]
        started = [
            (name, self._start(*self._words(name, number, index), delay=self._rng.uniform(0, MAX_DELAY), is_paused=True))
            for index, name in enumerate(names)
        ]
        for name, command in started:
            status = command.wait()
            self.counts[name] += 1
            self.counts["refused"] += status == 2
            self._add(number, "commands", describe_failure(command, status, REFUSALS.get(name, ())))
        self.check(number, {index % 2 for index, name in enumerate(names) if name == "train base"})

    def kill_all(self) -> None:
        """Kill all processes that are still running."""
        for process in running(self._sessions):
            process.kill()

    def _words(self, name: str, number: int, index: int) -> tuple[str, ...]:
        """Return the command line of the command ``name``, number ``index`` of the round ``number``."""
        files, budget = self.files, str(FIRST_BUDGET + number)
        final = ("--output", str(files.folder / "final" / str(number)))
        base_final = ("--output", str(files.folder / "base-final" / str(number)), "--seed", str(index % 2))
        new = str(files.folder / "new" / f"{number}-{index}")
        words: dict[str, tuple[str, ...]] = {
            "resume": ("random_search", "--resume", str(files.run_dir), "--budget", budget),
            "resume second": ("random_search", "--resume", str(files.second), "--budget", budget),
            "status": ("nases", "status", str(files.run_dir)),
            "status second": ("nases", "status", str(files.second)),
            "validate": ("nases", "validate", str(files.run_dir), "--sample", "1"),
            "train": ("nases", "train", str(files.run_dir), *final),
            "train base": ("nases", "train", str(files.base), *base_final),
            "ls": ("nases", "store", "ls", str(files.store)),
            "verify": ("nases", "store", "verify", str(files.store)),
            "export": ("nases", "store", "export", str(files.store), "--output", str(files.folder / "export.csv")),
            "merge into": ("nases", "store", "merge", str(files.store), str(files.other_store)),
            "merge from": ("nases", "store", "merge", str(files.copy), str(files.store)),
            # A configuration of its own, which a merge or a verification may meet at any moment.
            "new search": (
                *("random_search", "--env-id", "NASES-Synthetic-v0", "--env-kwargs", "landscape_seed", f"{number}{index}"),
                *("--budget", "3", "--run-dir", new, "--store", str(files.store)),
            ),
        }
        return words[name]

    def _start(self, *words: str, delay: float = 0.0, is_paused: bool = False) -> ForkedCommand:
        self._num_started += 1
        logs = self.files.logs / str(self._num_started)
        logs.mkdir()
        rng = numpy_generator(self.seed, "pauses", str(self._num_started))

        def pause(number: int) -> None:
            if is_paused and rng.random() < PAUSE_SHARE:
                time.sleep(rng.uniform(0, MAX_PAUSE))

        command = ForkedCommand(
            words, self.files.folder, logs, self.files.temporary_dir, delay=delay, before_operation=pause
        )
        self._sessions.add(command.session)
        return command

    def _run(self, *words: str) -> ForkedCommand:
        command = self._start(*words)
        status = command.wait()
        self.problems["commands"] += describe_failure(command, status)
        return command

    def check(self, number: int, seeds: Collection[int]) -> None:
        """Check what the commands of the round ``number`` left; they trained ``seeds`` of the architecture in ``base``."""
        files = self.files
        self._add(number, "processes", find_processes(self._sessions, 1.0))
        self._sessions.clear()
        try:
            self._add(number, "trajectory", self._check_trajectories(number))
            rows = self._read_rows()
            self._add(number, "store", [f"{child} is lost" for child in self._rows.keys() - rows.keys()])
            self._add(
                number, "store", [f"{child} changed" for child, row in self._rows.items() if rows.get(child, row) != row]
            )
            self._rows = rows
            for path in (files.store, files.copy):
                if path.exists():
                    with Store(path, read_only=True) as store:
                        self._add(number, "leases", [f"process {lease.pid}: {lease.key}" for lease in store.leases()])
        except InputError as error:
            self._add(number, "store", [str(error)])
        for words in (
            ("status", str(files.run_dir)),
            ("store", "verify", str(files.store)),
            ("store", "verify", str(files.copy)),
        ):
            if words[-1] == str(files.copy) and not files.copy.exists():
                continue
            command = self._start("nases", *words)
            self._add(number, "after", describe_failure(command, command.wait()))
            if words[0] == "status" and ", finished" not in command.output:
                self._add(number, "after", [f"nases status prints {command.output.splitlines()[:1]}"])
        self._add(number, "reports", self._check_report(number, seeds))
        self._add(number, "leftovers", find_leftovers(files.folder, files.temporary_dir))

    def _check_trajectories(self, number: int) -> list[str]:
        problems = []
        for path, before in self._trajectories.items():
            now = self._read_trajectory(path)
            if not now.startswith(before):
                problems.append(f"the trajectory of {path.name} does not start with its previous content")
            children = [record["child"] for record in read_trajectory(path)]
            if children != list(range(1, FIRST_BUDGET + number + 1)):
                problems.append(f"{path.name} has the children {children}, not {FIRST_BUDGET + number}")
            self._trajectories[path] = now
        return problems

    def _check_report(self, number: int, seeds: Collection[int]) -> list[str]:
        expected = sorted(seeds)
        if not expected:
            return []
        path = self.files.folder / "base-final" / str(number) / "report.json"
        found = [seed["seed"] for seed in json.loads(path.read_text())["seeds"]] if path.exists() else []
        return [] if found == expected else [f"{path} has the seeds {found}, not {expected}"]

    def _read_rows(self) -> dict[tuple[str, str, int], Row]:
        with Store(self.files.store, read_only=True) as store:
            return {(row["key"], row["digest"], row["seed"]): row for row in store.rows()}

    def _read_trajectory(self, path: Path) -> bytes:
        return (path / TRAJECTORY).read_bytes()

    def _add(self, number: int, check: str, problems: Sequence[str]) -> None:
        self.problems[check] += [f"round {number}: {problem}" for problem in problems]


def run_concurrency(folder: Path, num_rounds: int, seed: int) -> dict[str, Any]:
    """Run ``num_rounds`` rounds and return their measurements."""
    campaign = Campaign(Files(folder), seed)
    start = time.monotonic()
    try:
        campaign.prepare()
        if not campaign.problems["commands"]:
            for number in tqdm(range(1, num_rounds + 1), unit="round", desc="concurrency", dynamic_ncols=True):
                campaign.run_round(number)
    finally:
        campaign.kill_all()
    return {
        "counts": {"rounds": num_rounds, **dict(sorted(campaign.counts.items()))},
        "seconds": {"faulted": time.monotonic() - start},
        "checks": {CHECKS[name]: problems for name, problems in campaign.problems.items()},
    }
