"""Workers that evaluate children as Slurm jobs, submitted with submitit."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import platform
import re
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.attempts import AttemptError
from nases_env.execution.executor import Task
from nases_env.execution.pool import Worker
from nases_env.execution.process_worker_main import describe
from nases_env.execution.remote_device import remote_device_type, require_gpu
from nases_env.execution.slurm_queue import ENDED_STATES, QUEUED_STATES, UNKNOWN, SlurmQueue
from nases_env.paths import import_path

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
SUBMIT_SECONDS = 600.0  # for attempts to submit a job, while the controller restarts or a limit of jobs is reached
MAX_DELAY_SECONDS = 60.0  # between two of them
NUM_LOG_LINES = 20
EXTRA_MINUTES = 15  # added to time_limit for the start of a job, and because submitit ends jobs 90 s before their limit
QUEUE_SECONDS = 60.0  # between two requests of the state of a job that was preempted
RESULT_SECONDS = 60.0  # until the result of a job that has ended is visible on a shared file system
SUBMITIT_OPTIONS = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
"""Options of submitit, with the same names for all clusters; other options belong to sbatch."""


class SlurmWorker(Worker):
    """Evaluates one child at a time as a job.

    Args:
        evaluator: the evaluator; it is pickled for each job.
        executor: the executor of submitit.
        time_limit: maximum run time of a job in seconds; None: limited by Slurm only.
        device_type: "cpu" or "cuda", where children are trained; None: not known.
        queue: the states of the jobs; None: submitit knows them, because it runs them on this machine.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        executor: Any,
        time_limit: float | None,
        device_type: str | None,
        queue: SlurmQueue | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._executor = executor
        self._time_limit = time_limit
        self._device_type = device_type
        self._queue = queue
        self._is_canceled = threading.Event()

    def evaluate(self, task: Task) -> Evaluation:
        self._is_canceled.clear()
        start_file = Path(self._executor.folder) / f"{uuid.uuid4().hex}.started"
        try:
            return self._result(self._submit(task, start_file), start_file)
        finally:
            start_file.unlink(missing_ok=True)

    def _result(self, job: Any, start_file: Path) -> Evaluation:
        """Wait for the job and return its result."""
        self._wait(job, start_file)
        try:
            kind, value = job.result()
        except Exception as error:  # submitit raises many types
            first_line = (str(error) or type(error).__name__).splitlines()[0]  # the log of the job follows
            reason = f"its job {job.job_id} returned no result ({first_line}); see {job.paths.stderr}"
            raise AttemptError(reason, log=_log(job)) from error
        if kind == "raised":
            raise AttemptError(f"raised {value}; see {job.paths.stderr}", log=_log(job))
        self._remove_files(job.job_id)
        if kind == "input_error":
            raise InputError(value)
        evaluation: Evaluation = value
        return evaluation

    def _submit(self, task: Task, start_file: Path) -> Any:
        """Submit the job of a child, again and again if that fails for a reason that may pass.

        Raises:
            AttemptError: after ``cancel``.
            InputError: if the evaluator cannot be pickled, or sbatch refuses an option as invalid or fails for
                ``SUBMIT_SECONDS``.
        """
        import cloudpickle  # with submitit

        try:
            pickled = cloudpickle.dumps((self._evaluator, task))
        except Exception as error:  # attributes may raise any exception
            raise InputError(
                f"the evaluator cannot be sent to a Slurm job ({describe(error)}); "
                "define its parts in an importable module, or use the executor serial"
            ) from error
        deadline, delay = time.monotonic() + SUBMIT_SECONDS, POLL_SECONDS
        while True:
            try:
                return self._executor.submit(_load_and_evaluate, import_path(), pickled, self._device_type, start_file)
            except Exception as error:  # sbatch fails or is missing
                reason = one_line(error)
                if "invalid" in reason.lower() or time.monotonic() + delay > deadline:
                    raise InputError(
                        f"cannot submit jobs to Slurm ({reason}); check sbatch and slurm_options, then start again; "
                        "resume a search with --resume"
                    ) from error
            logger.warning("cannot submit the job of child %s (%s); trying again in %.0f s", task.name, reason, delay)
            if self._is_canceled.wait(delay):
                raise AttemptError("canceled before its job was submitted")
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _remove_files(self, job_id: str) -> None:
        folder = Path(self._executor.folder)
        for path in folder.glob(f"{job_id}_*"):
            path.unlink(missing_ok=True)
        for path in folder.glob(".submission_file_*"):  # submitit leaves a link to the script of each job
            if path.is_symlink() and not path.exists():
                path.unlink(missing_ok=True)

    def _wait(self, job: Any, start_file: Path) -> None:
        """Wait for the result of the job; cancel it after ``cancel`` or the time limit.

        The time begins when the job writes ``start_file``, and begins again when a job that was preempted writes it again.
        """
        started: int | None = None
        was_seen = False  # a job in another cluster is never seen
        deadline, result_deadline = math.inf, time.monotonic() + RESULT_SECONDS
        while not job.paths.result_pickle.exists():
            if self._queue is None and job.done():
                return
            if self._is_canceled.wait(POLL_SECONDS):
                job.cancel(check=False)
                raise AttemptError(f"its job {job.job_id} was canceled")
            state = self._state(job)
            was_seen = was_seen or state not in (None, UNKNOWN)
            has_ended = was_seen if state is None else state in ENDED_STATES
            if not has_ended:
                result_deadline = time.monotonic() + RESULT_SECONDS
            elif time.monotonic() >= result_deadline:
                ended = "ended without a result" + ("" if state is None else f" ({state})")
                raise AttemptError(f"its job {job.job_id} {ended}; see {job.paths.stderr}", log=_log(job))
            if self._time_limit is None:
                continue
            latest = _modification_time(start_file)
            if latest not in (None, started):
                started, deadline = latest, time.monotonic() + self._time_limit
            if time.monotonic() < deadline:
                continue
            if self._state(job, max_age=0) in QUEUED_STATES:
                deadline = time.monotonic() + QUEUE_SECONDS
                continue
            job.cancel(check=False)
            raise AttemptError(f"took longer than {self._time_limit:g} s", status=Status.TIMED_OUT)

    def _state(self, job: Any, **options: float) -> str | None:
        return "RUNNING" if self._queue is None else self._queue.state(job.job_id, **options)

    def cancel(self) -> None:
        self._is_canceled.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # holds logs of failed jobs, or was removed by another worker
            Path(self._executor.folder).rmdir()


