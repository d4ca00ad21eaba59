"""Workers on a Ray cluster: each child is a task of Ray, which finds it a node with a free place."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nases_env.atomic_io import write_error
from nases_env.cpu import num_cores
from nases_env.devices import resolve_device
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Task
from nases_env.execution.pool import AttemptError, Worker

try:  # by name, since some of what Ray offers has no types
    ray: Any = importlib.import_module("ray")
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    scheduling_strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
except ImportError as error:
    raise InputError("the executor ray needs Ray: pip install 'nases-env[ray]'") from error

_POLL_SECONDS = 1.0
_LOST_SECONDS = 20.0
"""How long the head node may be out of reach. Ray itself ends this process after 60 s, without a word to the search."""
_LOG_SECONDS = 10.0
_LOG_LINES = 20
_LOG_BYTES = 2**20
"""What is kept of a child's output, from its end."""
_MAX_REASON = 300


class RayWorker(Worker):
    """Has children evaluated on the cluster, one at a time; ``ray_workers`` makes them.

    What a child writes to standard output and standard error comes back from its node and is appended to
    ``log_dir/<task's name>.log``, its last MiB at most; where that is nothing, no file is made.
    """

    def __init__(self, place: _Place, evaluator: _SharedEvaluator, log_dir: Path, time_limit: float | None) -> None:
        self._place = place
        self._evaluator = evaluator
        self._log_dir = log_dir.absolute()
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._generator: Any = None
        self._is_closed = False
        _connection.open_again()

    def evaluate(self, task: Task) -> Evaluation:
        shared = self._evaluator.shared()
        generator = self._place.evaluate.remote(self._evaluator.pickled, shared, _dumps(task), _search_path(), os.getcwd())
        with self._lock:
            self._generator = generator
        start: _Start | None = None
        try:
            start = ray.get(self._next(None))
            kind, value, log = ray.get(self._next(self._time_limit))
        except AttemptError as failure:
            raise self._with_log(failure, task, start) from None
        except ray.exceptions.LocalRayletDiedError as error:
            raise InputError("the Ray node of this machine has died; start it again and go on with --resume") from error
        except ray.exceptions.TaskCancelledError as error:
            raise AttemptError("abandoned") from error
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.ObjectLostError):
                self._evaluator.forget(shared)
            raise self._with_log(_failure(error), task, start) from error
        finally:
            with self._lock:
                self._generator = None
        if kind == "input_error":
            self._keep_log(task, log)
            raise InputError(f"{value}{_elsewhere(start)}")
        if kind == "raised":
            raise self._with_log(AttemptError(f"raised {value}{_elsewhere(start)}"), task, start, log)
        self._keep_log(task, log)
        evaluation: Evaluation = value
        return evaluation

    def _next(self, time_limit: float | None) -> Any:
        """What the task yields next, as a reference.

        Raises:
            AttemptError: if that takes longer than ``time_limit`` seconds; the task is cancelled.
            InputError: if the cluster is gone.
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
            _connection.check()

    def _with_log(self, failure: AttemptError, task: Task, start: _Start | None, log: bytes | None = None) -> AttemptError:
        """``failure`` with what the child wrote, which is still on its node where the task has not brought it."""
        if log is None:
            log = self._place.fetch_log(start) if start is not None else b""
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
            _connection.close()


def ray_workers(
    evaluator: Evaluator,
    num_workers: int,
    *,
    address: str | None,
    workers_per_gpu: int = 1,
    log_dir: Path,
    time_limit: float | None = None,
) -> list[RayWorker]:
    """``num_workers`` workers that share what ``evaluator`` has loaded: it is sent to each node once.

    A child takes ``evaluator.num_threads`` CPUs of a node, 1 where it has no such attribute, and ``1 / workers_per_gpu`` of
    a GPU where the evaluator's device is one. More workers than the cluster has room for wait for their turn.

    Args:
        evaluator: is prepared; its parts are importable on every node, or defined in the script itself.
        num_workers: children that are under evaluation, or wait for room, at once.
        address: HOST:PORT of a running cluster, one of whose nodes this machine is, or "auto"; None: the cluster that this
            process is connected to, else one of this machine alone, which ends with the last worker.
        workers_per_gpu: children that share a GPU.
        log_dir: the folder for logs on this machine, made where it is missing.
        time_limit: seconds that an attempt may take from when it runs; None: any time.

    Raises:
        InputError: if Ray is not installed, cannot be started or reached, or has no node that a child fits on; or if the
            evaluator cannot be sent.
    """
    _connection.open(address)
    try:
        place = _Place(evaluator, workers_per_gpu)
        shared_evaluator = _SharedEvaluator(evaluator)
        return [RayWorker(place, shared_evaluator, log_dir, time_limit) for _ in range(num_workers)]
    finally:
        _connection.close()


class _Connection:
    """The connection of this process to Ray. All workers use the same one; where they began it, the last one ends it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._num_users = 0
        self._is_own = False
        self._address: str | None = None
        self._next_look = 0.0
        self._missed_since: float | None = None

    def open(self, address: str | None) -> None:
        with self._lock:
            if self._num_users == 0:
                self._is_own = not ray.is_initialized()
                self._address = address if self._is_own else None
                if self._is_own:
                    _init(address)
            known = (None, self._address, _head())
            if address not in known:
                raise InputError(f"this process is connected to the Ray cluster at {_head()} already, not to {address}")
            self._num_users += 1

    def open_again(self) -> None:
        with self._lock:
            self._num_users += 1

    def close(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and self._is_own:
                ray.shutdown()

    def check(self) -> None:
        """Looks for the head node, once a second at most.

        Raises:
            InputError: if it has been out of reach for ``_LOST_SECONDS``.
        """
        with self._lock:
            if time.monotonic() < self._next_look:
                return
            now = time.monotonic()
            if _answers(_head()):
                self._missed_since = None
            elif self._missed_since is None:
                self._missed_since = now
            elif now - self._missed_since > _LOST_SECONDS:
                raise InputError(f"the Ray cluster at {_head()} is gone; start it again and go on with --resume")
            self._next_look = now + _POLL_SECONDS


_connection = _Connection()


def _init(address: str | None) -> None:
    if address is not None and "://" in address:
        raise InputError(f"the Ray address must be HOST:PORT of a cluster with a node on this machine, not {address}")
    if address not in (None, "auto") and not _answers(address):
        raise InputError(f"no Ray cluster answers at {address}; start one with ray start --head, or leave ray_address out")
    arguments = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        arguments |= {"num_cpus": num_cores(), "include_dashboard": False}
    try:
        with _signal_handlers_kept():
            ray.init(address=address or "local", **arguments)
    except Exception as error:  # Ray raises many kinds, bare Exception too
        if address is None:
            raise InputError(f"cannot start Ray on this machine ({_describe(error)})") from error
        raise InputError(
            f"cannot join the Ray cluster at {address} ({_describe(error)}); this machine has to be one of its nodes, "
            "and a cluster with a token wants RAY_AUTH_MODE=token"
        ) from error


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Puts this process's own handlers back: ``ray.init`` takes SIGTERM for itself, in Python and below it."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _head() -> str:
    """HOST:PORT of the cluster's head node."""
    head: str = ray.get_runtime_context().gcs_address
    return head


def _answers(address: str | None) -> bool:
    host, _, port = str(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False


class _Start(NamedTuple):
    """Where a task runs, which it says first.

    Attributes:
        node: Ray's id of the node.
        host: the node's address.
        log: the file on that node that the child's output goes to.
    """

    node: str
    host: str
    log: str


class _Place:
    """What a child takes of a node.

    Raises:
        InputError: if no node has that.
    """

    def __init__(self, evaluator: Evaluator, workers_per_gpu: int) -> None:
        num_cpus = getattr(evaluator, "num_threads", 1)
        on_gpu = resolve_device(str(getattr(evaluator, "device", "cpu"))).type == "cuda"
        num_gpus = 1 / workers_per_gpu if on_gpu else 0
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= num_cpus and node.get("GPU", 0) >= num_gpus for node in nodes):
            wanted = f"num_threads = {num_cpus} CPUs" + (" and a GPU" if on_gpu else "")
            raise InputError(f"no node of the Ray cluster has the {wanted} that a child takes; start one that has")
        # One object in flight: the task goes on only when this process knows where it runs. Retries are the supervisor's.
        self.evaluate = ray.remote(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            num_returns="streaming",
            max_retries=0,
            _generator_backpressure_num_objects=1,
        )(_evaluate)
        self._read_log = ray.remote(num_cpus=0, max_retries=0)(_read_log)

    def fetch_log(self, start: _Start) -> bytes:
        """What the child that began at ``start`` has written; nothing where its node is gone."""
        there = scheduling_strategies.NodeAffinitySchedulingStrategy(start.node, soft=False)
        reference = self._read_log.options(scheduling_strategy=there).remote(start.log)
        try:
            log: bytes = ray.get(reference, timeout=_LOG_SECONDS)
        except ray.exceptions.RayError:  # a timeout too
            return b""
        return log


class _SharedEvaluator:
    """An evaluator in the object store, where each node gets it from once.

    Attributes:
        pickled: the evaluator and an identifier of its own.

    Raises:
        InputError: if it cannot be pickled.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        try:
            self.pickled = _dumps((uuid.uuid4().hex, evaluator))
        except Exception as error:  # whatever an attribute may raise
            raise InputError(
                f"the evaluator cannot be sent to a Ray cluster ({_describe(error)}); "
                "put what it is made of into a module of its own, or use --executor serial"
            ) from error
        self._evaluator = evaluator
        self._lock = threading.Lock()
        self._reference: Any = None

    def shared(self) -> Any:
        """A reference to what the evaluator has loaded."""
        with self._lock:
            if self._reference is None:
                self._reference = ray.put(self._evaluator.export_data())
            return self._reference

    def forget(self, reference: Any) -> None:
        """Has what ``reference`` stood for put into the store again: it was lost."""
        with self._lock:
            if self._reference == reference:
                self._reference = None


def _dumps(value: Any) -> bytes:
    """The pickle of ``value``, by value where it is defined in the script that runs."""
    pickled: bytes = cloudpickle.dumps(value)
    return pickled


def _search_path() -> list[str]:
    """Where this process imports from, in absolute paths."""
    return [os.path.abspath(folder) for folder in sys.path]


def _failure(error: Exception) -> AttemptError:
    """What an error of Ray means for the attempt that met it."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return AttemptError("killed by Ray, since its node ran out of memory", status=Status.OUT_OF_MEMORY)
    reasons = {
        ray.exceptions.NodeDiedError: "its node died",
        ray.exceptions.WorkerCrashedError: "its process died",
        ray.exceptions.ObjectLostError: "what it needs was lost from the object store",
    }
    known = (reason for kind, reason in reasons.items() if isinstance(error, kind))
    return AttemptError(next(known, f"Ray failed: {_describe(getattr(error, 'cause', error))}"))


def _elsewhere(start: _Start | None) -> str:
    """Which node it was, where that is not this machine's."""
    if start is None or start.node == ray.get_runtime_context().get_node_id():
        return ""
    return f" (on the Ray node {start.host})"


def _describe(error: BaseException) -> str:
    text = textwrap.shorten(str(error), _MAX_REASON)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# What follows runs in Ray's worker processes.

_loaded: tuple[str, Evaluator] | None = None
"""The evaluator that this process evaluated with last, and its identifier."""


def _evaluate(pickled: bytes, shared: Any, task: bytes, search_path: list[str], working_dir: str) -> Iterator[Any]:
    """Evaluates one child.

    Yields:
        A ``_Start``; then ("done", evaluation, log), ("input_error", line, log) or ("raised", line, log).
    """
    handle, path = tempfile.mkstemp(prefix="nases-", suffix=".log")
    try:
        yield _Start(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), path)
        if not ray.get_gpu_ids():  # Ray hides no GPU from a task that asks for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        sys.path += [folder for folder in search_path if folder not in sys.path]
        if os.path.isdir(working_dir):  # another machine may have no such folder
            os.chdir(working_dir)
        with _output_to(handle):
            kind, value = _outcome(pickled, shared, task)
    finally:
        os.close(handle)
    yield kind, value, _read_log(path)


