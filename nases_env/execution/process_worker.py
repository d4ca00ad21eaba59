"""Workers that are processes of this machine, watched and replaced."""

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
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Task
from nases_env.execution.pool import AttemptError, Worker

_SCRIPT = Path(__file__).with_name("process_worker_main.py")
_START_SECONDS = 600.0
"""Time for a worker to start, in which it imports its modules and loads its data."""
_EXIT_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LOG_LINES = 20
_LOG_BYTES = 16384
_GIB = 2**30


class ProcessWorker(Worker):
    """Evaluates children in a process of its own, a fresh interpreter.

    The process is started for the first child and serves the next ones too, until it dies, meets a limit or its evaluator
    raises; the next child then gets a fresh one. It ends with the thread that called ``evaluate``. What a child writes
    to standard output and standard error is appended to ``log_dir/<task's name>.log``; where that is nothing, no file is
    left.

    Args:
        evaluator: is pickled for the process.
        environment: environment variables that the process has beside or in place of this one's.
        log_dir: the folder for logs, made where it is missing.
        time_limit: seconds that an attempt may take, without those in which the process starts; None: any time.
        memory_limit: GiB of main memory that the process may occupy, with the processes that it started and without what
            it shares with others, such as libraries (Linux alone can tell); None: any.

    Raises:
        InputError: if the evaluator cannot be pickled, or is defined where the process could not import it.
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
            raise AttemptError(f"its worker cannot be started: {error}") from error
        self._process.send((sys.path, self._configuration))
        try:
            self._process.receive(_START_SECONDS, self._memory_limit)
        except AttemptError as failure:
            if failure.status is Status.TIMED_OUT:  # which says nothing of the child
                raise AttemptError(f"its worker did not start within {_START_SECONDS:g} s") from None
            raise

    def cancel(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
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
    """``num_workers`` processes with ``evaluator.num_threads`` CPU threads each, 1 where it has no such attribute.

    Where the evaluator's device is the GPU, none in particular, worker i sees GPU i modulo their number alone. See
    ``ProcessWorker`` for the other arguments.

    Raises:
        InputError: if the evaluator cannot be sent to a process, or there are more workers than the GPUs may have.
    """
    gpus = _gpus(evaluator)
    if gpus and num_workers > len(gpus) * workers_per_gpu:
        raise InputError(
            f"{num_workers} workers are more than {len(gpus)} GPUs take with workers_per_gpu = {workers_per_gpu}; "
            "raise that, or lower num_workers"
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
    """One worker per environment, but no more than there are GPUs or CPU cores for, and at least one."""
    gpus = _gpus(evaluator)
    num_places = len(gpus) * workers_per_gpu if gpus else num_cores() // _num_threads(evaluator)
    return max(1, min(num_envs, num_places))


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
                start_new_session=True,  # so that an interrupt from the terminal does not reach it
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            other_end.close()

    def send(self, message: Any) -> None:
        """Sends ``message``; one that has died says so to ``receive``."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def receive(self, time_limit: float | None, memory_limit: float | None) -> Any:
        """What the process made of the last message.

        Raises:
            AttemptError: if it raised an exception, met a limit (seconds and GiB) or died.
            InputError: if its evaluator raised that.
        """
        deadline = math.inf if time_limit is None else time.monotonic() + time_limit
        while not self._connection.poll(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic()))):
            if self._has_died():
                raise self._death()
            if memory_limit is not None and self._occupied_bytes() > memory_limit * _GIB:
                raise AttemptError(f"occupied more than {memory_limit:g} GiB", status=Status.OUT_OF_MEMORY)
            if time.monotonic() >= deadline:
                raise AttemptError(f"took longer than {time_limit:g} s", status=Status.TIMED_OUT)
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):  # at the start of an answer, or in the middle
            raise self._death() from None
        if kind == "input_error":
            raise InputError(value)
        if kind == "raised":
            raise AttemptError(f"raised {value}")
        return value

    def kill(self) -> None:
        """Kills it and all that it started; may be called from any thread, and at any time."""
        with self._lock:
            if self._popen.returncode is None:  # it is not reaped, so that its number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kills it where it still runs. Gives its exit status, as ``subprocess`` does."""
        self.kill()
        with self._lock:
            status = self._popen.wait()
        self._connection.close()
        return status

    def _has_died(self) -> bool:
        """Whether it has ended. It is not reaped: until then its process group is its own, and can be killed."""
        try:
            return psutil.Process(self._popen.pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True

    def _death(self) -> AttemptError:
        start = time.monotonic()
        while not self._has_died() and time.monotonic() - start < _EXIT_SECONDS:  # its connection closes a little earlier
            time.sleep(0.01)
        status = self.end()
        return AttemptError(f"killed by {_signal_name(-status)}" if status < 0 else f"exited with status {status}")

    def _occupied_bytes(self) -> int:
        occupied = 0
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(self._popen.pid)
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    memory = member.memory_info()
                    occupied += memory.rss - getattr(memory, "shared", 0)  # libraries are in memory once for all
        return occupied


class _Pickler(pickle.Pickler):
    """Refuses what is defined in the script that runs, which another process would look for in vain."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            raise pickle.PicklingError(f"{value.__qualname__} is defined in the script itself")
        return NotImplemented


def _pickle(evaluator: Evaluator) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(evaluator)
    except Exception as error:  # whatever an attribute may raise
        raise InputError(
            f"the evaluator cannot be sent to another process ({' '.join(str(error).split())}); "
            "put what it is made of into a module of its own, or use --executor serial"
        ) from error
    return buffer.getvalue()


def _gpus(evaluator: Evaluator) -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls the GPUs that the workers may share out; none where children train elsewhere."""
    device = getattr(evaluator, "device", None)
    if str(device) not in ("auto", "cuda"):
        return []
    num_gpus = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(num_gpus)] if visible is None else visible.split(",")[:num_gpus]


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
        log = open(path, "ab")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise write_error(path, error) from error
    log.seek(0, os.SEEK_END)
    return log


def _tail(path: Path, start: int) -> str:
    """The last lines of what the file has from byte ``start`` on."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _LOG_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
    return ""


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == 0:
            path.unlink()
