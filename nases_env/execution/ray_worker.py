"""Workers that evaluate children on a Ray cluster; each child is a Ray task."""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
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
from nases_env.execution.process_worker_main import describe, flush
from nases_env.paths import require_no_link

try:  # imported by name, because parts of Ray have no type annotations
    ray: Any = importlib.import_module("ray")
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    scheduling_strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
except ImportError as error:
    raise InputError("the executor ray needs Ray: pip install 'nases-env[ray]'") from error

_POLL_SECONDS = 1.0
_LOST_SECONDS = 20.0
"""Maximum time that the head node may be unreachable. After 60 s Ray would end this process without an exception."""
_LOG_SECONDS = 60.0  # a busy node needs a while to start the process that reads a log
_LOG_LINES = 20
_LOG_BYTES = 2**20
"""Maximum size of a log; only the end of a longer output is kept."""


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
        _connection.retain()

    def evaluate(self, task: Task) -> Evaluation:
        shared = self._evaluator.data_reference()
        generator = self._remote.evaluate.remote(self._evaluator.pickled, shared, _dumps(task), _search_path(), os.getcwd())
        with self._lock:
            self._generator = generator
        location: _TaskLocation | None = None
        try:
            location = ray.get(self._next(None))
            kind, value, log = ray.get(self._next(self._time_limit))
        except AttemptError as failure:
            raise self._with_log(failure, task, location) from None
        except ray.exceptions.LocalRayletDiedError as error:
            raise InputError("the Ray node of this machine has died; restart it and continue with --resume") from error
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
            _connection.check()

    def _with_log(
        self, failure: AttemptError, task: Task, location: _TaskLocation | None, log: bytes | None = None
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
    """Create ``num_workers`` workers. The data that ``evaluator`` has loaded is sent to each node once.

    A child requires ``evaluator.num_threads`` CPUs of a node, 1 without that attribute, and ``1 / workers_per_gpu`` of a GPU
    if the evaluator's device is a GPU. If the cluster lacks resources for all workers, their children are queued.

    Args:
        evaluator: a prepared evaluator; its parts can be imported on every node, or are defined in the script itself.
        num_workers: maximum number of children that are submitted to the cluster concurrently.
        address: HOST:PORT of a running cluster that this machine is a node of, or "auto"; None: the cluster that this
            process is connected to, else a new cluster on this machine, which is shut down with the last worker.
        workers_per_gpu: number of children that share a GPU.
        log_dir: the folder for logs on this machine; it is created if it does not exist.
        time_limit: maximum duration of an attempt in seconds, not counting the time in the queue; None: unlimited.

    Raises:
        InputError: if Ray is not installed, cannot be started or reached, or has no node with the required resources; or if
            the evaluator cannot be sent.
    """
    _connection.open(address)
    try:
        remote = _RemoteEvaluate(evaluator, workers_per_gpu)
        shared_evaluator = _SharedEvaluator(evaluator)
        return [RayWorker(remote, shared_evaluator, log_dir, time_limit) for _ in range(num_workers)]
    finally:
        _connection.close()


class _Connection:
    """The connection of this process to Ray, shared by all workers; if they opened it, the last one closes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._num_users = 0
        self._is_own = False
        self._address: str | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of a cluster on this machine
        self._next_check = 0.0
        self._unreachable_since: float | None = None

    def open(self, address: str | None) -> None:
        with self._lock:
            if self._num_users == 0:
                self._is_own = not ray.is_initialized()
                self._address = address if self._is_own else None
                if self._is_own:
                    self._folder = _init(address)
            known = (None, self._address, _gcs_address())
            if address not in known:
                raise InputError(
                    f"this process is already connected to the Ray cluster at {_gcs_address()}, not to {address}; "
                    "omit ray_address or use another process"
                )
            self._num_users += 1

    def retain(self) -> None:
        with self._lock:
            self._num_users += 1

    def close(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and self._is_own:
                ray.shutdown()
                if self._folder is not None:
                    self._folder.cleanup()

    def check(self) -> None:
        """Check whether the head node is reachable, at most once per second.

        Raises:
            InputError: if it has been unreachable for ``_LOST_SECONDS``.
        """
        with self._lock:
            if time.monotonic() < self._next_check:
                return
            now = time.monotonic()
            if _is_reachable(_gcs_address()):
                self._unreachable_since = None
            elif self._unreachable_since is None:
                self._unreachable_since = now
            elif now - self._unreachable_since > _LOST_SECONDS:
                raise InputError(
                    f"the Ray cluster at {_gcs_address()} is unreachable; restart it and continue with --resume"
                )
            self._next_check = now + _POLL_SECONDS


_connection = _Connection()

_INIT_OPTIONS = {"log_to_driver": False, "logging_level": logging.ERROR}
_CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable that Ray reads on every system: whether a cluster may have several machines."""


def _init(address: str | None) -> tempfile.TemporaryDirectory[str] | None:
    """Join the cluster at ``address``, or start one on this machine and return the directory of its files."""
    if address is None:
        return start_cluster()
    if "://" in address:
        raise InputError(f"the Ray address must be HOST:PORT of a cluster with a node on this machine, not {address}")
    if address != "auto" and not _is_reachable(address):
        raise InputError(f"there is no Ray cluster at {address}; start one with ray start --head, or omit ray_address")
    try:
        with _keep_signal_handlers():
            ray.init(address=address, **_INIT_OPTIONS)
    except Exception as error:  # Ray raises many types, including bare Exception
        raise InputError(
            f"cannot join the Ray cluster at {address} ({describe(error)}); this machine must be one of its nodes, "
            "and a cluster with a token requires RAY_AUTH_MODE=token"
        ) from error
    return None


def start_cluster(**options: Any) -> tempfile.TemporaryDirectory[str]:
    """Start a cluster on this machine that listens on the loopback interface only.

    Args:
        **options: passed to ``ray.init``.

    Returns:
        The directory of its files, which only this user can read, to remove after ``ray.shutdown``.

    Raises:
        InputError: if Ray cannot be started.
    """
    # The path of a socket may have about 100 characters, so the folder is in /tmp on macOS, as Ray's is.
    parent = os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else None)
    folder = tempfile.TemporaryDirectory(prefix="nases-", dir=parent, ignore_cleanup_errors=True)
    try:
        with _keep_signal_handlers(), _loopback_only():
            # Ray makes its directory writable for all users, so it is inside of one that is not.
            files = os.path.join(folder.name, "ray")
            options |= {"num_cpus": num_cores(), "include_dashboard": False, "_temp_dir": files, **_INIT_OPTIONS}
            ray.init(address="local", **options)
    except Exception as error:  # Ray raises many types, including bare Exception
        folder.cleanup()
        raise InputError(
            f"cannot start Ray on this machine ({describe(error)}); check its memory and free disk space, "
            "or use --executor processes"
        ) from error
    return folder


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a cluster that is started in this context listen on the loopback interface only, as Ray does on macOS and Windows.

    Raises:
        RuntimeError: if this version of Ray listens on another interface anyway.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before, variable = constants.ENABLE_RAY_CLUSTER, os.environ.get(_CLUSTER_VARIABLE)
    constants.ENABLE_RAY_CLUSTER, os.environ[_CLUSTER_VARIABLE] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_CLUSTER_VARIABLE]
        if variable is not None:
            os.environ[_CLUSTER_VARIABLE] = variable
    address = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        ray.shutdown()
        raise RuntimeError(f"it would listen on {address}; install Ray 2.60")


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers of this process, because ``ray.init`` replaces that of SIGTERM, in Python and in C."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _gcs_address() -> str:
    """Return HOST:PORT of the head node of the cluster."""
    address: str = ray.get_runtime_context().gcs_address
    return address


