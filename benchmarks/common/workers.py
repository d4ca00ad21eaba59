"""Jobs side by side in processes, one thread each, that end with the command that started them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from nases_env.cpu import torch_threads

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_all(work: Callable[[Job], Result], jobs: Iterable[Job], num_processes: int) -> Generator[Result]:
    """Yields ``work(job)`` of all jobs as they end: in new processes, or in this one if one process is enough.

    Close it, or let an error pass through it, to end the jobs under way.

    Raises:
        concurrent.futures.process.BrokenProcessPool: if the system ended a process, as it does where memory runs out.
        Exception: what ``work`` raised.
    """
    if num_processes == 1:
        with torch_threads(1), threadpool_limits(1):
            yield from map(work, jobs)
        return
    remaining = iter(jobs)
    pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _start)
    try:
        with _interrupts_ignored():
            running = {pool.submit(work, job) for job in islice(remaining, num_processes)}
        while running:
            # No more jobs are handed out than there are processes: one that waits in a process could not be called back.
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(work, job) for job in islice(remaining, len(done))}
            for future in done:
                yield future.result()
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)


@contextmanager
def _interrupts_ignored() -> Generator[None]:
    """Processes that start inside ignore Ctrl-C, which a terminal sends to all: this one ends the others."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
