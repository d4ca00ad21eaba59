"""Parallel execution of jobs in worker processes with one thread each, which end with the parent process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from nases_env.cpu import torch_threads
from nases_env.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_unordered(work: Callable[[Job], Result], jobs: Iterable[Job], num_processes: int) -> Generator[Result]:
    """Yield ``work(job)`` for all jobs in the order in which they finish.

    With ``num_processes=1``, the jobs run in this process. Closing the generator, or an exception in it, terminates the
    running jobs.

    Raises:
        InputError: if the system killed a process, usually because memory ran out.
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
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                "a worker process was killed, probably because memory ran out; run the command with fewer --num-processes"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent was killed, so that only the next command continues its job."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupts_ignored() -> Generator[None]:
    """Make child processes started in this context ignore Ctrl-C; the parent terminates them instead."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
