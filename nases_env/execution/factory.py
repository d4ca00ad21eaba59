"""The settings of the execution, and the executor that they describe."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import typing
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from typeguard import TypeCheckError, check_type

from nases_env.devices import device_type, resolve_device
from nases_env.errors import InputError, did_you_mean, shown
from nases_env.evaluation import Evaluator, TrainingEvaluator
from nases_env.execution.attempts import MAX_RETRIES
from nases_env.execution.caching import CachingExecutor
from nases_env.execution.executor import Executor
from nases_env.execution.pool import Worker, WorkerPoolExecutor
from nases_env.execution.process_worker import default_num_workers, process_workers
from nases_env.execution.serial import SerialExecutor
from nases_env.execution.slurm_worker import slurm_workers
from nases_env.execution.store import Store
from nases_env.json_io import describe_type
from nases_env.search_spaces import Architecture

EXECUTORS = ("auto", "serial", "processes", "ray", "slurm")
REMOTE_EXECUTORS = ("ray", "slurm")
"""The executors that train children on other machines."""


@dataclass(frozen=True)
class ExecutionSettings:
    """Where and how children are evaluated. These settings do not affect results, except for the limits.

    A child that exceeds ``time_limit`` or ``memory_limit`` has the reward 0, also in searches that share the store.

    Raises:
        InputError: if a value is out of range.
    """

    executor: Literal["auto", "serial", "processes", "ray", "slurm"] = "auto"
    """serial: in this process. processes: in num_workers worker processes, which are monitored and restarted when they die.
    ray: on a Ray cluster. slurm: each child as a Slurm job. auto: processes if children are trained and several can be in
    flight, or if a limit is set; else serial."""
    num_workers: int | None = None
    """Number of workers. Default: the number of children in flight; for processes at most workers_per_gpu per GPU, or, if
    children are trained on the CPU, the number of CPU cores divided by num_threads."""
    workers_per_gpu: int = 1
    """Number of workers that share a GPU, if children are trained on GPUs."""
    time_limit: float | None = None
    """Maximum seconds per attempt at a child. After that its worker is killed and the child is retried; a child that is too
    slow in every attempt has the status timed_out."""
    memory_limit: float | None = None
    """processes: maximum memory of a worker in GiB. A worker that uses more is killed and the child is retried; a child that
    needs too much in every attempt has the status out_of_memory."""
    max_retries: int = MAX_RETRIES
    """Number of retries of a child whose worker died, raised an exception or exceeded a limit."""
    ray_address: str | None = None
    """ray: the address of a running cluster, such as 10.0.0.1:6379; default: start a cluster on this machine."""
    slurm_options: str | None = None
    """slurm: options of sbatch or submitit as NAME=VALUE,NAME=VALUE, such as partition=gpu,timeout_min=120."""
    checkpoint_interval: float = 120.0
    """Minimum seconds of training between two checkpoints of a child, from which it continues after a crash; 0: after every
    epoch; inf: never. No effect without a run directory or work_dir."""
    store: str | None = None
    """Path of the result store (SQLite). Searches that share a store reuse each other's results. Default: a file in the run
    directory."""
    work_dir: str | None = None
    """Directory for worker logs and checkpoints of children. Default: the run directory; without one, a temporary directory
    for logs, and no checkpoints. slurm: all nodes must share it; without a run directory, the temporary directory is in the
    working directory."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            hint = did_you_mean(str(self.executor), EXECUTORS)
            raise InputError(f"unknown executor {self.executor!r}{hint}; known: {', '.join(EXECUTORS)}")
        for option, minimum in (("num_workers", 1), ("workers_per_gpu", 1), ("max_retries", 0)):
            value = getattr(self, option)
            if value is not None and value < minimum:
                raise InputError(f"{option} must be at least {minimum}, not {value}")
        for option in ("time_limit", "memory_limit"):
            value = getattr(self, option)
            if value is not None and not value > 0:
                raise InputError(f"{option} must be a positive number, not {value}")
        if not self.checkpoint_interval >= 0:
            raise InputError(f"checkpoint_interval must be 0 or a number of seconds, not {self.checkpoint_interval}")

    def require_device(self, device: str) -> None:
        """Raise ``InputError`` if children cannot be trained on ``device``; with a remote executor, a GPU has no number."""
        if self.executor not in REMOTE_EXECUTORS:
            resolve_device(device)
        elif device != "auto" and device_type(device) == "cuda" and torch.device(device).index:
            raise InputError(f"with the executor {self.executor}, a child sees its own GPU only; use cuda, not {device}")


