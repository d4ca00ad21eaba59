"""Workers that evaluate children in processes of this machine, which are monitored and restarted."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import psutil
import torch

from nases_env.atomic_io import write_error
from nases_env.cpu import num_cores
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.attempts import AttemptError
from nases_env.execution.executor import Task
from nases_env.execution.pool import Worker
from nases_env.paths import require_no_link

_SCRIPT = Path(__file__).with_name("process_worker_main.py")
_START_SECONDS = 600.0
"""Maximum time for a process to start: to import its modules and load its data."""
_EXIT_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LOG_LINES = 20
_LOG_BYTES = 16384
_GIB = 2**30


class ProcessWorker(Worker):
    """Evaluates children in a separate process, a new Python interpreter.

    The process starts with the first child and is reused for the next ones. It is killed and replaced if it dies, exceeds a
    limit, or its evaluator raises an exception. It ends when the thread that called ``evaluate`` ends. Standard output and
    standard error of a child are appended to ``log_dir/<name of the task>.log``; a child without output has no file.

    Args:
        evaluator: the evaluator; it is pickled for the process.
        environment: environment variables of the process, in addition to those of this process, which they override.
        log_dir: the directory for logs; it is created if it does not exist.
        time_limit: maximum duration of an attempt in seconds, not counting the start of the process; None: unlimited.
        memory_limit: maximum main memory of the process and its subprocesses in GiB, without memory shared with other
            processes, such as libraries (known on Linux only); None: unlimited.

    Raises:
        InputError: if the evaluator cannot be pickled, or is defined in a place that the process cannot import.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        environment: Mapping[str, str],
        log_dir: Path,
        time_limit: float | None = None,
        memory_limit: float | None = None,
    ) -> None:
        self._configuration = _pickle(evaluator)
        self._environment = dict(environment)
        self.gpu = environment.get("CUDA_VISIBLE_DEVICES", "")
        self._working_dir = os.getcwd()
        self._log_dir = log_dir.absolute()
        self._time_limit = time_limit
        self._memory_limit = memory_limit
        self._process: _Process | None = None

    def evaluate(self, task: Task) -> Evaluation:
        path = self._log_dir / f"{task.name}.log"
        with _open_log(path) as log:
            start = log.tell()
            try:
                evaluation = self._attempt(task, log)
            except AttemptError as failure:
                self.close()
                tail = _tail(path, start)
                reason = f"{failure.reason}; see {path}" if tail else failure.reason
                raise AttemptError(reason, status=failure.status, log=tail) from None
            except BaseException:
                self.close()
                raise
            finally:
                _remove_empty(path)
        return evaluation

    def _attempt(self, task: Task, log: BinaryIO) -> Evaluation:
        if self._process is None:
            self._start(log)
        assert self._process is not None
        self._process.send((task, log.name))
        evaluation: Evaluation = self._process.receive(self._time_limit, self._memory_limit)
        return evaluation

    def _start(self, log: BinaryIO) -> None:
        try:
            self._process = _Process({**os.environ, **self._environment}, self._working_dir, log)
        except OSError as error:
            raise AttemptError(f"cannot start its worker: {error}") from error
        self._process.send((sys.path, self._configuration))
        try:
            self._process.receive(_START_SECONDS, self._memory_limit)
        except AttemptError as failure:
            if failure.status is Status.TIMED_OUT:  # not the fault of the child
                raise AttemptError(f"its worker did not start within {_START_SECONDS:g} s") from None
            if failure.status is Status.OUT_OF_MEMORY:
                reason = f"its worker {failure.reason} before it evaluated a child; increase memory_limit"
                raise AttemptError(reason) from None
            raise

    def cancel(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process = None


def process_workers(
    evaluator: Evaluator,
    num_workers: int,
    *,
    workers_per_gpu: int = 1,
    log_dir: Path,
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> list[ProcessWorker]:
    """Create ``num_workers`` workers with ``evaluator.num_threads`` CPU threads each, 1 without that attribute.

    If the evaluator's device is "auto" or "cuda" and there are GPUs, worker i sees GPU i mod num_gpus only. All workers of
    a device with a number, such as "cuda:1", share that GPU.

    Args:
        evaluator: the evaluator of all workers.
        num_workers: number of workers.
        workers_per_gpu: maximum number of workers that share a GPU.
        log_dir: see ``ProcessWorker``.
        time_limit: see ``ProcessWorker``.
        memory_limit: see ``ProcessWorker``.

    Raises:
        InputError: if the evaluator cannot be sent to a process, or ``num_workers`` exceeds ``workers_per_gpu`` times the
            number of GPUs.
    """
    gpus = _gpus(evaluator)
    if gpus and num_workers > len(gpus) * workers_per_gpu:
        raise InputError(
            f"{num_workers} workers need more than {len(gpus)} GPU{'s' * (len(gpus) > 1)} with workers_per_gpu = "
            f"{workers_per_gpu}; "
            "increase workers_per_gpu or decrease num_workers"
        )
    workers = []
    for slot in range(num_workers):
        environment = {"OMP_NUM_THREADS": str(_num_threads(evaluator))}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        workers.append(
            ProcessWorker(
                evaluator, environment=environment, log_dir=log_dir, time_limit=time_limit, memory_limit=memory_limit
            )
        )
    return workers


def default_num_workers(evaluator: Evaluator, num_envs: int, workers_per_gpu: int) -> int:
    """Return ``num_envs``, limited to the number of workers that the GPUs or CPU cores support, and at least 1."""
    gpus = _gpus(evaluator)
    num_slots = len(gpus) * workers_per_gpu if gpus else num_cores() // _num_threads(evaluator)
    return max(1, min(num_envs, num_slots))


class _Process:
    """A worker process and the connection to it."""

    def __init__(self, environment: Mapping[str, str], working_dir: str, log: BinaryIO) -> None:
        self._lock = threading.Lock()
        self._connection, other_end = multiprocessing.Pipe()
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-u", str(_SCRIPT), str(other_end.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=working_dir,
                pass_fds=[other_end.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is not sent to it
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            other_end.close()

    def send(self, message: Any) -> None:
        """Send ``message``. If the process has died, the next ``receive`` raises the error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def receive(self, time_limit: float | None, memory_limit: float | None) -> Any:
        """Return the result of the last message.

        Args:
            time_limit: seconds; None: unlimited.
            memory_limit: GiB; None: unlimited.

        Raises:
            AttemptError: if the process raised an exception, exceeded a limit or died.
            InputError: if its evaluator raised ``InputError``.
        """
        deadline = math.inf if time_limit is None else time.monotonic() + time_limit
        while not self._connection.poll(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic()))):
            if self._has_died():
                raise self._exit_error()
            if memory_limit is not None and self._resident_bytes() > memory_limit * _GIB:
                raise AttemptError(f"used more than {memory_limit:g} GiB of memory", status=Status.OUT_OF_MEMORY)
            if time.monotonic() >= deadline:
                raise AttemptError(f"took longer than {time_limit:g} s", status=Status.TIMED_OUT)
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):  # before the message, or in the middle of it
            raise self._exit_error() from None
        if kind == "input_error":
            raise InputError(value)
        if kind == "raised":
            raise AttemptError(f"raised {value}")
        return value

    def kill(self) -> None:
        """Kill the process and its subprocesses. Can be called from any thread at any time."""
        with self._lock:
            # It is not reaped, so its pid cannot have been reused. ``make_executor`` refuses processes on Windows.
            if self._popen.returncode is None and sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, signal.SIGKILL)

    def terminate(self) -> int:
        """Kill the process if it is running, and return its exit status as ``subprocess`` does."""
        self.kill()
        with self._lock:
            status = self._popen.wait()
        self._connection.close()
        return status

    def _has_died(self) -> bool:
        """Return whether the process has ended. Does not reap it: before that, its process group can be killed safely."""
        try:
            return psutil.Process(self._popen.pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True

    def _exit_error(self) -> AttemptError:
        start = time.monotonic()
        # The connection closes before the process ends.
        while not self._has_died() and time.monotonic() - start < _EXIT_SECONDS:
            time.sleep(0.01)
        status = self.terminate()
        return AttemptError(f"killed by {_signal_name(-status)}" if status < 0 else f"exited with status {status}")

    def _resident_bytes(self) -> int:
        resident = 0
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(self._popen.pid)
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    memory = member.memory_info()
                    resident += memory.rss - getattr(memory, "shared", 0)  # shared libraries are in memory only once
        return resident


class _Pickler(pickle.Pickler):
    """Rejects classes and functions of the running script, which another process cannot import."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            raise pickle.PicklingError(f"{value.__qualname__} is defined in the script itself")
        return NotImplemented


def _pickle(evaluator: Evaluator) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(evaluator)
    except Exception as error:  # attributes may raise any exception
        raise InputError(
            f"the evaluator cannot be sent to another process ({one_line(error)}); "
            "define its parts in an importable module, or use --executor serial"
        ) from error
    return buffer.getvalue()


def _gpus(evaluator: Evaluator) -> list[str]:
    """Return the ``CUDA_VISIBLE_DEVICES`` value of each GPU for the workers; empty if children are not trained on GPUs.

    A device with a number, such as "cuda:1", is one GPU; its workers see all, so that it keeps its number.
    """
    device, _, number = str(getattr(evaluator, "device", None)).partition(":")
    if device not in ("auto", "cuda"):
        return []
    num_gpus = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(index) for index in range(num_gpus)] if visible is None else visible.split(",")[:num_gpus]
    return [",".join(gpus)] if gpus and number else gpus


def _num_threads(evaluator: Evaluator) -> int:
    return getattr(evaluator, "num_threads", 1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_no_link(path)
        log = open(path, "ab")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise write_error(path, error) from error
    log.seek(0, os.SEEK_END)
    return log


def _tail(path: Path, start: int) -> str:
    """Return the last lines of the file after byte ``start``."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LOG_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
    return ""


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == 0:
            path.unlink()
