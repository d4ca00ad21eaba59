"""Overhead of worker processes and Ray, measured with children of 1 ms."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.common.interleave import Measurements, interleave
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution import ExecutionSettings, Executor, make_executor
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator

SPACE = get_search_space("nasbench201")
ARCHITECTURE = SPACE.sample(numpy_generator(0, "overhead"))
RAY_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class WaitingEvaluator(Evaluator):
    """Evaluates a child by sleeping.

    Attributes:
        search_space: name of the search space.
        wait_seconds: duration of an evaluation.
    """

    search_space: str = SPACE.name
    wait_seconds: float = 0.001

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        start = time.perf_counter()
        time.sleep(self.wait_seconds)
        return Evaluation(architecture.key, seed, Status.OK, seconds=time.perf_counter() - start)


def measure(folder: Path, *, num_workers: int, num_children: int, num_repeats: int) -> dict[str, Measurements]:
    """Measure each executor with one child at a time and with all children in flight.

    The overhead is the worker time per child, which is the time per child times the number of workers in use, minus the time
    per child in this process. Ray is omitted if it is not installed.

    Args:
        folder: the folder for logs and for Ray's files.
        num_workers: number of workers of each executor.
        num_children: number of children per variant and repeat.
        num_repeats: number of measurements of each variant.

    Returns:
        The measurements by variant.
    """
    with ExitStack() as stack:
        executors, startup_seconds = {}, {"serial": 0.0}
        executors["serial"] = stack.enter_context(running(ExecutionSettings(executor="serial")))
        for name in ("processes", "ray") if has_ray() else ("processes",):
            start = time.perf_counter()
            if name == "ray":
                stack.enter_context(local_ray_cluster(folder))
            settings = ExecutionSettings(executor=name, num_workers=num_workers, work_dir=str(folder / name))
            executors[name] = stack.enter_context(running(settings))
            one_at_a_time(executors[name], range(1))
            startup_seconds[name] = time.perf_counter() - start
        seeds = count(1)

        def measure_executor(executor: Executor, submit_all: Callable[[Executor, range], None]) -> Mapping[str, float]:
            first = next(seeds) * num_children
            start = time.perf_counter()
            submit_all(executor, range(first, first + num_children))
            return {"milliseconds_per_child": 1000 * (time.perf_counter() - start) / num_children}

        variants = {"serial": partial(measure_executor, executors["serial"], one_at_a_time)}
        for name in list(executors)[1:]:
            variants[f"{name}, one at a time"] = partial(measure_executor, executors[name], one_at_a_time)
            variants[f"{name}, all in flight"] = partial(measure_executor, executors[name], all_in_flight)
        measurements = interleave(variants, num_repeats, warm_up=True)
    serial = measurements["serial"]["milliseconds_per_child"]
    for name, own in measurements.items():
        num_sharing = num_workers if name.endswith("all in flight") else 1
        own["overhead_milliseconds"] = [
            num_sharing * value - here for value, here in zip(own["milliseconds_per_child"], serial, strict=True)
        ]
        own["startup_seconds"] = [startup_seconds[name.partition(",")[0]]]
    return measurements


def has_ray() -> bool:
    """Return whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def one_at_a_time(executor: Executor, seeds: range) -> None:
    """Evaluate a child per seed; submit each after the result of the previous one."""
    for seed in seeds:
        executor.submit(ARCHITECTURE, seed).result()


def all_in_flight(executor: Executor, seeds: range) -> None:
    """Submit a child per seed, then wait for all of them."""
    futures = [executor.submit(ARCHITECTURE, seed) for seed in seeds]
    for future in futures:
        future.result()


@contextmanager
def running(settings: ExecutionSettings) -> Iterator[Executor]:
    """Create an executor, which is shut down at the end of the ``with`` block."""
    executor = make_executor(WaitingEvaluator(), settings, max_in_flight=1, describe=SPACE.to_json)
    try:
        yield executor
    finally:
        executor.shutdown()


@contextmanager
def local_ray_cluster(folder: Path) -> Iterator[None]:
    """Start a Ray cluster on this machine, on the loopback interface, with ``folder`` as its home folder."""
    import ray

    from nases_env.execution.ray_cluster import start_cluster

    home = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        with start_cluster(object_store_memory=RAY_OBJECT_STORE_BYTES):
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        if home is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = home
