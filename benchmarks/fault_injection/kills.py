"""Campaign ``kills``: commands that are killed at random moments and run again end with the results of one that was not."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.fault_injection.forked_command import (
    ForkedCommand,
    describe_failure,
    find_leftovers,
    find_processes,
    kill_at,
    running,
)
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import Store
from nases_env.hashing import sha256_hex, tensor_digest
from nases_env.safetensors_file import InvalidFileError, load_tensors
from nases_env.search.run_dir import read_trajectory
from nases_env.search_spaces import get_search_space
from nases_env.seeding import numpy_generator

OPERATION_SHARE = 0.5
"""Share of the kills before a random operation on files; the others are at a random time."""

AGAIN_SHARE = 0.4
"""Share of the repeated commands that are killed again."""

SESSION_SHARE = 0.5
"""Share of the kills of a command with subprocesses that also kill these."""

NOT_COMPARED = ("seconds", "hours")

CHECKS = {
    "reference": "each command ends without kills",
    "commands": "each killed command ends with status 0 when it is run again",
    "results": "its results equal those of the command that was not killed",
    "leases": "no lease remains in a store",
    "leftovers": "no temporary file remains",
    "processes": "no process is still running",
}


class Target(NamedTuple):
    """A command to kill.

    Attributes:
        name: name of the command.
        weight: its share of the kills.
        prepare: creates what the command reads, in a new folder.
        words: returns its command line for a folder.
        results: returns its results in a folder, as comparable values by name.
        has_subprocesses: whether it starts other processes.
    """

    name: str
    weight: int
    prepare: Callable[[Path], None]
    words: Callable[[Path], tuple[str, ...]]
    results: Callable[[Path], Mapping[str, Any]]
    has_subprocesses: bool = False


def make_targets(inputs: Path) -> list[Target]:
    """Return the commands to kill; ``inputs`` is the folder with a search in ``run`` and two stores in ``stores``."""
    reproduce = ("--preset", "smoke", "--seeds", "1", "--agents", "random_search", "--budget", "2")
    return [
        Target(
            "train",
            3,
            lambda folder: _copy(inputs / "run", folder / "run"),
            lambda folder: ("nases", "train", str(folder / "run")),
            lambda folder: _final_results(folder / "run" / "final"),
        ),
        Target(
            "merge",
            3,
            lambda folder: _copy(inputs / "stores", folder),
            lambda folder: ("nases", "store", "merge", str(folder / "target.sqlite"), str(folder / "source.sqlite")),
            lambda folder: _store_content(folder / "target.sqlite"),
        ),
        Target(
            "pretrain",
            2,
            lambda folder: folder.mkdir(),
            lambda folder: (
                *("nases", "pretrain", "--search-space", "nasbench201", "--num-steps", "5"),
                *("--output", str(folder / "embedding.safetensors")),
            ),
            lambda folder: _embedding(folder / "embedding.safetensors"),
        ),
        Target(
            "reproduce",
            2,
            lambda folder: folder.mkdir(),
            lambda folder: ("nases", "reproduce", *reproduce, "--output", str(folder / "reproduction")),
            lambda folder: _reproduction(folder / "reproduction"),
            has_subprocesses=True,
        ),
    ]


def _files(folder: Path) -> set[str]:
    """Return the files in ``folder``, except for TensorBoard's, which have the process id in their name."""
    paths = (path for path in folder.rglob("*") if ".tfevents." not in path.name)
    return {str(path.relative_to(folder)) for path in paths}


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


