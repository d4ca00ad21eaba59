"""Children per minute with several worker processes: all children submitted together, and in a search."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
from nases_agents.random_search import RandomSearch

from benchmarks.common.interleave import Measurements, interleave, paired_ratios
from nases_env import visualization
from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.execution import ExecutionSettings
from nases_env.search import SearchArgs, SearchRun, make_env
from nases_env.seeding import numpy_generator

ENV_ID = "NASES-Digits-v0"
AGENT = "random_search"
WORKER_SCRIPT = "process_worker_main.py"  # in the command line of a worker process


class Run(NamedTuple):
    """One evaluation of all children.

    Attributes:
        seconds: wall time from the first child to the last, not counting the start of the workers.
        startup_seconds: time until all workers had started.
        evaluations: one per child, in proposal order.
        num_from_store: number of children whose result was found in a store.
    """

    seconds: float
    startup_seconds: float
    evaluations: list[Evaluation]
    num_from_store: int


def measure(
    folder: Path, *, num_workers: tuple[int, ...], preset: str, num_children: int, num_repeats: int, seed: int
) -> dict[str, Measurements]:
    """Measure each number of workers with all children submitted together, and in searches.

    The searches have one or two children in flight per worker.

    Args:
        folder: the folder for the run directories.
        num_workers: numbers of workers.
        preset: preset of the children.
        num_children: number of children per run.
        num_repeats: number of measurements of each variant.
        seed: seed of the search.

    Returns:
        The measurements by variant.

    Raises:
        RuntimeError: if a variant evaluated other children, or got other results.
    """
    args = SearchArgs(env_id=ENV_ID, preset=preset, device="cpu", budget=num_children, seed=seed)
    draw_once(args)
    modes = {"all submitted": partial(submit_all, args)} | {
        f"search, {factor} in flight per worker": partial(run_search, args, folder, factor) for factor in (1, 2)
    }
    results: list[list[Evaluation]] = []

    def measure_mode(mode: str, workers: int) -> dict[str, float]:
        run = modes[mode](workers)
        results.append([dataclasses.replace(evaluation, seconds=0.0) for evaluation in run.evaluations])
        if run.num_from_store or results[-1] != results[0]:
            raise RuntimeError(f"{mode} with {workers} workers did not evaluate the same children as the other variants")
        busy_seconds = sum(evaluation.seconds for evaluation in run.evaluations)
        return {
            "children_per_minute": 60 * num_children / run.seconds,
            "busy_share": busy_seconds / (workers * run.seconds),
            "seconds_per_child": busy_seconds / num_children,
            "startup_seconds": run.startup_seconds,
        }

    names = {(mode, workers): f"{mode}, workers = {workers}" for mode in modes for workers in num_workers}
    measurements = interleave({name: partial(measure_mode, *variant) for variant, name in names.items()}, num_repeats)
    for (mode, workers), name in names.items():
        rates = {other: measurements[names[other]]["children_per_minute"] for other in names}
        own = rates[mode, workers]
        measurements[name] = {
            "children_per_minute": own,
            "times_fewest_workers": paired_ratios(own, rates[mode, num_workers[0]]),
            "times_all_submitted": paired_ratios(own, rates["all submitted", workers]),
            **measurements[name],
        }
    return measurements


def submit_all(args: SearchArgs, num_workers: int) -> Run:
    """Submit the children of a random search together and wait for all of them, without a store."""
    nases = make_env(args)
    try:
        nases.reset(seed=args.seed)
        nases.start(ExecutionSettings(executor="processes", num_workers=num_workers), max_in_flight=args.budget)
        startup_seconds = start_workers(nases, num_workers)
        architectures = [proposal.architecture for proposal in RandomSearch(nases, args).ask(args.budget)]
        start = time.perf_counter()
        futures = [nases.submit(architecture) for architecture in architectures]
        evaluations = [future.result() for future in futures]
        return Run(time.perf_counter() - start, startup_seconds, evaluations, nases.executor.num_from_store)
    finally:
        nases.close()


def run_search(args: SearchArgs, folder: Path, factor: int, num_workers: int) -> Run:
    """Run a random search with ``factor × num_workers`` children in flight, in a new run directory with a new store."""
    args = dataclasses.replace(
        args,
        num_envs=factor * num_workers,
        run_dir=folder / f"search-{time.time_ns()}",
        execution=ExecutionSettings(executor="processes", num_workers=num_workers),
    )
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        SearchRun(args, agent=AGENT) as run,
    ):
        startup_seconds = start_workers(run.env, num_workers)
        start = time.perf_counter()
        run.search(RandomSearch(run.env, args))
        seconds = time.perf_counter() - start
        evaluations = [child.evaluation for child in run.loop.trials]
        return Run(seconds, startup_seconds, evaluations, run.env.executor.num_from_store)


def start_workers(nases: NASESEnv, num_workers: int) -> float:
    """Start all workers by evaluating one other child per worker, and return the seconds until the last one had started.

    Raises:
        RuntimeError: if the number of worker processes is not ``num_workers``.
    """
    architecture = nases.search_space.sample(numpy_generator(0, "workers start"))
    start = time.monotonic()
    futures = [nases.executor.submit(architecture, seed) for seed in range(num_workers)]
    seconds = [time.monotonic() - start - future.result().seconds for future in as_completed(futures)]
    if (num_started := count_workers()) != num_workers:
        raise RuntimeError(f"{num_started} worker processes are running, not {num_workers}")
    return max(seconds)


def count_workers() -> int:
    """Return the number of worker processes of this process."""
    return sum(any(part.endswith(WORKER_SCRIPT) for part in child.cmdline()) for child in psutil.Process().children())


def draw_once(args: SearchArgs) -> None:
    """Draw a cell, so that the modules for drawing are not loaded during a measured search."""
    nases = make_env(args)
    nases.reset(seed=args.seed)
    visualization.to_array(visualization.draw(nases.search_space, nases.architecture, ""))
    nases.close()
