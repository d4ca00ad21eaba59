"""Children as jobs: what Slurm does is done here by submitit's local executor."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Evaluator, Status, TrainingEvaluator
from nases_env.execution import SerialExecutor, Task
from nases_env.execution.pool import AttemptError, WorkerPoolExecutor
from nases_env.execution.slurm_worker import slurm_workers
from nases_env.search_spaces import Architecture, get_search_space
from tests.execution.faulty import FaultyEvaluator
from tests.execution.test_process_worker import is_gone

pytest.importorskip("submitit")

# submitit leaves the processes of its local executor to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def children(num_children: int, space: str = "nasbench201") -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [get_search_space(space).sample(rng) for _ in range(num_children)]


@pytest.fixture(autouse=True)
def jobs_hear_interrupts() -> Iterator[None]:
    """submitit ends a local job by SIGINT, which what a shell runs in the background ignores, and all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def executor(evaluator: Evaluator, folder: Path, num_workers: int = 2, **options: Any) -> WorkerPoolExecutor:
    workers = slurm_workers(evaluator, num_workers, folder=folder, options="timeout_min=5", cluster="local", **options)
    return WorkerPoolExecutor(evaluator, workers, max_retries=1)


def result(evaluation: Evaluation) -> dict[str, Any]:
    return {**evaluation.to_dict(), "seconds": None, "device": None}


def test_children_come_out_as_in_this_process_and_leave_nothing(tmp_path: Path) -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")
    evaluator.prepare()
    space = children(2, "enas_micro")
    jobs = executor(evaluator, tmp_path / "jobs")
    futures = [jobs.submit(child, 0) for child in space]
    here = SerialExecutor(evaluator)
    for child, future in zip(space, futures, strict=True):
        assert result(future.result(timeout=60)) == result(here.submit(child, 0).result())
    jobs.shutdown()
    assert list((tmp_path / "jobs").iterdir()) == []


def test_jobs_that_fail_are_tried_again(tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.break_at(0, "raise")
    evaluator.break_at(1, "mend")
    evaluator.break_at(2, "raise", "raise")
    jobs = executor(evaluator, tmp_path / "jobs", num_workers=3)
    futures = [jobs.submit(child, seed) for seed, child in enumerate(children(3))]
    assert futures[0].result(timeout=60).status is Status.OK
    with pytest.raises(InputError, match="mend this first"):
        futures[1].result(timeout=60)
    failed = futures[2].result(timeout=60)
    assert failed.status is Status.FAILED
    assert "brought no result" in failed.reason
    jobs.shutdown()
    assert any("no such thing" in path.read_text() for path in (tmp_path / "jobs").glob("*.err"))


def test_a_job_that_cannot_be_submitted_is_a_failed_attempt(tmp_path: Path) -> None:
    (worker,) = slurm_workers(FaultyEvaluator(), 1, folder=tmp_path / "jobs", options="timeout_min=5", cluster="local")
    (tmp_path / "jobs").rmdir()
    (tmp_path / "jobs").write_text("in the way")
    with pytest.raises(AttemptError, match="its job was not submitted"):
        worker.evaluate(Task(children(1)[0], 0))


@pytest.mark.parametrize("time_limit", [1.0, None])
def test_jobs_that_take_too_long_or_are_abandoned_end(time_limit: float | None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.break_at(0, "sleep", "sleep")
    jobs = executor(evaluator, tmp_path / "jobs", num_workers=1, time_limit=time_limit)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("partition", "slurm_options has 'partition'"),
        ("=3", "slurm_options has '=3'"),
        ("timeout_min=x", "cannot use Slurm"),
        ("partition=gpu", "say how many minutes a job may take"),
    ],
)
def test_wrong_options_are_one_line(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options=options, cluster="local")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is installed here")
def test_no_slurm_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot use Slurm"):
        slurm_workers(FaultyEvaluator(), 1, folder=tmp_path, options="partition=gpu,timeout_min=120")
