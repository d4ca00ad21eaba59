"""Many random inputs in worker processes, which are killed if an input hangs or uses too much memory."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.table import Table
from tqdm import tqdm

from benchmarks.fault_injection.fuzzing.command_lines import commands
from benchmarks.fault_injection.fuzzing.inputs import OUTCOMES, VIOLATIONS, FuzzInput, Outcome, Report, run_input
from benchmarks.fault_injection.fuzzing.kinds import KINDS, draw_input, kind_of
from benchmarks.fault_injection.fuzzing.samples import make_samples

HANG_SECONDS = 20.0  # of processor time, which does not depend on other programs
IDLE_SECONDS = 120.0  # for an input that waits
MEMORY_LIMIT_GIB = 2.0
INPUTS_PER_PROCESS = 1000
STARTUP_SECONDS, STOP_SECONDS = 300.0, 10.0  # of a worker, which imports torch

SPAWN = multiprocessing.get_context("spawn")

_POLL_SECONDS = 0.05
_TITLES = {
    "result": "results",
    "error": "one-line errors",
    "traceback": "tracebacks",
    "hang": "hangs",
    "changed": "changed files",
}


@dataclass
class Totals:
    """The inputs of one kind.

    Attributes:
        counts: number of inputs by outcome.
        max_seconds: the longest time that an input took.
        max_gib: the largest memory of an input (``Worker.gib``).
    """

    counts: Counter[str] = field(default_factory=Counter)
    max_seconds: float = 0.0
    max_gib: float = 0.0


class Worker:
    """A process that runs inputs, one at a time.

    Args:
        seed: seed of the inputs.
        samples: the directory of the valid files.
        folder: a new directory for the files of the inputs.

    Attributes:
        connection: ready if ``poll`` has news.
        number: number of the input that runs; None while the process starts.
        text: the input that runs.
        started: time at which it was started.
        gib: the largest memory of the process and its descendants while it ran, without what earlier inputs left in it.
        is_idle: whether it waits for the next input.
        is_usable: whether it can run another input.
    """

    def __init__(self, seed: int, samples: Path, folder: Path) -> None:
        self.connection, remote = multiprocessing.Pipe()
        self._process = SPAWN.Process(target=_work, args=(remote, seed, samples, folder))
        self._process.start()
        remote.close()
        self._num_inputs = 0
        self._fresh_bytes: int | None = None  # its memory before the first input
        self.is_usable, self.is_idle = True, False
        self._begin(None, STARTUP_SECONDS)

    def run(self, number: int) -> None:
        """Start the input ``number``."""
        self._begin(number, IDLE_SECONDS)
        if self._fresh_bytes is None:
            self._fresh_bytes = self._first_bytes
        self._num_inputs += 1
        self.is_idle = False
        self.connection.send(number)

    def _begin(self, number: int | None, seconds: float) -> None:
        self.number, self.text, self.gib = number, "", 0.0
        self._first_bytes, self._first_cpu_seconds = _usage(self._process.pid)
        self.started = time.monotonic()
        self._deadline = self.started + seconds

    def poll(self) -> Report | None:
        """Return the report of the input, or of the start of the process; None if neither has ended."""
        num_bytes, cpu_seconds = _usage(self._process.pid)
        cpu_seconds -= self._first_cpu_seconds
        kept_bytes = 0 if self._fresh_bytes is None else self._first_bytes - self._fresh_bytes
        self.gib = max(self.gib, (num_bytes - kept_bytes) / 2**30)
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Report):
                    self.is_idle = True
                    self.is_usable = self._num_inputs < INPUTS_PER_PROCESS
                    return message
                self.text = message
        except (EOFError, ConnectionError):
            self._process.join()
            return self._fail("traceback", f"the process exited with status {self._process.exitcode}")
        if self.gib > MEMORY_LIMIT_GIB:
            return self._fail("memory", f"{self.gib:.1f} GiB")
        is_hanging = self.number is not None and cpu_seconds > HANG_SECONDS
        if is_hanging or time.monotonic() > self._deadline:
            seconds = time.monotonic() - self.started
            return self._fail("hang", f"after {seconds:.0f} s, {cpu_seconds:.0f} s of them on a processor")
        return None

    def _fail(self, outcome: Outcome, detail: str) -> Report:
        self.is_usable = False
        return Report(outcome, detail)

    def stop(self) -> None:
        """End the process; kill it, and the processes that it started, if it is busy."""
        self.connection.close()
        if self.is_idle:
            self._process.join(STOP_SECONDS)
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for each in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._process.join()


def _usage(pid: int | None) -> tuple[int, float]:
    """Return the resident memory in bytes and the processor time in seconds of a process and its descendants.

    Of descendants, only the memory that they do not share is counted: the libraries are in memory once.
    """
    num_bytes, seconds = 0, 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = each.memory_info()
                num_bytes += memory.rss - (0 if each is process else getattr(memory, "shared", 0))
                seconds += sum(each.cpu_times()[:4])  # of the process and of its children that have ended
    return num_bytes, seconds


def _work(connection: Connection, seed: int, samples: Path, folder: Path) -> None:
    """Run the inputs that arrive at ``connection``; the main function of a worker."""
    set_environment(samples.parent)
    torch.set_num_threads(1)
    commands()  # imports what takes seconds
    run_input(FuzzInput("", _import_slow_modules), samples)
    connection.send(Report("result"))
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        given = draw_input(kind_of(number), seed, number, samples, folder / "input")
        connection.send(given.text)
        connection.send(run_input(given, folder / "input"))


def _import_slow_modules() -> None:
    for name in ("nases_env.visualization", "torch.utils.tensorboard", "torch._dynamo"):
        importlib.import_module(name)


def set_environment(folder: Path) -> None:
    """Let this process keep its caches and temporary files in ``folder``, which is created."""
    os.environ.pop("NASES_DATA_DIR", None)
    for name, variable in (("home", "HOME"), ("cache", "NASES_CACHE_DIR"), ("tmp", "TMPDIR")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder / name)


def run_campaign(num_inputs: int, num_workers: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run inputs of all kinds in worker processes and return their counts and the violations."""
    process = SPAWN.Process(target=_make_samples, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        return {"checks": {"the valid files can be made": [f"exit status {process.exitcode}"]}, "counts": {}}
    totals = {kind: Totals() for kind in KINDS}
    violations: list[dict[str, Any]] = []
    start = time.monotonic()
    with tqdm(total=num_inputs, unit="input", desc="fuzz", dynamic_ncols=True, disable=None) as bar:
        for worker, report in _run_all(num_inputs, num_workers, seed, folder):
            assert worker.number is not None
            kind = kind_of(worker.number)
            of_kind = totals[kind]
            of_kind.counts[report.outcome] += 1
            of_kind.max_seconds = max(of_kind.max_seconds, time.monotonic() - worker.started)
            of_kind.max_gib = max(of_kind.max_gib, worker.gib)
            if report.outcome in VIOLATIONS:
                violation = {
                    **{"kind": kind, "number": worker.number, "seed": seed},
                    **{"outcome": report.outcome, "input": worker.text, "detail": report.detail},
                }
                violations.append(violation)
                bar.write(_describe(violation), file=sys.stderr)
            bar.update()
    problems = [_describe(violation) for violation in violations]
    return {
        "inputs": num_inputs,
        "counts": {kind: {outcome: each.counts[outcome] for outcome in OUTCOMES} for kind, each in totals.items()},
        "max_seconds": {kind: round(each.max_seconds, 2) for kind, each in totals.items()},
        "max_gib": {kind: round(each.max_gib, 2) for kind, each in totals.items()},
        "seconds": {"all": time.monotonic() - start},
        "violations": violations,
        "checks": {"every input gives a result or an error of one line, and keeps the files that it reads": problems},
    }


def _describe(violation: Mapping[str, Any]) -> str:
    text = "{outcome} of input {number} of the seed {seed}: {input}: {detail}".format(**violation)
    return text.encode(errors="backslashreplace").decode()


def _make_samples(folder: Path) -> None:
    set_environment(folder)
    make_samples(folder / "samples")


def _run_all(num_inputs: int, num_workers: int, seed: int, folder: Path) -> Iterator[tuple[Worker, Report]]:
    """Yield the report of each input, with its worker, in the order in which they end."""
    numbers = iter(range(num_inputs))
    folders = (folder / f"worker-{number}" for number in itertools.count())
    workers = [Worker(seed, folder / "samples", next(folders)) for _ in range(min(num_workers, num_inputs))]
    try:
        while workers:
            wait([worker.connection for worker in workers], timeout=_POLL_SECONDS)
            for index, worker in reversed(list(enumerate(workers))):
                if (report := worker.poll()) is None:
                    continue
                if worker.number is None:
                    if not worker.is_usable:
                        raise RuntimeError(f"a process of the benchmark does not start: {report.detail}")
                else:
                    yield worker, report
                if not worker.is_usable:
                    worker.stop()
                    workers[index] = Worker(seed, folder / "samples", next(folders))
                elif (number := next(numbers, None)) is not None:
                    worker.run(number)
                else:
                    worker.stop()
                    del workers[index]
    finally:
        for worker in workers:
            worker.stop()


def make_table(metrics: Mapping[str, Any]) -> Table:
    """Return a table of the outcomes by kind."""
    table = Table(title="random inputs", title_justify="left")
    table.add_column("", no_wrap=True)
    for title in ("inputs", *(_TITLES.get(outcome, outcome) for outcome in OUTCOMES), "max. s", "max. GiB"):
        table.add_column(title, justify="right")
    for kind, counts in metrics["counts"].items():
        largest = f"{metrics['max_seconds'][kind]:.1f}", f"{metrics['max_gib'][kind]:.1f}"
        table.add_row(kind, str(sum(counts.values())), *(str(counts[outcome]) for outcome in OUTCOMES), *largest)
    sums = [sum(counts[outcome] for counts in metrics["counts"].values()) for outcome in OUTCOMES]
    table.add_row("all", str(sum(sums)), *map(str, sums))
    return table