def slurm_workers(
    evaluator: Evaluator,
    num_workers: int,
    *,
    folder: Path,
    options: str | None,
    time_limit: float | None = None,
    cluster: str = "slurm",
) -> list[SlurmWorker]:
    """Create ``num_workers`` workers; each runs one job at a time.

    Args:
        evaluator: a prepared evaluator; a job has ``evaluator.num_threads`` CPUs, and a GPU if children are trained on GPUs,
            even if this machine has none and the device is "cuda".
        num_workers: maximum number of jobs at a time.
        folder: the folder for the files of the jobs, on a file system that all nodes share. They are in a new directory of
            it, because the result of a job is a pickle, and a pickle that was there before could contain any code.
        options: ``NAME=VALUE,NAME=VALUE``: options of submitit (``timeout_min``, ``mem_gb``, ``cpus_per_task``,
            ``gpus_per_node``) or of sbatch. Options that request GPUs replace the one GPU of a job.
        time_limit: maximum run time of a job in seconds, not counting the time in the queue, also after a preemption; None:
            limited by Slurm only.
        cluster: where submitit runs the jobs, such as "slurm" or "local".

    Raises:
        InputError: if submitit or Slurm is not installed, an option is invalid or requests GPUs for children that are
            trained on the CPU, or neither ``time_limit`` nor ``options`` limits the run time of a job (the default of
            submitit is only 5 minutes).
    """
    try:
        import submitit
    except ImportError:
        raise InputError("the executor slurm needs submitit: pip install 'nases-env[slurm]'") from None
    parameters: dict[str, Any] = {"cpus_per_task": getattr(evaluator, "num_threads", 1)}
    device_type = remote_device_type(evaluator)
    if time_limit is not None and time_limit < math.inf:
        parameters["timeout_min"] = math.ceil(time_limit / 60) + EXTRA_MINUTES
    parameters |= _parse(options)
    gpu_options = {name: value for name, value in parameters.items() if "gpus" in name or _is_gres_of_gpus(name, value)}
    if device_type == "cuda" and not gpu_options:
        parameters["gpus_per_node"] = 1
    if device_type == "cpu" and any(gpu_options.values()):
        option = next(iter(gpu_options)).removeprefix("slurm_")
        raise InputError(
            f"{option} in slurm_options requests GPUs, but the device of this search is the CPU; "
            "omit it, or pass --device cuda to train on GPUs that only the jobs have"
        )
    if not {"timeout_min", "slurm_time"} & parameters.keys():
        raise InputError("Slurm needs a time limit for jobs in minutes: --slurm-options timeout_min=120")
    try:
        executor = submitit.AutoExecutor(folder=str(folder / uuid.uuid4().hex), cluster=cluster)
        executor.update_parameters(name="nases", **parameters)
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"cannot use Slurm ({one_line(error)}); run this on a machine with sbatch, and check --slurm-options"
        ) from None
    queue = SlurmQueue() if cluster == "slurm" else None
    return [SlurmWorker(evaluator, executor, time_limit, device_type, queue) for _ in range(num_workers)]


