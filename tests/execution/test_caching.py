"""The caching executor: in memory, with a store, and with other searches that share the store."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.attempts import AttemptError
from nases_env.execution.caching import CachingExecutor
from nases_env.execution.executor import Executor, Task
from nases_env.execution.pool import Worker, WorkerPoolExecutor
from nases_env.execution.serial import SerialExecutor
from nases_env.execution.store import Store
from nases_env.search_spaces import Architecture, get_search_space
from tests.interrupts import interrupted_after
from tests.processes import processes

SPACE = get_search_space("nasbench201")


class Accuracies(Evaluator):
    """Returns a different accuracy for each seed, or the result of ``outcome``; ``seen`` lists the evaluated seeds."""

    search_space = "nasbench201"

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.may_end = threading.Event()
        self.may_end.set()
        self.outcome: Callable[[], Evaluation] | None = None

    def describe(self) -> dict[str, Any]:
        return {"evaluator": "accuracies"}

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        self.seen.append(seed)
        assert self.may_end.wait(30)
        if self.outcome is not None:
            return self.outcome()
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=seed / 1000)


class AtRungs(Accuracies):
    """``Accuracies`` with rungs."""

    rungs = (1, 3)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self.describe_rungs()}

    def at_fidelity(self, fidelity: int) -> Evaluator:
        found = copy.copy(self)
        found.fidelity = fidelity
        return found


class InThread(Worker):
    """Evaluates in the thread of the executor."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def evaluate(self, task: Task) -> Evaluation:
        return self.evaluator.evaluate(task.architecture, task.seed)

    def cancel(self) -> None:
        if isinstance(self.evaluator, Accuracies):
            self.evaluator.outcome = self._raise_canceled
            self.evaluator.may_end.set()

    def _raise_canceled(self) -> Evaluation:
        raise AttemptError("canceled")


def architecture(seed: int) -> Architecture:
    return SPACE.architecture([seed // 5**place % 5 for place in range(SPACE.num_decisions)])


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


@pytest.fixture
def evaluator() -> Accuracies:
    return Accuracies()


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., CachingExecutor]]:
    made: list[CachingExecutor] = []

    def make(evaluator: Evaluator, *, background: bool, num_workers: int = 1, **options: float) -> CachingExecutor:
        inner: Executor = (
            WorkerPoolExecutor(evaluator, [InThread(evaluator) for _ in range(num_workers)], max_retries=0)
            if background
            else SerialExecutor(evaluator, gpu_wait_seconds=0.0)
        )
        made.append(CachingExecutor(inner, Store(path), SPACE.to_json, **{"poll_seconds": 0.01, **options}))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown()


@pytest.fixture
def other(path: Path) -> Iterator[Store]:
    """Open the store as another search would."""
    with Store(path) as store:
        yield store


def name(seed: int, evaluator: Evaluator) -> tuple[str, str, int]:
    return architecture(seed).key, evaluator.digest(), seed


def found_in(child: int, seed: int) -> Evaluation:
    return Evaluation(architecture(child).key, seed, Status.OK, valid_accuracy=seed / 1000)


def found(seed: int, accuracy: float) -> Evaluation:
    return Evaluation(architecture(seed).key, seed, Status.OK, valid_accuracy=accuracy)


