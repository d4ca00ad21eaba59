"""Children per minute with several worker processes: all handed over at once, and in a search that is told in order."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import psutil
from nases_agents.random_search import RandomSearch

from benchmarks.common.interleave import Figures, quotients, take_turns
from nases_env import visualization
from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.execution import ExecutionSettings
from nases_env.search import SearchArgs, SearchRun, make_env
from nases_env.seeding import numpy_generator

ENV_ID = "NASES-Digits-v0"
AGENT = "random_search"
WORKER_SCRIPT = "process_worker_main.py"  # what the command line of a worker process names


class Run(NamedTuple):
    """One run through the children.

    Attributes:
        seconds: wall time from the first child to the last, with the workers running before.
        startup_seconds: until the last worker had started.
        evaluations: one a child, in the order in which they were asked for.
        num_from_store: children that were not evaluated since a store had them.
    """

    seconds: float
    startup_seconds: float
    evaluations: list[Evaluation]
    num_from_store: int


def measure(
    folder: Path, *, num_workers: tuple[int, ...], preset: str, num_children: int, num_repeats: int, seed: int
) -> dict[str, Figures]:
    """The figures by variant: each number of workers with all children at once, and in searches of as many and of twice as
    many children in flight.

    Raises:
        RuntimeError: if the variants did not evaluate the same children, with the same results.
    """
    args = SearchArgs(env_id=ENV_ID, preset=preset, device="cpu", budget=num_children, seed=seed)
    draw_something(args)
    ways = {"all at once": partial(all_at_once, args)} | {
        f"search, {factor} in flight a worker": partial(whole_search, args, folder, factor) for factor in (1, 2)
    }
    results: list[list[Evaluation]] = []

    def figures_of(way: str, workers: int) -> dict[str, float]:
        run = ways[way](workers)
        results.append([dataclasses.replace(evaluation, seconds=0.0) for evaluation in run.evaluations])
        if run.num_from_store or results[-1] != results[0]:
            raise RuntimeError(f"{way} with {workers} workers did not evaluate what the others did")
        busy_timeout = sum(evaluation.seconds for evaluation in run.evaluations)
        return {
            "children_per_minute": 60 * num_children / run.seconds,
            "busy_share": busy_timeout / (workers * run.seconds),
            "seconds_per_child": busy_timeout / num_children,
            "startup_seconds": run.startup_seconds,
        }

    names = {(way, workers): f"{way}, workers = {workers}" for way in ways for workers in num_workers}
    figures = take_turns({name: partial(figures_of, *variant) for variant, name in names.items()}, num_repeats)
    for (way, workers), name in names.items():
        rates = {other: figures[names[other]]["children_per_minute"] for other in names}
        own = rates[way, workers]
        figures[name] = {
            "children_per_minute": own,
            "times_fewest_workers": quotients(own, rates[way, num_workers[0]]),
            "times_all_at_once": quotients(own, rates["all at once", workers]),
            **figures[name],
        }
    return figures


def all_at_once(args: SearchArgs, num_workers: int) -> Run:
    """Hands the children of a random search over at once, and waits for all; no store."""
    env = make_env(args)
    nases = cast(NASESEnv, env.unwrapped)
    try:
        env.reset(seed=args.seed)
        nases.start(ExecutionSettings(executor="processes", num_workers=num_workers), max_in_flight=args.budget)
        startup_seconds = start_workers(nases, num_workers)
        architectures = [proposal.architecture for proposal in RandomSearch(nases, args).ask(args.budget)]
        start = time.perf_counter()
        futures = [nases.submit(architecture) for architecture in architectures]
        evaluations = [future.result() for future in futures]
        return Run(time.perf_counter() - start, startup_seconds, evaluations, nases.executor.num_from_store)
    finally:
        env.close()


def whole_search(args: SearchArgs, folder: Path, factor: int, num_workers: int) -> Run:
    """A random search with ``factor × num_workers`` children in flight, in a new run folder with a store of its own."""
    args = dataclasses.replace(
        args,
        num_envs=factor * num_workers,
        run_dir=folder / f"search-{time.time_ns()}",
        execution=ExecutionSettings(executor="processes", num_workers=num_workers),
    )
    with (
        open(os.devnull, "w") as nowhere,
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
    """Has each worker evaluate a child that is none of a search's; the seconds until the last of them had started.

    Raises:
        RuntimeError: if that did not start as many processes.
    """
    architecture = nases.search_space.sample(numpy_generator(0, "workers start"))
    start = time.monotonic()
    futures = [nases.executor.submit(architecture, seed) for seed in range(num_workers)]
    seconds = [time.monotonic() - start - future.result().seconds for future in as_completed(futures)]
    num_started = sum(any(part.endswith(WORKER_SCRIPT) for part in child.cmdline()) for child in psutil.Process().children())
    if num_started != num_workers:
        raise RuntimeError(f"{num_started} worker processes run, not {num_workers}")
    return max(seconds)


def draw_something(args: SearchArgs) -> None:
    """Draws a cell, so that no search has to load what is needed for that."""
    env = make_env(args)
    nases = cast(NASESEnv, env.unwrapped)
    env.reset(seed=args.seed)
    visualization.to_array(visualization.draw(nases.search_space, nases.architecture, ""))
    env.close()
