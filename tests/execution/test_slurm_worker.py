"""Slurm workers, with submitit's local executor instead of Slurm."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Evaluator, Status, TrainingEvaluator
from nases_env.execution import SerialExecutor, Task, slurm_worker
from nases_env.execution.attempts import AttemptError
from nases_env.execution.pool import WorkerPoolExecutor
from nases_env.execution.slurm_worker import slurm_workers
from tests.execution.faulty import FaultyEvaluator, children
from tests.execution.forked import fork_jobs
from tests.execution.test_process_worker import is_gone

pytest.importorskip("submitit")

# submitit does not close the processes of its local executor.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected_garbage"),
]


@pytest.fixture(autouse=True)
def enable_interrupts() -> Iterator[None]:
    """Enable SIGINT, with which submitit stops local jobs; processes that a shell runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_jobs(monkeypatch)


def executor(
    evaluator: Evaluator, folder: Path, num_workers: int = 2, max_retries: int = 1, **options: Any
) -> WorkerPoolExecutor:
    workers = slurm_workers(evaluator, num_workers, folder=folder, options="timeout_min=5", cluster="local", **options)
    return WorkerPoolExecutor(evaluator, workers, max_retries=max_retries)


def result(evaluation: Evaluation) -> dict[str, Any]:
    return {**evaluation.to_dict(), "seconds": None, "device": None}


def test_results_equal_those_of_the_serial_executor_and_no_file_is_left(tmp_path: Path) -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")
    evaluator.prepare()
    (child,) = children(1, "enas_micro")
    jobs = executor(evaluator, tmp_path / "jobs")
    (folder,) = (tmp_path / "jobs").iterdir()
    (folder / ".submission_file_0.sh").symlink_to(folder / "0_submission.sh")  # as submitit's executor for Slurm leaves it
    future = jobs.submit(child, 0)
    here = SerialExecutor(evaluator).submit(child, 0)
    assert result(future.result(timeout=60)) == result(here.result())
    jobs.shutdown()
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.usefixtures("forked_jobs")
def test_failed_job_is_retried(tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "raise")
    evaluator.inject(1, "input_error")
    evaluator.inject(2, "raise", "raise")
    jobs = executor(evaluator, tmp_path / "jobs", num_workers=3)
    futures = [jobs.submit(child, seed) for seed, child in enumerate(children(3))]
    assert futures[0].result(timeout=60).status is Status.OK
    with pytest.raises(InputError, match=f"fix this first.* [(]on the node {platform.node()}[)]"):
        futures[1].result(timeout=60)
    failed = futures[2].result(timeout=60)
    assert failed.status is Status.FAILED
    assert failed.reason.startswith("raised ValueError: no such thing as this; see ")
    jobs.shutdown()
    assert any("no such thing" in path.read_text() for path in (tmp_path / "jobs").glob("*/*.err"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError("job 7 has no output\nlog of the job"), "job 7 has no output"), (RuntimeError(), "RuntimeError")],
)
def test_job_without_a_result_is_a_failed_attempt(error: Exception, expected: str) -> None:
    job = Mock(job_id="7", paths=Mock(stderr="7.err"))
    job.result.side_effect = error
    job.stdout.return_value, job.stderr.return_value = "line 1\n", None
    worker = slurm_worker.SlurmWorker(FaultyEvaluator(), Mock(submit=lambda *_: job, folder="jobs"), None, None)
    with pytest.raises(AttemptError) as caught:
        worker.evaluate(Task(children(1)[0], 0))
    assert caught.value.reason == f"its job 7 returned no result ({expected}); see 7.err"
    assert caught.value.log == "line 1"


