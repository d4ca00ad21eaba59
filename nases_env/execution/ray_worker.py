"""Workers that evaluate children on a Ray cluster; each child is a Ray task."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from nases_env.atomic_io import write_error
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.attempts import AttemptError
from nases_env.execution.executor import Task
from nases_env.execution.pool import Worker
from nases_env.execution.process_worker_main import describe
from nases_env.execution.ray_cluster import connection, ray
from nases_env.execution.ray_worker_main import TaskLocation, evaluate, read_log
from nases_env.execution.remote_device import remote_device_type
from nases_env.paths import import_path, require_no_link

cloudpickle: Any = importlib.import_module("ray.cloudpickle")
scheduling_strategies: Any = importlib.import_module("ray.util.scheduling_strategies")

_POLL_SECONDS = 1.0
_LOG_SECONDS = 60.0  # a busy node needs a while to start the process that reads a log
_LOG_LINES = 20


class RayWorker(Worker):
    """Evaluates children on the cluster, one at a time; created by ``ray_workers``.

    The last MiB of a child's standard output and standard error is fetched from its node and appended to
    ``log_dir/<name of the task>.log``; a child without output has no file.
    """

    def __init__(
        self, remote: _RemoteEvaluate, evaluator: _SharedEvaluator, log_dir: Path, time_limit: float | None
    ) -> None:
        self._remote = remote
        self._evaluator = evaluator
        self._log_dir = log_dir.absolute()
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._generator: Any = None
        self._is_closed = False
        connection.retain()

    def evaluate(self, task: Task) -> Evaluation:
        shared = self._evaluator.data_reference()
        generator = self._remote.evaluate.remote(self._evaluator.pickled, shared, _dumps(task), import_path(), os.getcwd())
        with self._lock:
            self._generator = generator
        location: TaskLocation | None = None
        try:
            location = ray.get(self._next(None))
            kind, value, log = ray.get(self._next(self._time_limit))
        except AttemptError as failure:
            raise self._with_log(failure, task, location) from None
        except ray.exceptions.LocalRayletDiedError as error:
            raise InputError(
                "the Ray node of this machine has died; restart it, then start again, or resume the search with --resume"
            ) from error
        except ray.exceptions.TaskCancelledError as error:
            if location is not None:
                self._remote.delete_log(location)
            raise AttemptError("canceled") from error
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.ObjectLostError):
                self._evaluator.forget(shared)
            raise self._with_log(_failure(error), task, location) from error
        finally:
            with self._lock:
                self._generator = None
        if kind == "input_error":
            self._keep_log(task, log)
            raise InputError(f"{value}{_node_suffix(location)}")
        if kind == "raised":
            raise self._with_log(AttemptError(f"raised {value}{_node_suffix(location)}"), task, location, log)
        self._keep_log(task, log)
        evaluation: Evaluation = value
        return evaluation

    def _next(self, time_limit: float | None) -> Any:
        """Return a reference to the next object that the task yields.

        Raises:
            AttemptError: if that takes longer than ``time_limit`` seconds; the task is canceled.
            InputError: if the cluster is unreachable.
        """
        start = time.monotonic()
        while True:
            seconds_left = _POLL_SECONDS if time_limit is None else start + time_limit - time.monotonic()
            ready, _ = ray.wait([self._generator], timeout=max(0.0, min(_POLL_SECONDS, seconds_left)), fetch_local=False)
            if ready:
                return next(self._generator)
            if seconds_left <= 0:
                self.cancel()
                raise AttemptError(f"took longer than {time_limit:g} s", status=Status.TIMED_OUT)
            connection.check()

    def _with_log(
        self, failure: AttemptError, task: Task, location: TaskLocation | None, log: bytes | None = None
    ) -> AttemptError:
        """Return ``failure`` with the log of the child, which is fetched from its node if ``log`` is None."""
        if log is None and location is not None:
            log = self._remote.fetch_log(location)
            if log is None:
                return AttemptError(f"{failure.reason}; its log could not be fetched", status=failure.status)
        log = log or b""
        path = self._keep_log(task, log)
        if path is None:
            return failure
        tail = "\n".join(log.decode(errors="replace").splitlines()[-_LOG_LINES:])
        return AttemptError(f"{failure.reason}; see {path}", status=failure.status, log=tail)

    def _keep_log(self, task: Task, log: bytes) -> Path | None:
        if not log:
            return None
        path = self._log_dir / f"{task.name}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            require_no_link(path)
            with open(path, "ab") as file:
                file.write(log)
        except OSError as error:
            raise write_error(path, error) from error
        return path

    def cancel(self) -> None:
        with self._lock:
            if self._generator is not None:
                ray.cancel(self._generator, force=True)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            connection.close()


def ray_workers(
    evaluator: Evaluator,
    num_workers: int,
    *,
    address: str | None,
    workers_per_gpu: int = 1,
    log_dir: Path,
    time_limit: float | None = None,
) -> list[RayWorker]:
    """Create ``num_workers`` workers. The data that ``evaluator`` has loaded is sent to each node once.

    A child requires ``evaluator.num_threads`` CPUs of a node, 1 without that attribute, and ``1 / workers_per_gpu`` of a GPU
    if the evaluator's device is a GPU; if it is "cuda", this machine needs none. If the cluster lacks resources for all
    workers, their children are queued.

    Args:
        evaluator: a prepared evaluator; its parts can be imported on every node, or are defined in the script itself.
        num_workers: maximum number of children that are submitted to the cluster concurrently.
        address: HOST:PORT of a running cluster that this machine is a node of, or "auto"; None: the cluster that this
            process is connected to, else a new cluster on this machine, which is shut down with the last worker.
        workers_per_gpu: number of children that share a GPU.
        log_dir: the directory for logs on this machine; it is created if it does not exist.
        time_limit: maximum duration of an attempt in seconds, not counting the time in the queue; None: unlimited.

    Raises:
        InputError: if Ray is not installed, cannot be started or reached, or has no node with the required resources; or if
            the evaluator cannot be sent.
    """
    connection.open(address)
    try:
        remote = _RemoteEvaluate(evaluator, workers_per_gpu)
        shared_evaluator = _SharedEvaluator(evaluator)
        return [RayWorker(remote, shared_evaluator, log_dir, time_limit) for _ in range(num_workers)]
    finally:
        connection.close()


class _RemoteEvaluate:
    """The remote functions that evaluate a child and read its log, with the resources that a child requires.

    Raises:
        InputError: if no node has these resources.
    """

    def __init__(self, evaluator: Evaluator, workers_per_gpu: int) -> None:
        num_cpus = getattr(evaluator, "num_threads", 1)
        on_gpu = remote_device_type(evaluator) == "cuda"
        num_gpus = 1 / workers_per_gpu if on_gpu else 0
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= num_cpus and node.get("GPU", 0) >= num_gpus for node in nodes):
            required = f"{num_cpus} CPUs (num_threads)" + (" and a GPU" if on_gpu else "")
            raise InputError(f"no node of the Ray cluster has the {required} that a child requires; add such a node")
        # One object in flight: the task continues after this process has received its location. The pool retries, not Ray.
        self.evaluate = ray.remote(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            num_returns="streaming",
            max_retries=0,
            _generator_backpressure_num_objects=1,
        )(evaluate)
        self._read_log = ray.remote(num_cpus=0, max_retries=0)(read_log)

    def fetch_log(self, location: TaskLocation) -> bytes | None:
        """Return the log of the child at ``location``; None if its node has died or does not answer in time."""
        on_node = scheduling_strategies.NodeAffinitySchedulingStrategy(location.node, soft=False)
        reference = self._read_log.options(scheduling_strategy=on_node).remote(location.log)
        try:
            log: bytes = ray.get(reference, timeout=_LOG_SECONDS)
        except ray.exceptions.RayError:  # includes timeouts
            return None
        return log

    def delete_log(self, location: TaskLocation) -> None:
        """Delete the log of the child at ``location``, if its node still answers."""
        if _is_here(location):  # a task would need seconds to start
            with contextlib.suppress(OSError):
                os.unlink(location.log)
        else:
            self.fetch_log(location)


class _SharedEvaluator:
    """An evaluator whose data is in the object store, from which each node fetches it once.

    Attributes:
        pickled: the pickle of a unique identifier and the evaluator.

    Raises:
        InputError: if the evaluator cannot be pickled.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        try:
            self.pickled = _dumps((uuid.uuid4().hex, evaluator))
        except Exception as error:  # attributes may raise any exception
            raise InputError(
                f"the evaluator cannot be sent to a Ray cluster ({describe(error)}); "
                "define its parts in an importable module, or use --executor serial"
            ) from error
        self._evaluator = evaluator
        self._lock = threading.Lock()
        self._reference: Any = None

    def data_reference(self) -> Any:
        """Return a reference to the data of the evaluator in the object store."""
        with self._lock:
            if self._reference is None:
                self._reference = ray.put(self._evaluator.export_data())
            return self._reference

    def forget(self, reference: Any) -> None:
        """Discard a lost object, so that ``data_reference`` stores the data again."""
        with self._lock:
            if self._reference == reference:
                self._reference = None


def _dumps(value: Any) -> bytes:
    """Return the pickle of ``value``; classes and functions of the running script are pickled by value."""
    pickled: bytes = cloudpickle.dumps(value)
    return pickled


def _failure(error: Exception) -> AttemptError:
    """Return the ``AttemptError`` for an error of Ray."""
    reasons = {
        ray.exceptions.OutOfMemoryError: "killed by Ray because its node ran out of memory",  # others may use it too
        ray.exceptions.NodeDiedError: "its node died",
        ray.exceptions.WorkerCrashedError: "its process died",
        ray.exceptions.ObjectLostError: "its data was lost from the object store",
    }
    known = (reason for kind, reason in reasons.items() if isinstance(error, kind))
    return AttemptError(next(known, f"Ray failed: {describe(getattr(error, 'cause', error))}"))


def _node_suffix(location: TaskLocation | None) -> str:
    """Return text that names the node; empty if it is the node of this machine."""
    return "" if location is None or _is_here(location) else f" (on the Ray node {location.host})"


def _is_here(location: TaskLocation) -> bool:
    """Return whether the task runs on the node of this machine."""
    node: str = ray.get_runtime_context().get_node_id()
    return location.node == node
