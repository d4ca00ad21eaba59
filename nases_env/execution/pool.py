"""Has workers evaluate children side by side, and tries again where an attempt fails."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Executor, Task
from nases_env.search_spaces import Architecture

logger = logging.getLogger(__name__)

MAX_FAILED_IN_A_ROW = 3
"""Children in a row that may end as ``FAILED``, this one included, before it is the machine or the code that is at fault."""

_JOIN_SECONDS = 0.1


class AttemptError(Exception):
    """An attempt at a child that brought no evaluation.

    Attributes:
        reason: what happened, on one line.
        status: ``FAILED``; ``TIMED_OUT`` or ``OUT_OF_MEMORY`` where the attempt met a limit.
        log: the last lines of the child's log.
    """

    def __init__(self, reason: str, *, status: Status = Status.FAILED, log: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.log = log


class Worker(ABC):
    """Evaluates one child at a time, in a place of its own."""

    @abstractmethod
    def evaluate(self, task: Task) -> Evaluation:
        """Evaluates one child. Called from one thread only.

        Raises:
            AttemptError: if the attempt brought no evaluation; the next call works again, in a fresh place.
            InputError: if a person has to mend something first.
        """

    def cancel(self) -> None:  # noqa: B027 - not all can
        """Called from another thread: ends the evaluation under way at once, which then raises ``AttemptError``.

        Harmless where there is none.
        """

    def close(self) -> None:  # noqa: B027 - not all have something to end
        """Ends the worker. Called from the thread that calls ``evaluate``, or after it has ended."""


class WorkerPoolExecutor(Executor):
    """Evaluates children in several workers at once, first come, first served.

    A child whose attempt fails is tried again in the same worker, in a fresh place. One whose every attempt failed becomes
    an evaluation of status ``TIMED_OUT`` or ``OUT_OF_MEMORY`` if all attempts ended so, else ``FAILED``. The last of
    ``MAX_FAILED_IN_A_ROW`` children that ended as ``FAILED``, with no success between them, and all that fail after it raise
    ``InputError`` instead.

    Args:
        evaluator: the evaluator that the workers evaluate with.
        workers: at least one; the executor closes them.
        max_retries: times that a child is tried again.

    Raises:
        ValueError: if there is no worker.
    """

    in_background = True

    def __init__(self, evaluator: Evaluator, workers: Sequence[Worker], *, max_retries: int = 2) -> None:
        if not workers:
            raise ValueError("at least one worker is needed")
        self.evaluator = evaluator
        self._max_retries = max_retries
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._is_shut_down = False
        self._num_failed_in_a_row = 0
        self._workers = {
            threading.Thread(target=self._work, args=(worker,), name=f"nases-worker-{slot}", daemon=True): worker
            for slot, worker in enumerate(workers)
        }
        for thread in self._workers:
            thread.start()
        atexit.register(self.shutdown)

    def submit(self, architecture: Architecture, seed: int) -> Future[Evaluation]:
        job = _Job(Task(architecture, seed), Future())
        with self._lock:
            if self._is_shut_down:
                job.cancel()
            else:
                self._queue.put(job)
        return job.future

    def shutdown(self) -> None:
        with self._lock:
            self._is_shut_down = True
        atexit.unregister(self.shutdown)
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.cancel()
        for _ in self._workers:
            self._queue.put(None)
        for worker in self._workers.values():
            worker.cancel()
        for thread, worker in self._workers.items():
            while thread.is_alive():
                worker.cancel()  # again: the thread may have been about to begin
                thread.join(_JOIN_SECONDS)

    def _work(self, worker: Worker) -> None:
        """What a worker's thread does all its life."""
        try:
            while (job := self._queue.get()) is not None:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    evaluation = self._evaluate(worker, job.task)
                except BaseException as error:  # whatever it is, the search must hear of it
                    job.future.set_exception(error)
                else:
                    job.future.set_result(evaluation)
                del job  # not to be kept alive until the next one comes
        finally:
            worker.close()

    def _evaluate(self, worker: Worker, task: Task) -> Evaluation:
        start = time.monotonic()
        num_attempts = 1 + self._max_retries
        failures: list[AttemptError] = []
        while len(failures) < num_attempts:
            if self._is_shut_down:
                raise CancelledError
            try:
                evaluation = worker.evaluate(task)
            except AttemptError as failure:
                if self._is_shut_down:
                    raise CancelledError from None
                failures.append(failure)
                reason = one_line(failure.reason)
                logger.warning("child %s, attempt %d of %d: %s", task.name, len(failures), num_attempts, reason)
            else:
                with self._lock:
                    self._num_failed_in_a_row = 0
                return evaluation
        return self._give_up(task, failures, time.monotonic() - start)

    def _give_up(self, task: Task, failures: Sequence[AttemptError], seconds: float) -> Evaluation:
        """The evaluation of a child that failed in every attempt."""
        statuses = {failure.status for failure in failures}
        status = failures[0].status if len(statuses) == 1 else Status.FAILED
        reason = "; ".join(dict.fromkeys(one_line(failure.reason) for failure in failures))
        if status is Status.FAILED:
            with self._lock:
                self._num_failed_in_a_row += 1
                num_failed = self._num_failed_in_a_row
            if num_failed >= MAX_FAILED_IN_A_ROW:
                last_lines = one_line(" ".join(failures[-1].log.splitlines()[-3:]))
                log = f"; its log ends: {last_lines}" if last_lines else ""
                raise InputError(
                    f"{num_failed} children in a row failed in every attempt, the last one: {reason}{log}; "
                    "mend it and go on with --resume"
                )
        return Evaluation(task.architecture.key, task.seed, status, seconds=seconds, reason=reason)


class _Job(NamedTuple):
    task: Task
    future: Future[Evaluation]

    def cancel(self) -> None:
        """Cancels the future of a job that no worker has taken, and wakes those who wait for it."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
