"""What processes and Ray add to a child that takes next to no time."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.common.interleave import Figures, take_turns
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution import ExecutionSettings, Executor, make_executor
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator

SPACE = get_search_space("nasbench201")
ARCHITECTURE = SPACE.sample(numpy_generator(0, "overhead"))
RAY_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class WaitingEvaluator(Evaluator):
    """A child that waits.

    Attributes:
        search_space: as every evaluator has one.
        wait_seconds: what a child takes.
    """

    search_space: str = SPACE.name
    wait_seconds: float = 0.001

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        start = time.perf_counter()
        time.sleep(self.wait_seconds)
        return Evaluation(architecture.key, seed, Status.OK, seconds=time.perf_counter() - start)


def measure(folder: Path, *, num_workers: int, num_children: int, num_repeats: int) -> dict[str, Figures]:
    """The figures by variant: of each executor, with one child at a time and with all in flight.

    The overhead is in milliseconds of a worker: what a child takes beyond what it takes in this process, times the workers
    that share the children. Ray is left out where it is not installed.
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

        def figures_of(executor: Executor, way: Callable[[Executor, range], None]) -> Mapping[str, float]:
            first = next(seeds) * num_children
            start = time.perf_counter()
            way(executor, range(first, first + num_children))
            return {"milliseconds_per_child": 1000 * (time.perf_counter() - start) / num_children}

        variants = {"serial": partial(figures_of, executors["serial"], one_at_a_time)}
        for name in list(executors)[1:]:
            variants[f"{name}, one at a time"] = partial(figures_of, executors[name], one_at_a_time)
            variants[f"{name}, all in flight"] = partial(figures_of, executors[name], all_in_flight)
        figures = take_turns(variants, num_repeats, warm_up=True)
    serial = figures["serial"]["milliseconds_per_child"]
    for name, own in figures.items():
        num_sharing = num_workers if name.endswith("all in flight") else 1
        own["overhead_milliseconds"] = [
            num_sharing * value - here for value, here in zip(own["milliseconds_per_child"], serial, strict=True)
        ]
        own["startup_seconds"] = [startup_seconds[name.partition(",")[0]]]
    return figures


def has_ray() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def one_at_a_time(executor: Executor, seeds: range) -> None:
    """Evaluates a child of each of ``seeds``, each when the one before is known."""
    for seed in seeds:
        executor.submit(ARCHITECTURE, seed).result()


def all_in_flight(executor: Executor, seeds: range) -> None:
    """Hands a child of each of ``seeds`` over at once, and waits for all."""
    futures = [executor.submit(ARCHITECTURE, seed) for seed in seeds]
    for future in futures:
        future.result()


@contextmanager
def running(settings: ExecutionSettings) -> Iterator[Executor]:
    executor = make_executor(WaitingEvaluator(), settings, max_in_flight=1, describe=SPACE.to_json)
    try:
        yield executor
    finally:
        executor.shutdown()


@contextmanager
def local_ray_cluster(folder: Path) -> Iterator[None]:
    """A Ray cluster of this machine's cores, on loopback, that executors find and use; its home folder is ``folder``."""
    import ray

    home = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        ray.init(
            "local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=RAY_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        yield
    finally:
        ray.shutdown()
        if home is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = home