def resolve_execution(options: Mapping[str, Any] | None) -> ExecutionSettings:
    """Return the settings with ``options`` in place of the defaults.

    Raises:
        InputError: if an option does not exist, or a value has the wrong type or is out of range.
    """
    if not isinstance(options, Mapping | None):
        raise InputError(f"execution must be a dictionary such as {{'executor': 'processes'}}, not {shown(options)}")
    options = dict(options or {})
    known = typing.get_type_hints(ExecutionSettings)
    for option, value in options.items():
        if option not in known:
            raise InputError(
                f"unknown option {option!r} of execution{did_you_mean(option, known)}; known: {', '.join(known)}"
            )
        if option == "executor":  # ``ExecutionSettings`` has a better message
            continue
        try:
            check_type(value, known[option])
        except TypeCheckError:
            raise InputError(f"{option} of execution must be {describe_type(known[option])}, not {value!r}") from None
    return ExecutionSettings(**options)


def make_executor(
    evaluator: Evaluator, settings: ExecutionSettings, *, max_in_flight: int, describe: Callable[[Architecture], str]
) -> CachingExecutor:
    """Create the executor that ``settings`` describe.

    Args:
        evaluator: evaluates the children; it must be prepared.
        settings: where and how children are evaluated.
        max_in_flight: maximum number of children in flight.
        describe: returns the genotype of an architecture as one line of JSON, for the store.

    Raises:
        InputError: if the executor does not support a setting, or the device, the store or the cluster cannot be used.
    """
    if isinstance(evaluator, TrainingEvaluator):
        settings.require_device(evaluator.device)
        if evaluator.device == "auto":  # else a worker without a GPU would train on the CPU, under the digest of a GPU
            evaluator = dataclasses.replace(evaluator, device=device_type(evaluator.device))
    name = _resolve_executor(evaluator, settings, max_in_flight)
    if settings.work_dir is not None:
        checkpoints = Path(settings.work_dir, "checkpoints").absolute()
        evaluator = evaluator.with_checkpoints(str(checkpoints), settings.checkpoint_interval)
    executor = _make(evaluator, settings, name, max_in_flight)
    try:
        return CachingExecutor(executor, None if settings.store is None else Store(settings.store), describe)
    except BaseException:
        executor.shutdown()
        raise


def count_workers(evaluator: Evaluator, settings: ExecutionSettings, max_in_flight: int) -> int:
    """Return the number of children that the executor of ``make_executor`` evaluates concurrently, without creating it.

    Raises:
        InputError: if the executor does not support a setting.
    """
    return _count_workers(evaluator, settings, _resolve_executor(evaluator, settings, max_in_flight), max_in_flight)


def _count_workers(evaluator: Evaluator, settings: ExecutionSettings, name: str, max_in_flight: int) -> int:
    if name == "serial":
        return 1
    if settings.num_workers is not None:
        return settings.num_workers
    if name == "processes":
        return default_num_workers(evaluator, max_in_flight, settings.workers_per_gpu)
    return max_in_flight


def _resolve_executor(evaluator: Evaluator, settings: ExecutionSettings, max_in_flight: int) -> str:
    """Return the name of the executor, never "auto", and check that it supports ``settings``."""
    name: str = settings.executor
    if name == "auto":
        limited = any(getattr(settings, name) is not None for name in LIMITS)
        name = "processes" if limited or (evaluator.is_expensive and max_in_flight > 1) else "serial"
    _reject_unsupported_options(settings, name)
    return name


