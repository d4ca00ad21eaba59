"""Rows per second that a store commits one by one, with one and with several concurrent processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.common.interleave import Measurements, interleave
from nases_env.atomic_io import append_line
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import Store
from nases_env.search_spaces import get_search_space
from nases_env.seeding import numpy_generator
from nases_env.training import EpochRecord

SPACE = get_search_space("enas_micro")
ARCHITECTURE = SPACE.sample(numpy_generator(0, "commits"))
GENOTYPE = SPACE.to_json(ARCHITECTURE)
EVALUATION = Evaluation(
    ARCHITECTURE.key,
    seed=0,
    status=Status.OK,
    valid_accuracy=0.9,
    train_accuracy=0.9,
    num_params=100_000,
    num_flops=10_000_000,
    num_epochs=10,
    seconds=10.0,
    curve=tuple(EpochRecord(epoch, 0.1, 1.0, 0.5) for epoch in range(1, 11)),
)
DIGEST = "0" * 64
START_SECONDS = 120.0  # timeout for the start of the processes


def measure(folder: Path, *, num_processes: tuple[int, ...], num_rows: int, num_repeats: int) -> dict[str, Measurements]:
    """Measure ``put``, and ``acquire`` and ``put``, for each number of processes.

    Each repeat uses a new store. The first variant is the baseline without a store: it appends as many lines to a file and
    flushes each to disk.

    Args:
        folder: the folder for the files.
        num_processes: numbers of processes.
        num_rows: number of rows per process and repeat.
        num_repeats: number of measurements of each variant.

    Returns:
        The measurements by variant.
    """
    numbers = count()

    def measure_writers(writers: Writers, leases: bool) -> dict[str, float]:
        path = folder / f"{next(numbers)}.sqlite"
        Store(path).close()
        return {"rows_per_second": writers.num_processes * num_rows / max(writers.write(path, num_rows, leases))}

    def append() -> dict[str, float]:
        path = folder / f"{next(numbers)}.jsonl"
        start = time.perf_counter()
        for _ in range(num_rows):
            append_line(path, GENOTYPE)
        return {"rows_per_second": num_rows / (time.perf_counter() - start)}

    with ExitStack() as stack:
        pools = [stack.enter_context(writers(number)) for number in num_processes]
        variants = {"lines of a file, processes = 1": append}
        for leases, operation in ((False, "put"), (True, "lease and put")):
            for pool in pools:
                variants[f"{operation}, processes = {pool.num_processes}"] = partial(measure_writers, pool, leases)
        return interleave(variants, num_repeats, warm_up=True)


class Writers:
    """Processes that write to a store concurrently."""

    def __init__(self, pool: ProcessPoolExecutor, num_processes: int) -> None:
        self._pool = pool
        self.num_processes = num_processes

    def write(self, path: Path, num_rows: int, leases: bool) -> list[float]:
        """Let each process write ``num_rows`` rows, starting together, and return the seconds of each process."""
        futures = [self._pool.submit(write_rows, path, slot, num_rows, leases) for slot in range(self.num_processes)]
        return [future.result() for future in futures]


@contextmanager
def writers(num_processes: int) -> Iterator[Writers]:
    """Start processes, which end with the ``with`` block."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(num_processes)
    with ProcessPoolExecutor(num_processes, context, _set_barrier, (barrier,)) as pool:
        try:
            yield Writers(pool, num_processes)
        except BaseException:
            barrier.abort()  # wakes processes that wait at the barrier
            raise


_barrier: multiprocessing.synchronize.Barrier | None = None
"""Shared by the writers of a pool; None if there is only this process."""


def _set_barrier(barrier: multiprocessing.synchronize.Barrier) -> None:
    global _barrier
    _barrier = barrier


def write_rows(path: Path, slot: int, num_rows: int, leases: bool) -> float:
    """Commit ``num_rows`` rows one by one, with a lease for each if ``leases``, and return the seconds.

    ``slot`` is the index of the process; it determines the seeds of the rows.
    """
    with Store(path) as store:
        if _barrier is not None:
            _barrier.wait(START_SECONDS)
        start = time.perf_counter()
        for number in range(num_rows):
            evaluation = replace(EVALUATION, seed=slot * num_rows + number)
            if leases:
                store.acquire(evaluation.key, DIGEST, evaluation.seed)
            store.put(evaluation, DIGEST, GENOTYPE)
        return time.perf_counter() - start