def _is_reachable(address: str | None) -> bool:
    host, _, port = str(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False


class _TaskLocation(NamedTuple):
    """Where a task runs; the first object that it yields.

    Attributes:
        node: Ray's id of the node.
        host: address of the node.
        log: path of the child's log on that node.
    """

    node: str
    host: str
    log: str


class _RemoteEvaluate:
    """The remote functions that evaluate a child and read its log, with the resources that a child requires.

    Raises:
        InputError: if no node has these resources.
    """

    def __init__(self, evaluator: Evaluator, workers_per_gpu: int) -> None:
        num_cpus = getattr(evaluator, "num_threads", 1)
        on_gpu = resolve_device(str(getattr(evaluator, "device", "cpu"))).type == "cuda"
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
        )(_evaluate)
        self._read_log = ray.remote(num_cpus=0, max_retries=0)(_read_log)

    def fetch_log(self, location: _TaskLocation) -> bytes | None:
        """Return the log of the child at ``location``; None if its node has died or does not answer in time."""
        on_node = scheduling_strategies.NodeAffinitySchedulingStrategy(location.node, soft=False)
        reference = self._read_log.options(scheduling_strategy=on_node).remote(location.log)
        try:
            log: bytes = ray.get(reference, timeout=_LOG_SECONDS)
        except ray.exceptions.RayError:  # includes timeouts
            return None
        return log

    def delete_log(self, location: _TaskLocation) -> None:
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


