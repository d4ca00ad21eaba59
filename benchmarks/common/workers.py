"""Parallel execution of jobs in worker processes with one thread each, which end with the parent process."""

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


def map_unordered(work: Callable[[Job], Result], jobs: Iterable[Job], num_processes: int) -> Generator[Result]:
    """Yield ``work(job)`` for all jobs in the order in which they finish.

    With ``num_processes=1``, the jobs run in this process. Closing the generator, or an exception in it, terminates the
    running jobs.

    Raises:
        concurrent.futures.process.BrokenProcessPool: if the system killed a process, usually because memory ran out.
        Exception: any exception raised by ``work``.
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
            # At most one job per process is submitted, because a job that is queued in a process cannot be canceled.
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
    """Make child processes started in this context ignore Ctrl-C; the parent terminates them instead."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