def _outcome(pickled: bytes, shared: Any, task: bytes) -> tuple[str, Any]:
    try:
        evaluator, loaded_task = _load(pickled, shared, task)
        return "done", evaluator.evaluate(loaded_task.architecture, loaded_task.seed)
    except InputError as error:
        return "input_error", str(error)
    except BaseException as error:  # whatever an evaluator may raise
        traceback.print_exc()
        return "raised", _describe(error)


def _load(pickled: bytes, shared: Any, task: bytes) -> tuple[Evaluator, Task]:
    global _loaded
    try:
        loaded_task = pickle.loads(task)
        identifier, evaluator = pickle.loads(pickled)
    except Exception as error:  # whatever a module may raise when it is imported
        raise InputError(
            f"a Ray worker cannot load the evaluator ({_describe(error)}); install what it is made of on every node"
        ) from error
    if _loaded is None or _loaded[0] != identifier:
        if shared is None:
            evaluator.prepare()
        else:
            evaluator.import_data(shared)
        _loaded = identifier, evaluator
    return _loaded[1], loaded_task


@contextlib.contextmanager
def _output_to(descriptor: int) -> Iterator[None]:
    """Sends all output of this process, that of C code and of ``logging`` too, to ``descriptor``."""
    _flush()
    before = {standard: os.dup(standard) for standard in (1, 2)}
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for standard in before:
        os.dup2(descriptor, standard)
    try:
        yield
    finally:
        _flush()
        for standard, copy in before.items():
            os.dup2(copy, standard)
            os.close(copy)
        root.setLevel(level)
        root.removeHandler(handler)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)


def _read_log(path: str) -> bytes:
    """The end of the file ``path``, which is removed."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _LOG_BYTES))
        log = file.read()
    os.unlink(path)
    return log
