"""Where and how children are evaluated: one settings object, and the executor that it stands for."""

from __future__ import annotations

import shutil
import tempfile
import typing
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from typeguard import TypeCheckError, check_type

from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import Evaluator
from nases_env.execution.caching import CachingExecutor
from nases_env.execution.executor import Executor, SerialExecutor
from nases_env.execution.pool import Worker, WorkerPoolExecutor
from nases_env.execution.process_worker import default_num_workers, process_workers
from nases_env.execution.slurm_worker import slurm_workers
from nases_env.execution.store import Store
from nases_env.search_spaces import Architecture

EXECUTORS = ("auto", "serial", "processes", "ray", "slurm")


@dataclass(frozen=True)
class ExecutionSettings:
    """Where and how children are evaluated. None of it changes a result.

    Raises:
        InputError: if a value is out of range.
    """

    executor: Literal["auto", "serial", "processes", "ray", "slurm"] = "auto"
    """serial: in this process. processes: each in one of num_workers processes that are watched and replaced when they die.
    ray: on a Ray cluster. slurm: each as a job of Slurm. auto: processes where children are trained and several may be under
    evaluation at once, or where a limit is set, else serial."""
    num_workers: int | None = None
    """Children that are evaluated at the same time; unset: as many as may be in flight, but no more than there are CPU cores
    (GPUs, where children are trained on them) for."""
    workers_per_gpu: int = 1
    """Workers that share a GPU, where children are trained on GPUs."""
    time_limit: float | None = None
    """Seconds that an attempt at a child may take. Its worker is then killed, and the child tried again; one that is too
    slow in every attempt has the status timed_out."""
    memory_limit: float | None = None
    """processes: GiB that a worker may occupy. It is then killed, and the child tried again; one that needs too much in
    every attempt has the status out_of_memory."""
    max_retries: int = 2
    """Times that a child is tried again whose worker died, raised an error, or met a limit."""
    ray_address: str | None = None
    """ray: the address of a running cluster, such as 10.0.0.1:6379; unset: a cluster of this machine alone."""
    slurm_options: str | None = None
    """slurm: options of sbatch, as NAME=VALUE,NAME=VALUE: partition=gpu,timeout_min=120."""
    checkpoint_interval: float = 120.0
    """Seconds of training after which a child writes a checkpoint, so that whatever ends its worker costs no more; 0: after
    every epoch, inf: never."""
    store: str | None = None
    """The SQLite file that keeps all results; searches that share one train no child twice. Unset: one in the run folder."""
    work_dir: str | None = None
    """The folder for the workers' logs and the children's checkpoints; unset: the run folder, where there is one."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            hint = did_you_mean(str(self.executor), EXECUTORS)
            raise InputError(f"unknown executor {self.executor!r}{hint}; known: {', '.join(EXECUTORS)}")
        for option, least in (("num_workers", 1), ("workers_per_gpu", 1), ("max_retries", 0)):
            value = getattr(self, option)
            if value is not None and value < least:
                raise InputError(f"{option} must be at least {least}, not {value}")
        for option in ("time_limit", "memory_limit"):
            value = getattr(self, option)
            if value is not None and not value > 0:
                raise InputError(f"{option} must be a positive number, not {value}")
        if not self.checkpoint_interval >= 0:
            raise InputError(f"checkpoint_interval must be 0 or a number of seconds, not {self.checkpoint_interval}")


def resolve_execution(options: Mapping[str, Any] | None) -> ExecutionSettings:
    """The settings with ``options``, by name, in place of the defaults.

    Raises:
        InputError: if there is no such option, or a value is of the wrong type or out of range.
    """
    options = dict(options or {})
    known = typing.get_type_hints(ExecutionSettings)
    for option, value in options.items():
        if option not in known:
            raise InputError(
                f"unknown option {option!r} of execution{did_you_mean(option, known)}; known: {', '.join(known)}"
            )
        if option == "executor":  # whose own message is better
            continue
        try:
            check_type(value, known[option])
        except TypeCheckError:
            raise InputError(f"{option} of execution must be {known[option]}, not {value!r}") from None
    return ExecutionSettings(**options)


def make_executor(
    evaluator: Evaluator, settings: ExecutionSettings, *, max_in_flight: int, describe: Callable[[Architecture], str]
) -> CachingExecutor:
    """The executor that ``settings`` stand for.

    Args:
        evaluator: evaluates the children; it is prepared.
        settings: where and how.
        max_in_flight: children that may be under evaluation at once.
        describe: an architecture's genotype as one line of JSON, for the store.

    Raises:
        InputError: if a setting does not go with the executor, or the store or the cluster cannot be used.
    """
    name = settings.executor
    if name == "auto":
        limited = settings.time_limit is not None or settings.memory_limit is not None
        name = "processes" if limited or (evaluator.is_expensive and max_in_flight > 1) else "serial"
    _refuse_ignored(settings, name)
    if settings.work_dir is not None:
        checkpoints = Path(settings.work_dir, "checkpoints").absolute()
        evaluator = evaluator.with_checkpoints(str(checkpoints), settings.checkpoint_interval)
    executor = _make(evaluator, settings, name, max_in_flight)
    try:
        return CachingExecutor(executor, None if settings.store is None else Store(settings.store), describe)
    except BaseException:
        executor.shutdown()
        raise


TAKEN_BY = {
    "num_workers": ("processes", "ray", "slurm"),
    "workers_per_gpu": ("processes", "ray"),
    "time_limit": ("processes", "ray", "slurm"),
    "memory_limit": ("processes",),
    "max_retries": ("processes", "ray", "slurm"),
    "ray_address": ("ray",),
    "slurm_options": ("slurm",),
}
"""The options that only some executors take."""


def _refuse_ignored(settings: ExecutionSettings, name: str) -> None:
    for option, executors in TAKEN_BY.items():
        if name not in executors and getattr(settings, option) != getattr(ExecutionSettings, option):
            raise InputError(
                f"the executor {name} does not take {option}; leave it out, or take the executor {' or '.join(executors)}"
            )


def _make(evaluator: Evaluator, settings: ExecutionSettings, name: str, max_in_flight: int) -> Executor:
    if name == "serial":
        return SerialExecutor(evaluator)
    folder = Path(tempfile.mkdtemp(prefix="nases-") if settings.work_dir is None else settings.work_dir).absolute()
    num_workers = settings.num_workers
    if name == "processes":
        workers: Sequence[Worker] = process_workers(
            evaluator,
            num_workers or default_num_workers(evaluator, max_in_flight, settings.workers_per_gpu),
            workers_per_gpu=settings.workers_per_gpu,
            log_dir=folder / "logs",
            time_limit=settings.time_limit,
            memory_limit=settings.memory_limit,
        )
    elif name == "ray":
        from nases_env.execution.ray_worker import ray_workers  # the module needs the extra

        workers = ray_workers(
            evaluator,
            num_workers or max_in_flight,
            address=settings.ray_address,
            workers_per_gpu=settings.workers_per_gpu,
            log_dir=folder / "logs",
            time_limit=settings.time_limit,
        )
    else:
        workers = slurm_workers(
            evaluator,
            num_workers or max_in_flight,
            folder=folder / "slurm",
            options=settings.slurm_options,
            time_limit=settings.time_limit,
        )
    executor = WorkerPoolExecutor(evaluator, workers, max_retries=settings.max_retries)
    if settings.work_dir is None:
        weakref.finalize(executor, shutil.rmtree, folder, ignore_errors=True)
    return executor