def test_job_trains_on_the_device_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    task = Mock(run=lambda _: os.environ["CUDA_VISIBLE_DEVICES"])
    assert slurm_worker._evaluate(FaultyEvaluator(), task, None) == ("done", "0")
    assert slurm_worker._evaluate(FaultyEvaluator(), task, "cpu") == ("done", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kind, reason = slurm_worker._evaluate(FaultyEvaluator(), task, "cuda")
    assert kind == "input_error"
    assert reason.startswith(f"PyTorch {torch.__version__} finds no GPU on the node ")


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cpu", "", None),
        ("cuda", "", 1),
        ("cuda", ",gpus_per_node=2", 2),
        ("cuda", ",gres=gpu:a100:1", None),
        ("cuda", ",gpus_per_task=1", None),
        ("cuda", ",gres=license", 1),
    ],
)
def test_job_requests_one_gpu_by_default(device: str, options: str, expected: int | None, tmp_path: Path) -> None:
    """The machine of the search needs no GPU for the device cuda."""
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device=device)
    (worker,) = slurm_workers(evaluator, 1, folder=tmp_path, options=f"timeout_min=5{options}", cluster="local")
    assert worker._executor._executor.parameters.get("gpus_per_node") == expected
    assert worker._device_type == device


@pytest.mark.parametrize("option", ["gpus_per_node=1", "gpus_per_task=1", "gres=gpu:1"])
def test_gpus_for_children_on_the_cpu_are_refused(option: str, tmp_path: Path) -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")
    options = f"timeout_min=5,{option}"
    message = f"^{option.split('=')[0]} in slurm_options requests GPUs, .* is the CPU; omit it, or pass --device cuda"
    with pytest.raises(InputError, match=message):
        slurm_workers(evaluator, 1, folder=tmp_path, options=options, cluster="local")
    assert len(slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options=options, cluster="local")) == 1


def test_job_that_submitit_requeues_is_not_a_failed_attempt() -> None:
    """Submitit then ends the process with an exception, and the job returns its result later."""
    with pytest.raises(SystemExit):
        slurm_worker._evaluate(FaultyEvaluator(), Mock(run=Mock(side_effect=SystemExit(-1))), None)


def test_results_that_were_in_the_folder_before_are_not_read(tmp_path: Path) -> None:
    folders = []
    for _ in range(2):
        (worker,) = slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options="timeout_min=5", cluster="local")
        folders.append(Path(worker._executor.folder))
    assert folders[0] != folders[1]
    assert all(folder.parent == tmp_path and len(folder.name) == 32 for folder in folders)


def worker_that_submits(*outcomes: object) -> tuple[slurm_worker.SlurmWorker, Mock]:
    """Return a worker whose submissions have ``outcomes``, the last one again and again, and the function that submits."""
    submit = Mock(side_effect=itertools.chain(outcomes, itertools.repeat(outcomes[-1])))
    return slurm_worker.SlurmWorker(FaultyEvaluator(), Mock(submit=submit, folder="jobs"), None, None), submit


RESULT = Evaluation("key", 0, Status.OK)
OUTAGE = RuntimeError("sbatch: error: Batch job submission failed: Unable to contact slurm controller")


def test_submission_is_tried_again_during_a_short_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_worker, "POLL_SECONDS", 0.001)
    job = Mock(job_id="7")
    job.result.return_value = "done", RESULT
    worker, submit = worker_that_submits(OUTAGE, OUTAGE, OUTAGE, job)
    assert worker.evaluate(Task(children(1)[0], 0)) == RESULT
    assert submit.call_count == 4