@pytest.mark.parametrize("background", [False, True])
class TestSerialAndBackground:
    def test_known_child_is_not_evaluated_again(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, path: Path, background: bool
    ) -> None:
        executor = make(evaluator, background=background)
        assert executor.in_background is background
        results = [executor.submit(architecture(seed), seed).result(30) for seed in (1, 2, 1)]
        assert [result.valid_accuracy for result in results] == [0.001, 0.002, 0.001]
        assert executor.num_from_store == 0
        assert evaluator.seen == [1, 2]
        executor.shutdown()
        again = make(Accuracies(), background=background)
        assert again.submit(architecture(2), 2).result(30) == results[1]
        assert (again.num_from_store, again.evaluator.seen) == (1, [])  # type: ignore[attr-defined]
        with Store(path, read_only=True) as store:
            ((digest, text),) = store.configurations().items()
            assert json.loads(text) == {"evaluator": "accuracies"}
            assert hashlib.sha256(text.encode()).hexdigest() == digest == evaluator.digest()
            assert [SPACE.from_json(row["genotype"]).key for row in store.rows()] == [row["key"] for row in store.rows()]

    def test_result_is_stored_before_the_future_is_completed(
        self,
        make: Callable[..., CachingExecutor],
        evaluator: Accuracies,
        other: Store,
        background: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        kept: list[object] = []

        class Watched(Future[Evaluation]):
            def set_result(self, result: Evaluation) -> None:
                kept.append((other.get(*name(1, evaluator)), other.leases()))
                super().set_result(result)

        monkeypatch.setattr("nases_env.execution.caching.Future", Watched)
        future = make(evaluator, background=background).submit(architecture(1), 1)
        assert future.result(30) == found(1, 0.001)
        assert kept == [(found(1, 0.001), [])]

    def test_failed_evaluation_is_not_stored(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, background: bool
    ) -> None:
        executor = make(evaluator, background=background)
        failed = Evaluation(architecture(1).key, 1, Status.FAILED, reason="the worker was killed")
        evaluator.outcome = lambda: failed
        assert executor.submit(architecture(1), 1).result(30) == failed
        assert (other.count(), other.leases()) == (0, [])
        evaluator.outcome = None
        assert executor.submit(architecture(1), 1).result(30) == failed, "the same search does not retry it"
        executor.shutdown()
        assert evaluator.seen == [1]
        again = make(Accuracies(), background=background)
        assert again.submit(architecture(1), 1).result(30) == found(1, 0.001), "another search does"

    def test_result_without_enough_gpu_memory_is_not_stored(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, background: bool
    ) -> None:
        """Another process may have used the memory, and the store does not depend on the GPU."""
        executor = make(evaluator, background=background)
        evaluator.outcome = lambda: Evaluation(architecture(1).key, 1, Status.OUT_OF_MEMORY, device="cuda")
        assert executor.submit(architecture(1), 1).result(30).status is Status.FAILED
        assert (other.count(), other.leases()) == (0, [])

    def test_preloaded_failure_is_not_evaluated_again_and_a_result_comes_from_the_store(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, background: bool
    ) -> None:
        before = make(evaluator, background=background)
        result = before.submit(architecture(1), 1).result(30)
        before.shutdown()
        executor = make(evaluator, background=background)
        failed = Evaluation(architecture(1).key, 2, Status.FAILED, reason="worker killed")
        executor.preload(result)
        executor.preload(failed)
        assert executor.submit(architecture(1), 1).result(30) == result
        assert executor.submit(architecture(1), 2).result(30) == failed
        assert (evaluator.seen, executor.num_from_store) == ([1], 1)

    def test_preloaded_result_that_another_store_lacks_is_not_evaluated_again(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, background: bool
    ) -> None:
        executor = make(evaluator, background=background)
        executor.preload(found(1, 0.5))
        assert executor.submit(architecture(1), 1).result(30) == found(1, 0.5)
        assert (evaluator.seen, other.count(), other.configurations()) == ([], 0, {})

    @pytest.mark.parametrize("error", [InputError("fix it"), RuntimeError("a bug"), KeyboardInterrupt()])
    def test_error_is_raised_and_releases_the_lease(
        self,
        make: Callable[..., CachingExecutor],
        evaluator: Accuracies,
        other: Store,
        background: bool,
        error: BaseException,
    ) -> None:
        executor = make(evaluator, background=background)

        def fail() -> Evaluation:
            assert len(other.leases()) == 1
            raise error

        evaluator.outcome = fail
        with pytest.raises(type(error)) as raised:
            executor.submit(architecture(1), 1).result(30)
        assert raised.value is error
        assert other.leases() == []
        evaluator.outcome = None
        assert executor.submit(architecture(1), 1).result(30) == found(1, 0.001)

    def test_deleted_store_is_an_error_of_the_future(
        self,
        make: Callable[..., CachingExecutor],
        evaluator: Accuracies,
        path: Path,
        background: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        executor = make(evaluator, background=background, heartbeat_seconds=0.01)
        failed_heartbeats: list[bool] = []

        def lose() -> Evaluation:
            path.unlink()
            until(lambda: "cannot send a heartbeat" in caplog.text)
            failed_heartbeats.append(True)
            return found(1, 0.5)

        evaluator.outcome = lose
        future = executor.submit(architecture(1), 1)
        with pytest.raises(InputError, match="was moved, replaced or deleted"):
            future.result(30)
        assert failed_heartbeats == [True]
        with pytest.raises(InputError, match="was moved, replaced or deleted"):
            executor.submit(architecture(2), 2)
        executor.shutdown()

    def test_owner_sends_heartbeats(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, background: bool
    ) -> None:
        executor = make(evaluator, background=background, heartbeat_seconds=0.01)

        def wait() -> Evaluation:
            until(lambda: other.leases()[0].heartbeat >= 3)
            return found(1, 0.5)

        evaluator.outcome = wait
        assert executor.submit(architecture(1), 1).result(30) == found(1, 0.5)

    def test_shutdown_can_be_repeated(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, background: bool
    ) -> None:
        executor = make(evaluator, background=background)
        executor.submit(architecture(1), 1).result(30)
        executor.shutdown()
        executor.shutdown()
        assert executor.submit(architecture(1), 1).cancelled()
        assert "nases-store" not in {thread.name for thread in threading.enumerate()}
        assert executor.store is not None
        with pytest.raises(sqlite3.ProgrammingError):
            executor.store.count()


def test_without_a_store_results_are_cached_in_memory(evaluator: Accuracies) -> None:
    executor = CachingExecutor(SerialExecutor(evaluator), None, SPACE.to_json)
    results = [executor.submit(architecture(1), seed).result() for seed in (1, 2, 1)]
    assert results[0] == results[2] == found(1, 0.001)
    assert evaluator.seen == [1, 2]
    assert "nases-store" not in {thread.name for thread in threading.enumerate()}
    executor.shutdown()
    assert executor.submit(architecture(3), 3).cancelled()


@pytest.mark.parametrize("status", [Status.TIMED_OUT, Status.OUT_OF_MEMORY, Status.FAILED, Status.DIVERGED])
def test_time_of_a_promoted_child_includes_the_lower_rung_if_it_fails(
    make: Callable[..., CachingExecutor], status: Status
) -> None:
    evaluator = AtRungs()
    executor = make(evaluator, background=True)
    evaluator.outcome = lambda: Evaluation(architecture(1).key, 1, Status.OK, seconds=100.0)
    assert executor.submit(architecture(1), 1, 1).result(30).seconds == 100.0
    evaluator.outcome = lambda: Evaluation(architecture(1).key, 1, status, seconds=7.0)
    seconds = executor.submit(architecture(1), 1, 3).result(30).seconds
    if status is Status.OUT_OF_MEMORY:
        assert seconds > 100.0, "the duration of its attempts is measured"
    else:
        assert seconds == (7.0 if status is Status.DIVERGED else 107.0), "a training that ends counts both itself"


class TestWaitingInTheBackground:
    def test_result_of_another_search_is_used(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store
    ) -> None:
        executor = make(evaluator, background=True)
        assert other.acquire(*name(1, evaluator))
        future = executor.submit(architecture(1), 1)
        assert executor.submit(architecture(2), 2).result(30) == found(2, 0.002), "other children do not wait"
        assert executor.num_waiting == 1
        assert not future.done()
        other.put(found(1, 0.75), evaluator.digest(), "{}")
        assert future.result(30) == found(1, 0.75)
        assert (executor.num_waiting, executor.num_from_store, evaluator.seen) == (0, 1, [2])

    @pytest.mark.parametrize("how", ["released", "died"])
    def test_child_released_by_another_search_is_evaluated_here(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, path: Path, how: str
    ) -> None:
        executor = make(evaluator, background=True)
        assert other.acquire(*name(1, evaluator))
        future = executor.submit(architecture(1), 1)
        until(lambda: executor.num_waiting)
        if how == "released":
            other.release(*name(1, evaluator))
        else:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("UPDATE leases SET process_start_time = 'earlier'")
        assert future.result(30) == found(1, 0.001)
        assert (executor.num_waiting, executor.num_from_store, evaluator.seen) == (0, 0, [1])
        assert other.leases() == []

    def test_store_deleted_while_waiting_is_an_error_of_the_future(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store, path: Path
    ) -> None:
        executor = make(evaluator, background=True)
        assert other.acquire(*name(1, evaluator))
        future = executor.submit(architecture(1), 1)
        other.release(*name(1, evaluator))
        until(future.done)
        assert other.acquire(*name(2, evaluator))
        future = executor.submit(architecture(2), 2)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE leases SET process_start_time = 'earlier'")
            path.unlink()
        with pytest.raises(InputError, match="was moved, replaced or deleted"):
            future.result(30)

    def test_same_child_twice_is_evaluated_once(self, make: Callable[..., CachingExecutor], evaluator: Accuracies) -> None:
        executor = make(evaluator, background=True, num_workers=2)
        evaluator.may_end.clear()
        futures = [executor.submit(architecture(1), 1) for _ in range(3)]
        different = executor.submit(architecture(1), 2)
        evaluator.may_end.set()
        assert [future.result(30) for future in futures] == [found(1, 0.001)] * 3
        assert different.result(30).seed == 2
        assert sorted(evaluator.seen) == [1, 2]

    def test_shutdown_cancels_and_releases(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store
    ) -> None:
        executor = make(evaluator, background=True)
        evaluator.may_end.clear()
        assert other.acquire(*name(3, evaluator))
        futures = [executor.submit(architecture(seed), seed) for seed in (1, 2, 3)]
        assert len(other.leases()) == 3
        until(lambda: evaluator.seen)
        executor.shutdown()
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(30)
        assert [lease.seed for lease in other.leases()] == [3]
        assert other.count() == 0

    def test_two_searches_evaluate_each_child_once(self, make: Callable[..., CachingExecutor], path: Path) -> None:
        evaluators = [Accuracies(), Accuracies()]
        executors = [make(evaluator, background=True, num_workers=2) for evaluator in evaluators]
        seeds = list(range(30))
        futures = [executor.submit(architecture(seed), seed) for seed in seeds for executor in executors]
        results = [future.result(30) for future in futures]
        assert results[::2] == results[1::2] == [found(seed, seed / 1000) for seed in seeds]
        assert sorted(evaluators[0].seen + evaluators[1].seen) == seeds
        assert sum(executor.num_from_store for executor in executors) == len(seeds)


class TestWaitingInSubmit:
    def test_submit_waits_for_another_search(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store
    ) -> None:
        executor = make(evaluator, background=False)
        assert other.acquire(*name(1, evaluator))

        def put() -> None:
            until(lambda: executor.num_waiting)
            other.put(found(1, 0.75), evaluator.digest(), "{}")

        thread = threading.Thread(target=put)
        thread.start()
        assert executor.submit(architecture(1), 1).result() == found(1, 0.75)
        thread.join()
        assert (executor.num_waiting, executor.num_from_store, evaluator.seen) == (0, 1, [])

    def test_waiting_can_be_interrupted(
        self, make: Callable[..., CachingExecutor], evaluator: Accuracies, other: Store
    ) -> None:
        executor = make(evaluator, background=False)
        assert other.acquire(*name(1, evaluator))

        with interrupted_after(lambda: until(lambda: executor.num_waiting)):
            executor.submit(architecture(1), 1)
        assert len(other.leases()) == 1
        assert executor.num_waiting == 0
        other.release(*name(1, evaluator))
        assert executor.submit(architecture(1), 1).result() == found(1, 0.001)


def search(connection: Connection, path: Path, order: int, num_children: int) -> None:
    """Evaluate all children and send each seed when its evaluation starts."""

    class Reporting(Accuracies):
        def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
            connection.send(seed)
            time.sleep(0.01)
            return super().evaluate(architecture, seed)

    seeds = list(range(num_children))
    random.Random(order).shuffle(seeds)
    executor = CachingExecutor(SerialExecutor(Reporting()), Store(path), SPACE.to_json, poll_seconds=0.01)
    assert [executor.submit(architecture(seed), seed).result().valid_accuracy for seed in seeds] == [
        seed / 1000 for seed in seeds
    ]
    executor.shutdown()
    connection.close()


def receive_all(connection: Connection) -> list[int]:
    received: list[int] = []
    try:
        while True:
            assert connection.poll(60)
            received.append(connection.recv())
    except EOFError:
        return received


def test_searches_in_processes_share_the_work_and_survive_a_kill(path: Path) -> None:
    num_children = 60
    started = []
    for order in range(3):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=search, args=(theirs, path, order, num_children), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    killed, connection = started[0]
    reported = [connection.recv() for _ in range(5)]
    killed.kill()
    reported += receive_all(connection)
    others = [receive_all(connection) for _, connection in started[1:]]
    for process, connection in started:
        process.join()
        connection.close()
    assert [process.exitcode for process, _ in started] == [-signal.SIGKILL, 0, 0]
    evaluated = sum(others, reported)
    assert set(evaluated) == set(range(num_children))
    assert len(evaluated) <= num_children + 1, "only the child that the killed process was evaluating is repeated"
    with Store(path, read_only=True) as store:
        assert (store.count(), store.leases(), store.integrity_errors()) == (num_children, [], [])
