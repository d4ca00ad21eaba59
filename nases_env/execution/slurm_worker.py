"""Workers that are jobs of Slurm, by way of submitit."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

from nases_env.devices import resolve_device
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Task
from nases_env.execution.pool import AttemptError, Worker

POLL_SECONDS = 1.0
NUM_LOG_LINES = 20
SPARE_MINUTES = 10  # that Slurm gives a job beyond time_limit, to load what it needs
OWN_OPTIONS = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")  # submitit's names, the same for every cluster


class SlurmWorker(Worker):
    """Evaluates one child at a time as a job.

    Args:
        evaluator: is pickled for the job.
        executor: submitit's.
        time_limit: seconds that a job may run; None: as long as Slurm lets it.
    """

    def __init__(self, evaluator: Evaluator, executor: Any, time_limit: float | None) -> None:
        self._evaluator = evaluator
        self._executor = executor
        self._time_limit = time_limit
        self._is_abandoned = threading.Event()

    def evaluate(self, task: Task) -> Evaluation:
        self._is_abandoned.clear()
        try:
            job = self._executor.submit(_evaluate, self._evaluator, task)
        except Exception as error:  # sbatch says no, or cannot say anything
            raise AttemptError(f"its job was not submitted ({one_line(error)})") from error
        self._wait(job)
        try:
            kind, value = job.result()
        except Exception as error:  # submitit raises many kinds
            log = _log(job)
            reason = f"its job {job.job_id} brought no result ({str(error).splitlines()[0]}); see {job.paths.stderr}"
            raise AttemptError(reason, log=log) from error
        for path in Path(self._executor.folder).glob(f"{job.job_id}_*"):
            path.unlink(missing_ok=True)
        if kind == "input_error":
            raise InputError(value)
        evaluation: Evaluation = value
        return evaluation

    def _wait(self, job: Any) -> None:
        """Until the job has ended; one that is abandoned or runs for too long is cancelled."""
        deadline: float | None = None
        while not job.paths.result_pickle.exists() and not job.done():
            if self._is_abandoned.wait(POLL_SECONDS):
                job.cancel(check=False)
                raise AttemptError(f"its job {job.job_id} was cancelled")
            if self._time_limit is None:
                continue
            if deadline is None and job.state == "RUNNING":
                deadline = time.monotonic() + self._time_limit
            if deadline is not None and time.monotonic() >= deadline:
                job.cancel(check=False)
                raise AttemptError(f"took longer than {self._time_limit:g} s", status=Status.TIMED_OUT)

    def cancel(self) -> None:
        self._is_abandoned.set()


def slurm_workers(
    evaluator: Evaluator,
    num_workers: int,
    *,
    folder: Path,
    options: str | None,
    time_limit: float | None = None,
    cluster: str = "slurm",
) -> list[SlurmWorker]:
    """``num_workers`` workers, each with one job at a time.

    Args:
        evaluator: is prepared; a job has ``evaluator.num_threads`` CPUs, and a GPU where children are trained on GPUs.
        folder: for the jobs' files, on a file system that all nodes share.
        options: ``NAME=VALUE,NAME=VALUE``: submitit's own (``timeout_min``, ``mem_gb``, ``cpus_per_task``,
            ``gpus_per_node``), or those of sbatch.
        time_limit: seconds that a job may run once it has begun; None: as long as Slurm lets it.
        cluster: submitit's name of where jobs run.

    Raises:
        InputError: if submitit or Slurm is not installed, an option is wrong, or neither ``time_limit`` nor an option says
            how long a job may take (submitit would say 5 minutes).
    """
    try:
        import submitit
    except ImportError:
        raise InputError("the executor slurm needs submitit; install it by: pip install 'nases-env[slurm]'") from None
    parameters: dict[str, Any] = {"cpus_per_task": getattr(evaluator, "num_threads", 1)}
    if resolve_device(getattr(evaluator, "device", "cpu")).type == "cuda":
        parameters["gpus_per_node"] = 1
    if time_limit is not None:
        parameters["timeout_min"] = math.ceil(time_limit / 60) + SPARE_MINUTES
    parameters |= _parse(options)
    if not {"timeout_min", "slurm_time"} & parameters.keys():
        raise InputError("say how many minutes a job may take, which Slurm has to know: --slurm-options timeout_min=120")
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
        executor.update_parameters(name="nases", **parameters)
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"cannot use Slurm ({one_line(error)}); run this where sbatch is, and see --slurm-options"
        ) from None
    return [SlurmWorker(evaluator, executor, time_limit) for _ in range(num_workers)]


def _parse(options: str | None) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for option in filter(None, (options or "").split(",")):
        name, equals, value = option.partition("=")
        if not (equals and name.isidentifier() and value):
            raise InputError(f"slurm_options has {option!r}; give NAME=VALUE,NAME=VALUE: partition=gpu,timeout_min=120")
        parsed[name if name in OWN_OPTIONS else f"slurm_{name}"] = int(value) if value.isdigit() else value
    return parsed


def _evaluate(evaluator: Evaluator, task: Task) -> tuple[str, Any]:
    """What runs in the job."""
    try:
        return "done", evaluator.evaluate(task.architecture, task.seed)
    except InputError as error:
        return "input_error", str(error)


def _log(job: Any) -> str:
    """The last lines of what the job wrote."""
    text = "".join(stream or "" for stream in (job.stdout(), job.stderr()))
    return "\n".join(text.splitlines()[-NUM_LOG_LINES:])