def _parse(options: str | None) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for option in filter(None, (options or "").split(",")):
        name, equals, value = option.partition("=")
        if not (equals and name.isidentifier() and value and value.isprintable()):  # a line break would begin a command
            raise InputError(
                f"invalid option {option!r} in slurm_options; use NAME=VALUE,NAME=VALUE: partition=gpu,timeout_min=120"
            )
        is_integer = re.fullmatch("[0-9]{1,18}", value) is not None
        if name == "mem_gb" and re.fullmatch(r"[0-9]{1,18}\.[0-9]{1,18}", value):
            parsed[name] = float(value)
        elif name in SUBMITIT_OPTIONS and not is_integer:
            raise InputError(f"{name} in slurm_options must be a {'' if name == 'mem_gb' else 'whole '}number, not {value}")
        else:
            parsed[name if name in SUBMITIT_OPTIONS else f"slurm_{name}"] = int(value) if is_integer else value
    return parsed


def _is_gres_of_gpus(name: str, value: Any) -> bool:
    return name == "slurm_gres" and str(value).startswith("gpu")


def _modification_time(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _load_and_evaluate(search_path: list[str], pickled: bytes, device_type: str | None, start_file: Path) -> tuple[str, Any]:
    """Unpickle the evaluator and the task with the import path of the search; the function that runs in the job."""
    start_file.touch()
    sys.path += [folder for folder in search_path if folder not in sys.path]
    try:
        evaluator, task = pickle.loads(pickled)
    except Exception as error:  # imports may raise any exception
        traceback.print_exc()
        reason = f"a job cannot load the evaluator ({describe(error)}); make its modules available on every node"
        return "input_error", f"{reason} (on the node {platform.node()})"
    return _evaluate(evaluator, task, device_type)


def _evaluate(evaluator: Evaluator, task: Task, device_type: str | None) -> tuple[str, Any]:
    """Evaluate a child on the type of device in the configuration of its result."""
    try:
        if device_type == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the device auto would be a GPU on a node that has one
        elif device_type == "cuda":
            require_gpu("request GPUs, for example with --slurm-options partition=gpu,gpus_per_node=1")
        return "done", task.run(evaluator)
    except InputError as error:
        return "input_error", f"{error} (on the node {platform.node()})"
    except Exception as error:  # submitit ends a job that it has requeued with SystemExit
        traceback.print_exc()
        return "raised", describe(error)


def _log(job: Any) -> str:
    """Return the last lines of the output of the job."""
    text = "".join(stream or "" for stream in (job.stdout(), job.stderr()))
    return "\n".join(text.splitlines()[-NUM_LOG_LINES:])
