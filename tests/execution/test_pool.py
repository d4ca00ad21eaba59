"""Tries again, gives up, says when it is the machine, and ends at once; with workers that do as they are told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed, wait

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, OperatorShareEvaluator, Status
from nases_env.execution.executor import SerialExecutor, Task
from nases_env.execution.pool import MAX_FAILED_IN_A_ROW, AttemptError, Worker, WorkerPoolExecutor
from nases_env.search_spaces import get_search_space

EVALUATOR = OperatorShareEvaluator("nasbench201", "skip_connect")
SPACE = get_search_space("nasbench201")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]
FAILED, TIMED_OUT, OUT_OF_MEMORY = Status.FAILED, Status.TIMED_OUT, Status.OUT_OF_MEMORY
SECONDS = 30.0  # until a test that hangs fails


class ScriptedWorker(Worker):
    """Raises what the script has for a child's seed, one exception an attempt, and evaluates it afterwards."""

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


class HeldWorker(ScriptedWorker):
    """Holds every child until it is let go or abandoned."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.is_abandoned = False

    def evaluate(self, task: Task) -> Evaluation:
        self.has_begun.release()
        assert self.may_end.acquire(timeout=SECONDS)
        if self.is_abandoned:
            raise AttemptError("abandoned")
        return super().evaluate(task)

    def cancel(self) -> None:
        self.is_abandoned = True
        self.may_end.release()


Supervise = Callable[..., WorkerPoolExecutor]


@pytest.fixture
def supervise() -> Iterator[Supervise]:
    """Makes executors that are shut down in the end."""
    executors = []

    def make(*workers: Worker, max_retries: int = 2) -> WorkerPoolExecutor:
        executors.append(WorkerPoolExecutor(EVALUATOR, workers, max_retries=max_retries))
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


def test_children_are_taken_in_order_and_evaluated_as_elsewhere(supervise: Supervise) -> None:
    worker = ScriptedWorker()
    executor = supervise(worker)
    assert executor.in_background
    futures = [submit(executor, seed) for seed in range(20)]
    serial = SerialExecutor(EVALUATOR)
    for seed, future in enumerate(futures):
        assert future.result(timeout=SECONDS) == serial.submit(ARCHITECTURES[seed], seed).result()
    assert worker.evaluated == list(range(20))


def test_workers_work_side_by_side(supervise: Supervise) -> None:
    first, second = HeldWorker(), HeldWorker()
    executor = supervise(first, second)
    futures = [submit(executor, seed) for seed in range(2)]
    assert first.has_begun.acquire(timeout=SECONDS)
    assert second.has_begun.acquire(timeout=SECONDS)
    assert all(future.running() for future in futures)
    second.may_end.release()
    done, pending = wait(futures, timeout=SECONDS, return_when=FIRST_COMPLETED)
    assert len(done) == len(pending) == 1
    first.may_end.release()
    assert set(as_completed(futures, timeout=SECONDS)) == set(futures)


def test_an_attempt_that_fails_is_repeated_and_told_of(supervise: Supervise, caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker({0: failures(FAILED, TIMED_OUT)})
    executor = supervise(worker)
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
def test_only_a_limit_met_in_every_attempt_is_the_childs(
    supervise: Supervise, attempts: list[Status], status: Status
) -> None:
    evaluation = result(supervise(ScriptedWorker({1: failures(*attempts)})), 1)
    assert (evaluation.key, evaluation.seed, evaluation.status) == (ARCHITECTURES[1].key, 1, status)
    assert evaluation.reward == 0
    assert evaluation.reason == "; ".join(dict.fromkeys(f"reason {attempt.value}" for attempt in attempts))


def test_without_retries_one_attempt_decides_and_its_reason_is_one_line(supervise: Supervise) -> None:
    worker = ScriptedWorker({1: [AttemptError("two\nlines")]})
    evaluation = result(supervise(worker, max_retries=0), 1)
    assert evaluation.reason == "two lines"
    assert worker.evaluated == [1]


def test_children_that_fail_in_a_row_stop_the_search(supervise: Supervise) -> None:
    def fail() -> list[BaseException]:
        return [AttemptError("raised OSError", log="Traceback\n\n  line 1\nOSError:\n no disk")]

    script = {seed: fail() for seed in (0, 1, 3, 4, 6, 7, 9)} | {5: failures(TIMED_OUT)}
    executor = supervise(ScriptedWorker(script), max_retries=0)
    # A success begins the row anew, a child that met a limit does not.
    statuses = [result(executor, seed).status for seed in range(6)]
    assert statuses == [FAILED, FAILED, Status.OK, FAILED, FAILED, TIMED_OUT]
    assert MAX_FAILED_IN_A_ROW == 3
    for seed, count in ((6, 3), (7, 4)):
        with pytest.raises(InputError) as caught:
            result(executor, seed)
        assert str(caught.value) == (
            f"{count} children in a row failed in every attempt, the last one: raised OSError; "
            "its log ends: line 1 OSError: no disk; mend it and go on with --resume"
        )
    assert result(executor, 8).status is Status.OK
    assert result(executor, 9).status is FAILED


@pytest.mark.parametrize("error", [InputError("mend it"), RuntimeError("a bug"), SystemExit(1)])
def test_what_else_a_worker_raises_goes_to_the_future(supervise: Supervise, error: BaseException) -> None:
    worker = ScriptedWorker({0: [error]})
    executor = supervise(worker)
    assert submit(executor, 0).exception(timeout=SECONDS) is error
    assert result(executor, 1).status is Status.OK
    assert worker.evaluated == [0, 1]


def test_a_child_that_waits_can_be_cancelled(supervise: Supervise) -> None:
    worker = HeldWorker()
    executor = supervise(worker)
    futures = [submit(executor, seed) for seed in range(3)]
    assert worker.has_begun.acquire(timeout=SECONDS)
    assert not futures[0].cancel()
    assert futures[1].cancel()
    worker.may_end.release(2)
    done, _ = wait(futures, timeout=SECONDS)
    assert done == set(futures)
    assert worker.evaluated == [0, 2]


def test_shutdown_abandons_what_is_under_way_and_cancels_the_rest(supervise: Supervise) -> None:
    workers = [HeldWorker(), HeldWorker()]
    executor = supervise(*workers)
    before = threading.active_count()
    futures = [submit(executor, seed) for seed in range(5)]
    cancelled = futures[3].cancel()
    for worker in workers:
        assert worker.has_begun.acquire(timeout=SECONDS)
    executor.shutdown()
    executor.shutdown()
    assert threading.active_count() == before - 2
    assert [worker.num_closed for worker in workers] == [1, 1]
    done, _ = wait(futures, timeout=SECONDS)
    assert done == set(futures)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result()
    assert cancelled
    assert all(future.cancelled() for future in futures[2:])
    late = submit(executor, 6)
    assert wait([late], timeout=SECONDS).done
    assert late.cancelled()


def test_shutdown_ends_a_child_that_begins_after_it_was_abandoned(supervise: Supervise) -> None:
    class LateWorker(HeldWorker):
        """Is abandoned before it has begun, when there is nothing to end yet."""

        def __init__(self) -> None:
            super().__init__()
            self.was_abandoned = threading.Event()

        def evaluate(self, task: Task) -> Evaluation:
            self.has_begun.release()
            assert self.was_abandoned.wait(timeout=SECONDS)
            return super().evaluate(task)

        def cancel(self) -> None:
            if self.was_abandoned.is_set():
                super().cancel()
            self.was_abandoned.set()

    worker = LateWorker()
    executor = supervise(worker)
    future = submit(executor, 0)
    assert worker.has_begun.acquire(timeout=SECONDS)
    executor.shutdown()
    assert isinstance(future.exception(timeout=0), CancelledError)


def test_a_supervisor_wants_workers() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        WorkerPoolExecutor(EVALUATOR, [])