def _search_path() -> list[str]:
    """Return the import path of this process as absolute paths."""
    return [os.path.abspath(folder) for folder in sys.path]


def _failure(error: Exception) -> AttemptError:
    """Return the ``AttemptError`` for an error of Ray."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return AttemptError("killed by Ray because its node ran out of memory", status=Status.OUT_OF_MEMORY)
    reasons = {
        ray.exceptions.NodeDiedError: "its node died",
        ray.exceptions.WorkerCrashedError: "its process died",
        ray.exceptions.ObjectLostError: "its data was lost from the object store",
    }
    known = (reason for kind, reason in reasons.items() if isinstance(error, kind))
    return AttemptError(next(known, f"Ray failed: {describe(getattr(error, 'cause', error))}"))


def _node_suffix(location: _TaskLocation | None) -> str:
    """Return text that names the node; empty if it is the node of this machine."""
    return "" if location is None or _is_here(location) else f" (on the Ray node {location.host})"


def _is_here(location: _TaskLocation) -> bool:
    """Return whether the task runs on the node of this machine."""
    node: str = ray.get_runtime_context().get_node_id()
    return location.node == node


# The code below runs in the worker processes of Ray.

_loaded: tuple[str, Evaluator] | None = None
"""The identifier and the evaluator of the previous task of this process."""


def _evaluate(pickled: bytes, shared: Any, task: bytes, search_path: list[str], working_dir: str) -> Iterator[Any]:
    """Evaluate one child.

    Yields:
        A ``_TaskLocation``; then ("done", evaluation, log), ("input_error", line, log) or ("raised", line, log).
    """
    handle, path = tempfile.mkstemp(prefix="nases-", suffix=".log")
    try:
        yield _TaskLocation(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), path)
        if not ray.get_gpu_ids():  # Ray does not hide GPUs from a task that requests none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        sys.path += [folder for folder in search_path if folder not in sys.path]
        if os.path.isdir(working_dir):  # it may not exist on another machine
            os.chdir(working_dir)
        with _redirect_output(handle):
            kind, value = _outcome(pickled, shared, task)
    finally:
        os.close(handle)
    yield kind, value, _read_log(path)


def _outcome(pickled: bytes, shared: Any, task: bytes) -> tuple[str, Any]:
    try:
        evaluator, loaded_task = _load(pickled, shared, task)
        return "done", loaded_task.run(evaluator)
    except InputError as error:
        return "input_error", str(error)
    except BaseException as error:  # evaluators may raise any exception
        traceback.print_exc()
        return "raised", describe(error)


def _load(pickled: bytes, shared: Any, task: bytes) -> tuple[Evaluator, Task]:
    global _loaded
    try:
        loaded_task = pickle.loads(task)
        identifier, evaluator = pickle.loads(pickled)
    except Exception as error:  # imports may raise any exception
        raise InputError(
            f"a Ray worker cannot load the evaluator ({describe(error)}); install its modules on every node"
        ) from error
    if _loaded is None or _loaded[0] != identifier:
        if shared is None:
            evaluator.prepare()
        else:
            evaluator.import_data(shared)
        _loaded = identifier, evaluator
    return _loaded[1], loaded_task


@contextlib.contextmanager
def _redirect_output(descriptor: int) -> Iterator[None]:
    """Redirect all output of this process, including that of C code and of ``logging``, to ``descriptor``."""
    flush()
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
        flush()
        for standard, copy in before.items():
            os.dup2(copy, standard)
            os.close(copy)
        root.setLevel(level)
        root.removeHandler(handler)


def _read_log(path: str) -> bytes:
    """Return the end of the file ``path`` and delete the file."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _LOG_BYTES))
        log = file.read()
    os.unlink(path)
    return log