@pytest.mark.parametrize(("error", "num_attempts"), [("Invalid partition name specified", 1), (OUTAGE.args[0], 3)])
def test_submission_that_keeps_failing_is_an_input_error(
    error: str, num_attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_worker, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(slurm_worker, "SUBMIT_SECONDS", 2.5)
    monkeypatch.setattr(slurm_worker, "time", SimpleNamespace(monotonic=itertools.count().__next__))  # a second per attempt
    worker, submit = worker_that_submits(RuntimeError(error))
    with pytest.raises(InputError, match=f"^cannot submit jobs to Slurm [(]{error}[)]; check sbatch and slurm_options"):
        worker.evaluate(Task(children(1)[0], 0))
    assert submit.call_count == num_attempts


@pytest.mark.parametrize("is_importable", [True, False])
def test_job_imports_modules_from_the_import_path_of_the_search(
    is_importable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    (tmp_path / "my_eval.py").write_text(
        "from tests.execution.faulty import FaultyEvaluator\n\nclass MyEvaluator(FaultyEvaluator):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    evaluator = importlib.import_module("my_eval").MyEvaluator(folder=str(tmp_path))

    def run_job(function: Any, *args: Any) -> Mock:
        sent = pickle.dumps(args)
        monkeypatch.delitem(sys.modules, "my_eval")
        monkeypatch.setattr(sys, "path", before)
        if not is_importable:
            (tmp_path / "my_eval.py").unlink()
            importlib.invalidate_caches()
        return Mock(job_id="7", result=lambda: function(*pickle.loads(sent)))

    worker = slurm_worker.SlurmWorker(evaluator, Mock(submit=run_job, folder=str(tmp_path)), None, None)
    if is_importable:
        assert worker.evaluate(Task(children(1)[0], 0)).status is Status.OK
    else:
        message = "a job cannot load the evaluator [(]ModuleNotFoundError: No module named 'my_eval'[)]"
        with pytest.raises(InputError, match=message):
            worker.evaluate(Task(children(1)[0], 0))


def test_evaluator_that_cannot_be_pickled_is_an_input_error(tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=threading.Lock())  # type: ignore[arg-type]
    worker = slurm_worker.SlurmWorker(evaluator, Mock(folder=str(tmp_path)), None, None)
    with pytest.raises(InputError, match=r"^the evaluator cannot be sent to a Slurm job .*; define its parts"):
        worker.evaluate(Task(children(1)[0], 0))


def test_cancel_ends_the_attempts_to_submit() -> None:
    worker, submit = worker_that_submits(OUTAGE)

    def fail_and_cancel(*_: object) -> None:
        worker.cancel()
        raise OUTAGE

    submit.side_effect = fail_and_cancel
    with pytest.raises(AttemptError, match=r"^canceled before its job was submitted$"):
        worker.evaluate(Task(children(1)[0], 0))


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.parametrize("time_limit", [1.0, None])
def test_job_is_canceled_at_the_time_limit_and_by_shutdown(time_limit: float | None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "sleep")
    jobs = executor(evaluator, tmp_path / "jobs", num_workers=1, max_retries=0, time_limit=time_limit)
    future = jobs.submit(children(1)[0], 0)
    pid_file = tmp_path / "0.pid"
    if time_limit is None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.05)
        jobs.shutdown()
        assert future.done()
        pid = int(pid_file.read_text())
        deadline = time.monotonic() + 60
        while not is_gone(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert is_gone(pid)
    else:
        assert future.result(timeout=60).status is Status.TIMED_OUT
        jobs.shutdown()


class ScheduledJob:
    """A job with a state at each second, which is also its queue. It writes its start file whenever it starts.

    The states are Q: in the queue, R: running, D: its result exists, F: failed, G: no longer known to Slurm.
    """

    job_id = "7"

    def __init__(self, states: str, squeue_works: bool) -> None:
        self.states, self.squeue_works = states, squeue_works
        self.second, self.is_canceled = 0, False
        self.paths = Mock(stderr="7.err", **{"result_pickle.exists": self.has_result})

    def submit(self, *args: Any) -> ScheduledJob:
        self.start_file = args[-1]
        return self

    def has_result(self) -> bool:
        self.second += 1
        before, now = self.states[self.second - 1], self.states[self.second]
        if now == "R" != before:
            self.start_file.touch()
            os.utime(self.start_file, (self.second, self.second))
        return now == "D"

    def state(self, job_id: str, max_age: float = 0) -> str | None:
        assert job_id == self.job_id
        known = {"Q": "PENDING", "R": "RUNNING", "F": "FAILED", "G": None}
        return known[self.states[self.second]] if self.squeue_works else "UNKNOWN"

    def stdout(self) -> str:
        return "printed\n"

    def stderr(self) -> None:
        return None

    def cancel(self, check: bool) -> None:
        self.is_canceled = True

    def result(self) -> tuple[str, Evaluation]:
        return "done", RESULT


@pytest.mark.parametrize(
    ("states", "squeue_works", "expected"),
    [
        ("QQQQQQQRRD", True, None),
        ("QQQQQQQRRD", False, None),
        ("QRRQQQQQQQRRD", True, None),  # preempted
        ("QQQQQQQRRRRRRD", True, 10),
        ("QQQQQQQRRRRRRD", False, 10),
        ("QRRQQQQQQQRRRRRRD", True, 13),
    ],
)
def test_time_limit_begins_whenever_the_job_starts(
    states: str, squeue_works: bool, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ScheduledJob(states, squeue_works)
    worker = worker_with(job, 3.0, tmp_path, monkeypatch)
    if expected is None:
        assert worker.evaluate(Task(children(1)[0], 0)) == RESULT
    else:
        with pytest.raises(AttemptError, match=r"^took longer than 3 s$") as caught:
            worker.evaluate(Task(children(1)[0], 0))
        assert (caught.value.status, job.second) == (Status.TIMED_OUT, expected)
    assert job.is_canceled == (expected is not None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("states", "squeue_works", "reason"),
    [
        ("QRFFFFF", True, "its job 7 ended without a result (FAILED); see 7.err"),
        ("QRRGGGGG", True, "its job 7 ended without a result; see 7.err"),
        ("GGGQQRD", True, None),  # the states were read before it was submitted
        ("GGGGGGGGD", True, None),  # it is in another cluster
        ("QRFFD", True, None),  # the result becomes visible later
        ("QRFQRD", True, None),  # requeued
        ("QRFFFFFD", False, None),
    ],
)
def test_job_that_ended_without_a_result_is_a_failed_attempt(
    states: str, squeue_works: bool, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ScheduledJob(states, squeue_works)
    monkeypatch.setattr(slurm_worker, "RESULT_SECONDS", 4.0)
    worker = worker_with(job, None, tmp_path, monkeypatch)
    if reason is None:
        assert worker.evaluate(Task(children(1)[0], 0)) == RESULT
        return
    with pytest.raises(AttemptError) as caught:
        worker.evaluate(Task(children(1)[0], 0))
    assert (caught.value.reason, caught.value.status, caught.value.log) == (reason, Status.FAILED, "printed")


def worker_with(
    job: ScheduledJob, time_limit: float | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> slurm_worker.SlurmWorker:
    """Return a worker that submits ``job`` and polls it once per second of its schedule."""
    monkeypatch.setattr(slurm_worker, "time", Mock(monotonic=lambda: job.second))
    monkeypatch.setattr(slurm_worker, "POLL_SECONDS", 0.0)
    executor: Any = Mock(submit=job.submit, folder=str(folder))
    return slurm_worker.SlurmWorker(FaultyEvaluator(), executor, time_limit, None, job)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("partition", "invalid option 'partition' in slurm_options"),
        ("=3", "invalid option '=3' in slurm_options"),
        ("timeout_min=x", "timeout_min in slurm_options must be a whole number, not x"),
        ("timeout_min=" + 5000 * "9", "timeout_min in slurm_options must be a whole number, not 999"),
        ("timeout_min=²", "timeout_min in slurm_options must be a whole number, not ²"),
        ("cpus_per_task=1.5", "cpus_per_task in slurm_options must be a whole number, not 1.5"),
        ("mem_gb=1e3", "mem_gb in slurm_options must be a number, not 1e3"),
        ("partition=gpu\ntouch stolen,timeout_min=5", "invalid option 'partition=gpu.ntouch stolen' in slurm_options"),
        ("partition=gpu", "Slurm needs a time limit for jobs in minutes"),
    ],
)
def test_invalid_options_are_input_errors(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options=options, cluster="local")
    assert "\n" not in str(caught.value)


def test_memory_may_be_a_decimal_number(tmp_path: Path) -> None:
    options = "timeout_min=5,mem_gb=1.5,partition=2.5"
    assert slurm_worker._parse(options) == {"timeout_min": 5, "mem_gb": 1.5, "slurm_partition": "2.5"}
    slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options=options, cluster="local")


@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is installed here")
def test_missing_slurm_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot use Slurm"):
        slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options="partition=gpu,timeout_min=120")
