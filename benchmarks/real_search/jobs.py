"""Runs jobs in worker processes, each one when everything that it depends on is finished."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from tqdm import tqdm

from benchmarks.common.workers import map_unordered
from benchmarks.real_search.largest import LargestCell
from benchmarks.real_search.searches import Search
from benchmarks.real_search.trainings import Training
from nases_env.cpu import num_cores
from nases_env.devices import resolve_device

Job = Search | Training | LargestCell


class Jobs(Protocol):
    """All jobs of a comparison."""

    def ready_jobs(self) -> Iterator[Job]:
        """Yield the jobs that are not finished, each one when everything that it depends on is finished."""

    def num_unfinished(self) -> int:
        """Return the number of unfinished jobs."""


def run_job(job: Job) -> None:
    """Run a job; its result is written to its file."""
    job.run()


def run_jobs(jobs: Jobs, num_jobs: int | None, num_processes: int | None, device: str) -> None:
    """Run the unfinished jobs.

    Args:
        jobs: the jobs.
        num_jobs: the number of jobs to run; None: all.
        num_processes: number of parallel jobs; None: the number of CPU cores, or 1 on a GPU.
        device: torch device.
    """
    num_left = jobs.num_unfinished() if num_jobs is None else num_jobs
    if num_processes is None:
        num_processes = num_cores() if resolve_device(device).type == "cpu" else 1
    with tqdm(total=num_left, unit="job", disable=num_left == 0) as bar:
        while num_left > 0:
            before = num_left
            for _ in map_unordered(run_job, islice(jobs.ready_jobs(), num_left), num_processes):
                num_left -= 1
                bar.update()
            if num_left == before:  # nothing is left, because several methods chose the same network
                break