def _final_results(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for seed in sorted(folder.glob("seed-*")):
        record, tensors = load_tensors(seed / "model.safetensors", "model")
        values[f"{seed.name}/weights"] = tensor_digest(_comparable(record), tensors)
        values[f"{seed.name}/result"] = _read(seed / "result.json")
    return {**values, "report": _read(folder / "report.json"), "genotype": _read(folder / "genotype.json")}


def _store_content(path: Path) -> dict[str, Any]:
    with Store(path, read_only=True) as store:
        rows = {f"{row['key']}, seed {row['seed']}": row for row in store.rows()}
        return {**rows, "configurations": store.configurations(), "integrity": store.integrity_errors()}


def _embedding(path: Path) -> dict[str, Any]:
    return {file.name: file.read_bytes() for file in (path, path.with_suffix(".json"))}


def _reproduction(folder: Path) -> dict[str, Any]:
    seed = folder / "seed-0"
    run_dir = seed / "random_search"
    return {
        **_embedding(seed / "embedding.safetensors"),
        **{f"child {record['child']}": _comparable(record) for record in read_trajectory(run_dir)},
        **_final_results(run_dir / "final"),
        "report of the reproduction": _read(folder / "report.json"),
    }


def _read(path: Path) -> Any:
    return _comparable(json.loads(path.read_bytes()))


def _comparable(values: Any) -> Any:
    """Return JSON values without measured times."""
    if isinstance(values, dict):
        return {name: _comparable(value) for name, value in values.items() if name not in NOT_COMPARED}
    return [_comparable(value) for value in values] if isinstance(values, list) else values


def make_stores(folder: Path, num_rows: int) -> None:
    """Write ``source.sqlite`` with ``num_rows`` evaluations of two configurations, and ``target.sqlite`` with a tenth."""
    space = get_search_space("nasbench201")
    rng = numpy_generator(0, "rows to merge")
    with Store(folder / "source.sqlite") as source, Store(folder / "target.sqlite") as target:
        for number in range(num_rows):
            description = {"evaluator": "kills", "part": number % 2}
            digest = sha256_hex(json.dumps(description, sort_keys=True))
            architecture = space.sample(rng)
            evaluation = Evaluation(architecture.key, number, Status.OK, valid_accuracy=float(rng.random()))
            for store in (source, target) if number % 10 == 0 else (source,):
                if number < 2 or store is target:
                    store.register_config(digest, description)
                store.put(evaluation, digest, space.to_json(architecture))


class Campaign:
    """Kills commands and collects the problems.

    Args:
        folder: a new directory for all files.
        seed: seed of the kills.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, list[str]] = {name: [] for name in CHECKS}
        self._rng = numpy_generator(seed, "kills")
        self._sessions: set[int] = set()
        self._num_started = 0
        self._temporary_dir = folder / "tmp"
        self._temporary_dir.mkdir(parents=True)

    def prepare(self, num_rows: int) -> Path:
        """Create what the commands read: a finished search and two stores; return their folder."""
        inputs = self.folder / "inputs"
        (inputs / "stores").mkdir(parents=True)
        make_stores(inputs / "stores", num_rows)
        options = ("--env-id", "NASES-Digits-v0", "--preset", "smoke", "--budget", "2", "--num-finalists", "0")
        search = self._start(("random_search", *options, "--run-dir", str(inputs / "run")))
        self.problems["reference"] += describe_failure(search, search.wait())
        return inputs

    def run(self, target: Target, num_kills: int) -> Iterator[None]:
        """Kill ``target`` ``num_kills`` times; yield after each kill."""
        folder = self.folder / target.name
        folder.mkdir()
        expected = self._run_reference(target, folder / "reference")
        number = 0
        while expected is not None and self.counts[target.name] < num_kills:
            number += 1
            case = folder / str(number)
            target.prepare(case)
            while self._run_killed(target, case):
                yield
                if self.counts[target.name] == num_kills or self._rng.random() >= AGAIN_SHARE:
                    break
            if self._finish(target, case, expected):
                shutil.rmtree(case)

    def kill_all(self) -> None:
        """Kill all processes that are still running."""
        for process in running(self._sessions):
            process.kill()

    def _start(self, words: Sequence[str], before_operation: Callable[[int], None] = lambda number: None) -> ForkedCommand:
        self._num_started += 1
        logs = self.folder / "logs" / str(self._num_started)
        logs.mkdir(parents=True)
        command = ForkedCommand(words, self.folder, logs, self._temporary_dir, before_operation=before_operation)
        self._sessions.add(command.session)
        return command

    def _run_reference(self, target: Target, folder: Path) -> Mapping[str, Any] | None:
        target.prepare(folder)
        start = time.monotonic()
        command = self._start(target.words(folder))
        if problems := describe_failure(command, command.wait()):
            self.problems["reference"] += problems
            return None
        self._seconds, self._num_operations = time.monotonic() - start, command.num_operations
        return {**target.results(folder), "list of files": _files(folder)}

    def _run_killed(self, target: Target, folder: Path) -> bool:
        """Run ``target`` and kill it at a random moment; return whether it was killed before its end."""
        if self._rng.random() < OPERATION_SHARE:
            operation = int(self._rng.integers(1, self._num_operations + 1))
            command = self._start(target.words(folder), partial(kill_at, operation))
            status = command.wait()
        else:
            command = self._start(target.words(folder))
            status = command.wait(float(self._rng.uniform(0, self._seconds)))
            if status is None:
                command.kill(whole_session=target.has_subprocesses and self._rng.random() < SESSION_SHARE)
                status = command.wait()
        if status != -9:
            self._add(target, folder, "commands", describe_failure(command, status))
            return False
        self.counts[target.name] += 1
        return True

    def _finish(self, target: Target, folder: Path, expected: Mapping[str, Any]) -> bool:
        """Run ``target`` to its end and check it; return whether there was no problem."""
        command = self._start(target.words(folder))
        num_before = sum(map(len, self.problems.values()))
        self._add(target, folder, "commands", describe_failure(command, command.wait()))
        self._add(target, folder, "processes", find_processes(self._sessions, 1.0))
        self._sessions.clear()
        try:
            results = {**target.results(folder), "list of files": _files(folder)}
            differing = [name for name in {**expected, **results} if expected.get(name) != results.get(name)]
            self._add(target, folder, "results", [f"{name} differs" for name in differing])
            for path in folder.rglob("*.sqlite"):
                with Store(path, read_only=True) as store:
                    self._add(target, folder, "leases", [f"process {lease.pid}: {lease.key}" for lease in store.leases()])
        except (OSError, InputError, InvalidFileError) as error:
            self._add(target, folder, "results", [str(error)])
        self._add(target, folder, "leftovers", find_leftovers(folder, self._temporary_dir))
        return sum(map(len, self.problems.values())) == num_before

    def _add(self, target: Target, folder: Path, check: str, problems: Sequence[str]) -> None:
        self.problems[check] += [f"{target.name} {folder.name}: {problem}" for problem in problems]


def split_kills(targets: Sequence[Target], num_kills: int) -> dict[str, int]:
    """Return the number of kills of each target, in proportion to their weights."""
    turns = [
        target.name for turn in range(max(target.weight for target in targets)) for target in targets if turn < target.weight
    ]
    counts = Counter(turns[number % len(turns)] for number in range(num_kills))
    return {target.name: counts[target.name] for target in targets}


def run_kills(folder: Path, num_kills: int, num_rows: int, seed: int) -> dict[str, Any]:
    """Kill commands ``num_kills`` times and return the measurements.

    Args:
        folder: a new directory for all files.
        num_kills: number of kills.
        num_rows: number of evaluations in the store that is merged.
        seed: seed of the kills.
    """
    campaign = Campaign(folder, seed)
    start = time.monotonic()
    try:
        targets = make_targets(campaign.prepare(num_rows))
        planned = split_kills(targets, num_kills)
        with tqdm(total=num_kills, unit="kill", desc="kills", dynamic_ncols=True) as bar:
            for target in targets:
                if planned[target.name]:
                    for _ in campaign.run(target, planned[target.name]):
                        bar.update()
    finally:
        campaign.kill_all()
    return {
        "counts": {"kills": campaign.counts.total(), **campaign.counts},
        "seconds": {"faulted": time.monotonic() - start},
        "checks": {CHECKS[name]: problems for name, problems in campaign.problems.items()},
    }
