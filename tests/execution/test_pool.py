"""The worker pool: order, retries, consecutive failures and shutdown, with scripted workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed, wait
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from nases_env.devices import device_type
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, OperatorShareEvaluator, Status
from nases_env.evaluation.nasbench201_costs import NasBench201CostEvaluator
from nases_env.execution.attempts import MAX_CONSECUTIVE_FAILURES, AttemptError
from nases_env.execution.executor import Task
from nases_env.execution.pool import Worker, WorkerPoolExecutor
from nases_env.execution.serial import SerialExecutor
from nases_env.search_spaces import get_search_space
from tests.execution.test_caching import until

EVALUATOR = OperatorShareEvaluator("nasbench201", "skip_connect")
SPACE = get_search_space("nasbench201")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]
FAILED, TIMED_OUT, OUT_OF_MEMORY = Status.FAILED, Status.TIMED_OUT, Status.OUT_OF_MEMORY
SECONDS = 30.0  # timeout of a test that hangs


@dataclass(frozen=True)
class OnDevice(OperatorShareEvaluator):
    """Has a device, as the evaluator that trains children does."""

    device: str
    is_expensive: ClassVar[bool] = True


class ScriptedWorker(Worker):
    """Raises the exceptions that the script has for the seed of a child, one per attempt, and then evaluates it."""

    def __init__(self, script: dict[int, list[BaseException]] | None = None) -> None:
        self.script = script or {}
        self.evaluated: list[int] = []
        self.num_closed = 0

    def evaluate(self, task: Task) -> Evaluation:
        self.evaluated.append(task.seed)
        if self.script.get(task.seed):
            raise self.script[task.seed].pop(0)
        return EVALUATOR.evaluate(task.architecture, task.seed)

    def close(self) -> None:
        self.num_closed += 1


class BlockedWorker(ScriptedWorker):
    """Blocks every evaluation until ``may_end`` is released or the evaluation is canceled."""

    def __init__(self) -> None:
        super().__init__()
        self.has_started = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.is_canceled = False

    def evaluate(self, task: Task) -> Evaluation:
        self.has_started.release()
        assert self.may_end.acquire(timeout=SECONDS)
        if self.is_canceled:
            raise AttemptError("canceled")
        return super().evaluate(task)

    def cancel(self) -> None:
        self.is_canceled = True
        self.may_end.release()


MakeExecutor = Callable[..., WorkerPoolExecutor]


@pytest.fixture
def make_executor() -> Iterator[MakeExecutor]:
    """Create executors, which are shut down after the test."""
    executors = []

    def make(*workers: Worker, max_retries: int = 2, gpu_wait_seconds: float = 0.0) -> WorkerPoolExecutor:
        executors.append(WorkerPoolExecutor(EVALUATOR, workers, max_retries=max_retries, gpu_wait_seconds=gpu_wait_seconds))
        return executors[-1]

    yield make
    for executor in executors:
        executor.shutdown()


def submit(executor: WorkerPoolExecutor, seed: int) -> Future[Evaluation]:
    return executor.submit(ARCHITECTURES[seed], seed)


def result(executor: WorkerPoolExecutor, seed: int) -> Evaluation:
    return submit(executor, seed).result(timeout=SECONDS)


def failures(*statuses: Status) -> list[BaseException]:
    return [AttemptError(f"reason {status.value}", status=status) for status in statuses]


def test_children_are_evaluated_in_order_as_by_the_serial_executor(make_executor: MakeExecutor) -> None:
    worker = ScriptedWorker()
    executor = make_executor(worker)
    assert executor.in_background
    futures = [submit(executor, seed) for seed in range(20)]
    serial = SerialExecutor(EVALUATOR)
    for seed, future in enumerate(futures):
        assert future.result(timeout=SECONDS) == serial.submit(ARCHITECTURES[seed], seed).result()
    assert worker.evaluated == list(range(20))


def test_workers_run_in_parallel(make_executor: MakeExecutor) -> None:
    first, second = BlockedWorker(), BlockedWorker()
    executor = make_executor(first, second)
    futures = [submit(executor, seed) for seed in range(2)]
    assert first.has_started.acquire(timeout=SECONDS)
    assert second.has_started.acquire(timeout=SECONDS)
    assert all(future.running() for future in futures)
    second.may_end.release()
    done, pending = wait(futures, timeout=SECONDS, return_when=FIRST_COMPLETED)
    assert len(done) == len(pending) == 1
    first.may_end.release()
    assert set(as_completed(futures, timeout=SECONDS)) == set(futures)


def test_failed_attempt_is_retried_and_logged(make_executor: MakeExecutor, caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker({0: failures(FAILED, TIMED_OUT)})
    executor = make_executor(worker)
    with caplog.at_level(logging.WARNING):
        assert result(executor, 0) == EVALUATOR.evaluate(ARCHITECTURES[0], 0)
    assert worker.evaluated == [0, 0, 0]
    name = Task(ARCHITECTURES[0], 0).name
    assert [record.getMessage() for record in caplog.records] == [
        f"child {name}, attempt 1 of 3: reason failed",
        f"child {name}, attempt 2 of 3: reason timed_out",
    ]


@pytest.mark.parametrize(
    ("attempts", "status"),
    [
        ([FAILED, FAILED, FAILED], FAILED),
        ([TIMED_OUT, TIMED_OUT, TIMED_OUT], TIMED_OUT),
        ([OUT_OF_MEMORY, OUT_OF_MEMORY, OUT_OF_MEMORY], OUT_OF_MEMORY),
        ([TIMED_OUT, TIMED_OUT, FAILED], FAILED),
        ([FAILED, OUT_OF_MEMORY, OUT_OF_MEMORY], FAILED),
        ([TIMED_OUT, OUT_OF_MEMORY, TIMED_OUT], FAILED),
    ],
)
def test_status_is_a_limit_only_if_every_attempt_exceeds_it(
    make_executor: MakeExecutor, attempts: list[Status], status: Status
) -> None:
    evaluation = result(make_executor(ScriptedWorker({1: failures(*attempts)})), 1)
    assert (evaluation.key, evaluation.seed, evaluation.status) == (ARCHITECTURES[1].key, 1, status)
    assert evaluation.reward == 0
    assert evaluation.reason == "; ".join(dict.fromkeys(f"reason {attempt.value}" for attempt in attempts))


class FullGpu(ScriptedWorker):
    """Returns trainings that ran out of GPU memory, and then evaluates the child."""

    def __init__(self, num_failures: int) -> None:
        super().__init__()
        self.num_failures = num_failures

    def evaluate(self, task: Task) -> Evaluation:
        evaluation = super().evaluate(task)
        if len(self.evaluated) > self.num_failures:
            return evaluation
        return Evaluation(evaluation.key, evaluation.seed, OUT_OF_MEMORY, num_params=7, seconds=1.0)


def test_training_that_runs_out_of_gpu_memory_is_retried(make_executor: MakeExecutor) -> None:
    """Another process may have used the memory."""
    worker = FullGpu(2)
    assert result(make_executor(worker), 1).status is Status.OK
    assert len(worker.evaluated) == 3


def test_child_that_is_too_large_for_the_gpu_has_failed(make_executor: MakeExecutor) -> None:
    """Whether the child or another process uses the memory is not known, so the result is not kept."""
    worker = FullGpu(3)
    executor = make_executor(worker)
    evaluation = result(executor, 1)
    assert (evaluation.status, evaluation.reason, evaluation.num_params) == (FAILED, "the GPU is out of memory", 7)
    assert len(worker.evaluated) == 3
    assert result(executor, 2).status is Status.OK, "the search continues"


def test_gpu_that_remains_full_stops_the_search(make_executor: MakeExecutor) -> None:
    executor = make_executor(FullGpu(99))
    assert [result(executor, seed).status for seed in range(2)] == [FAILED, FAILED]
    with pytest.raises(InputError) as caught:
        result(executor, 2)
    assert str(caught.value) == (
        "3 consecutive children failed in every attempt, the last one: the GPU is out of memory; free its memory and start "
        "again; resume a search with --resume, or start a new one with a smaller preset, batch_size or num_filters"
    )


def test_shutdown_interrupts_the_wait_for_gpu_memory(make_executor: MakeExecutor) -> None:
    worker = FullGpu(99)
    executor = make_executor(worker, gpu_wait_seconds=2 * SECONDS)
    future = submit(executor, 0)
    until(lambda: worker.evaluated)
    executor.shutdown()
    assert isinstance(future.exception(timeout=0), CancelledError)
    assert worker.evaluated == [0]


class BadGpu(ScriptedWorker):
    """Fails every attempt, as the worker of a GPU that is defective or that another process uses."""

    def __init__(self, gpu: str) -> None:
        super().__init__()
        self.gpu = gpu

    def evaluate(self, task: Task) -> Evaluation:
        self.evaluated.append(task.seed)
        raise AttemptError("raised AcceleratorError: CUDA error: unknown error")


def test_bad_gpu_is_not_used_any_more(make_executor: MakeExecutor, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = BlockedWorker(), BadGpu("1")
    good.gpu = "0"
    executor = make_executor(good, bad)
    with caplog.at_level(logging.WARNING):
        futures = [submit(executor, seed) for seed in range(6)]
        until(lambda: len(bad.evaluated) >= 5)  # once each, except for the one that the other worker has
        good.may_end.release(99)
        assert [future.result(timeout=SECONDS) for future in futures] == [
            EVALUATOR.evaluate(ARCHITECTURES[seed], seed) for seed in range(6)
        ]
        until(lambda: bad.num_closed)
        assert result(executor, 7).status is Status.OK
    assert len(bad.evaluated) == len(set(bad.evaluated)) <= 6
    assert sorted(good.evaluated) == [0, 1, 2, 3, 4, 5, 7]
    messages = [record.getMessage() for record in caplog.records if "any more" in record.getMessage()]
    assert messages == ["GPU 1 is not used any more: 3 children in a row failed on it and succeeded on another one"]


def test_gpus_that_all_fail_stop_the_search(make_executor: MakeExecutor) -> None:
    workers = [BadGpu("0"), BadGpu("1"), BadGpu("2")]
    executor = make_executor(*workers)
    assert [result(executor, seed).status for seed in range(2)] == [FAILED, FAILED]
    with pytest.raises(InputError, match="3 consecutive children failed"):
        result(executor, 2)
    assert [sorted(worker.evaluated) for worker in workers] == [[0, 1, 2]] * 3


def test_children_that_fail_on_every_gpu_do_not_exclude_one(make_executor: MakeExecutor) -> None:
    script = {seed: failures(FAILED, FAILED, FAILED) for seed in range(0, 12, 2)}
    workers = [ScriptedWorker(script), ScriptedWorker(script)]
    for gpu, worker in enumerate(workers):
        worker.gpu = str(gpu)
    executor = make_executor(*workers)
    statuses = [result(executor, seed).status for seed in range(12)]
    assert statuses == [FAILED, Status.OK] * 6
    assert [worker.num_closed for worker in workers] == [0, 0]
    for seed in range(0, 12, 2):
        assert {seed} <= set(workers[0].evaluated) & set(workers[1].evaluated), "retried on the other GPU"


def test_shutdown_cancels_a_child_that_another_gpu_is_to_retry(make_executor: MakeExecutor) -> None:
    good, bad = BlockedWorker(), BadGpu("1")
    good.gpu = "0"
    executor = make_executor(good, bad)
    futures = [submit(executor, seed) for seed in range(3)]
    assert good.has_started.acquire(timeout=SECONDS)
    until(lambda: len(bad.evaluated) >= 2)
    executor.shutdown()
    for future in futures:
        assert isinstance(future.exception(timeout=0), CancelledError)


def test_without_retries_one_attempt_decides_and_reason_is_one_line(make_executor: MakeExecutor) -> None:
    worker = ScriptedWorker({1: [AttemptError("two\nlines")]})
    evaluation = result(make_executor(worker, max_retries=0), 1)
    assert evaluation.reason == "two lines"
    assert worker.evaluated == [1]


@pytest.mark.parametrize(
    ("evaluator", "device"),
    [
        (EVALUATOR, "cpu"),
        (OnDevice("nasbench201", "skip_connect", "cuda:1"), "cuda:1"),
        (OnDevice("nasbench201", "skip_connect", "auto"), device_type("auto")),
        (NasBench201CostEvaluator(device="ms_pixel3"), "cpu"),  # a column of the table
        (NasBench201CostEvaluator(), "cpu"),
    ],
)
def test_failed_evaluation_names_the_device_of_the_evaluator(evaluator: Evaluator, device: str) -> None:
    executor = WorkerPoolExecutor(evaluator, [ScriptedWorker({1: failures(TIMED_OUT)})], max_retries=0)
    try:
        assert result(executor, 1).device == device
    finally:
        executor.shutdown()


def test_error_without_a_log_does_not_name_one(make_executor: MakeExecutor) -> None:
    executor = make_executor(ScriptedWorker({seed: failures(FAILED) for seed in range(3)}), max_retries=0)
    for seed in range(2):
        result(executor, seed)
    with pytest.raises(InputError, match=r"the last one: reason failed; fix the cause and start again"):
        result(executor, 2)


def test_consecutive_failures_raise_input_error(make_executor: MakeExecutor) -> None:
    def fail() -> list[BaseException]:
        return [AttemptError("raised OSError", log="Traceback\n\n  line 1\nOSError:\n no disk")]

    script = {seed: fail() for seed in (0, 1, 3, 4, 6, 7, 9)} | {5: failures(TIMED_OUT)}
    executor = make_executor(ScriptedWorker(script), max_retries=0)
    # A success resets the count; a child that exceeds a limit does not.
    statuses = [result(executor, seed).status for seed in range(6)]
    assert statuses == [FAILED, FAILED, Status.OK, FAILED, FAILED, TIMED_OUT]
    assert MAX_CONSECUTIVE_FAILURES == 3
    for seed, count in ((6, 3), (7, 4)):
        with pytest.raises(InputError) as caught:
            result(executor, seed)
        assert str(caught.value) == (
            f"{count} consecutive children failed in every attempt, the last one: raised OSError; "
            "end of its log: line 1 OSError: no disk; fix the cause and start again; resume a search with --resume"
        )
    assert result(executor, 8).status is Status.OK
    assert result(executor, 9).status is FAILED


@pytest.mark.parametrize("error", [InputError("fix it"), RuntimeError("a bug"), SystemExit(1)])
def test_other_exceptions_are_raised_by_the_future(make_executor: MakeExecutor, error: BaseException) -> None:
    worker = ScriptedWorker({0: [error]})
    executor = make_executor(worker)
    assert submit(executor, 0).exception(timeout=SECONDS) is error
    assert result(executor, 1).status is Status.OK
    assert worker.evaluated == [0, 1]


def test_waiting_child_can_be_canceled(make_executor: MakeExecutor) -> None:
    worker = BlockedWorker()
    executor = make_executor(worker)
    futures = [submit(executor, seed) for seed in range(3)]
    assert worker.has_started.acquire(timeout=SECONDS)
    assert not futures[0].cancel()
    assert futures[1].cancel()
    worker.may_end.release(2)
    done, _ = wait(futures, timeout=SECONDS)
    assert done == set(futures)
    assert worker.evaluated == [0, 2]


def test_shutdown_cancels_running_and_waiting_children(make_executor: MakeExecutor) -> None:
    workers = [BlockedWorker(), BlockedWorker()]
    executor = make_executor(*workers)
    before = threading.active_count()
    futures = [submit(executor, seed) for seed in range(5)]
    canceled = futures[3].cancel()
    for worker in workers:
        assert worker.has_started.acquire(timeout=SECONDS)
    executor.shutdown()
    executor.shutdown()
    assert threading.active_count() == before - 2
    assert [worker.num_closed for worker in workers] == [1, 1]
    done, _ = wait(futures, timeout=SECONDS)
    assert done == set(futures)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result()
    assert canceled
    assert all(future.cancelled() for future in futures[2:])
    late = submit(executor, 6)
    assert wait([late], timeout=SECONDS).done
    assert late.cancelled()


def test_shutdown_cancels_a_child_that_starts_after_the_first_cancel(make_executor: MakeExecutor) -> None:
    class LateWorker(BlockedWorker):
        """Starts its evaluation after the first call of ``cancel``, which therefore has no effect."""

        def __init__(self) -> None:
            super().__init__()
            self.cancel_was_called = threading.Event()

        def evaluate(self, task: Task) -> Evaluation:
            self.has_started.release()
            assert self.cancel_was_called.wait(timeout=SECONDS)
            return super().evaluate(task)

        def cancel(self) -> None:
            if self.cancel_was_called.is_set():
                super().cancel()
            self.cancel_was_called.set()

    worker = LateWorker()
    executor = make_executor(worker)
    future = submit(executor, 0)
    assert worker.has_started.acquire(timeout=SECONDS)
    executor.shutdown()
    assert isinstance(future.exception(timeout=0), CancelledError)


def test_executor_without_workers_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        WorkerPoolExecutor(EVALUATOR, [])