SUPPORTED_BY = {
    "num_workers": ("processes", "ray", "slurm"),
    "workers_per_gpu": ("processes", "ray"),
    "time_limit": ("processes", "ray", "slurm"),
    "memory_limit": ("processes",),
    "max_retries": ("processes", "ray", "slurm"),
    "ray_address": ("ray",),
    "slurm_options": ("slurm",),
}
"""The executors that support an option, for options that not all executors support."""

LIMITS = ("time_limit", "memory_limit")
"""The options for which ``auto`` selects an executor that supports them."""


def without_unsupported(settings: ExecutionSettings, executor: str) -> ExecutionSettings:
    """Return ``settings`` with the defaults of the options that ``executor`` may not support."""
    supported = LIMITS if executor == "auto" else [name for name, known in SUPPORTED_BY.items() if executor in known]
    defaults = {name: getattr(ExecutionSettings, name) for name in SUPPORTED_BY if name not in supported}
    return dataclasses.replace(settings, **defaults)


def _reject_unsupported_options(settings: ExecutionSettings, name: str) -> None:
    for option, executors in SUPPORTED_BY.items():
        if name not in executors and getattr(settings, option) != getattr(ExecutionSettings, option):
            raise InputError(
                f"the executor {name} does not take {option}; omit it or use the executor {' or '.join(executors)}"
            )


def _make(evaluator: Evaluator, settings: ExecutionSettings, name: str, max_in_flight: int) -> Executor:
    if name == "serial":
        return SerialExecutor(evaluator)
    if sys.platform == "win32":
        raise InputError(f"the executor {name} needs Linux or macOS; use the executor serial")
    folder = Path(_make_temporary_folder(name) if settings.work_dir is None else settings.work_dir).absolute()
    try:
        workers = _make_workers(evaluator, settings, name, max_in_flight, folder)
    except BaseException:
        if settings.work_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    executor = WorkerPoolExecutor(evaluator, workers, max_retries=settings.max_retries)
    if settings.work_dir is None:
        weakref.finalize(executor, _remove_without_logs, folder)
    return executor


def _make_workers(
    evaluator: Evaluator, settings: ExecutionSettings, name: str, max_in_flight: int, folder: Path
) -> Sequence[Worker]:
    num_workers = _count_workers(evaluator, settings, name, max_in_flight)
    if name == "processes":
        return process_workers(
            evaluator,
            num_workers,
            workers_per_gpu=settings.workers_per_gpu,
            log_dir=folder / "logs",
            time_limit=settings.time_limit,
            memory_limit=settings.memory_limit,
        )
    if name == "ray":
        from nases_env.execution.ray_worker import ray_workers  # requires the extra ``ray``

        return ray_workers(
            evaluator,
            num_workers,
            address=settings.ray_address,
            workers_per_gpu=settings.workers_per_gpu,
            log_dir=folder / "logs",
            time_limit=settings.time_limit,
        )
    return slurm_workers(
        evaluator,
        num_workers,
        folder=folder / "slurm",
        options=settings.slurm_options,
        time_limit=settings.time_limit,
    )


def _make_temporary_folder(name: str) -> str:
    """Create a folder for logs; for Slurm in the working directory, because other nodes do not share the one of the system.

    Raises:
        InputError: if it cannot be created in the working directory.
    """
    if name != "slurm":
        return tempfile.mkdtemp(prefix="nases-")
    try:
        return tempfile.mkdtemp(prefix="nases-", dir=os.getcwd())
    except OSError as error:
        raise InputError(
            f"cannot create a directory for the files of Slurm jobs in the working directory ({error.strerror}); "
            "pass work_dir, a directory that all nodes share"
        ) from error


def _remove_without_logs(folder: Path) -> None:
    """Remove a temporary folder, unless it contains logs, which the reasons of failed children name."""
    if not any((*folder.glob("logs/*"), *folder.glob("slurm/*/*.err"))):
        shutil.rmtree(folder, ignore_errors=True)
