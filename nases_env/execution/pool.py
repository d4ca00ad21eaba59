"""Executor that evaluates children in parallel workers and retries failed attempts."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

from nases_env.devices import device_type
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Executor, Task
from nases_env.search_spaces import Architecture

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAILURES = 3
"""After this many consecutive ``FAILED`` children the search aborts: the cause is then probably the machine or the code."""

_JOIN_SECONDS = 0.1


class AttemptError(Exception):
    """Error of an attempt to evaluate a child.

    Attributes:
        reason: what happened, on one line.
        status: ``TIMED_OUT`` or ``OUT_OF_MEMORY`` if the attempt exceeded a limit, else ``FAILED``.
        log: the last lines of the log of the attempt.
        evaluation: the result of a training that ran out of GPU memory, else None.
    """

    def __init__(
        self, reason: str, *, status: Status = Status.FAILED, log: str = "", evaluation: Evaluation | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.log = log
        self.evaluation = evaluation


class Worker(ABC):
    """Evaluates one child at a time, for example in a process or as a job."""

    @abstractmethod
    def evaluate(self, task: Task) -> Evaluation:
        """Evaluate one child. Called from one thread only.

        Raises:
            AttemptError: if the attempt failed. The worker then restarts, so that the next call works again.
            InputError: if the evaluation needs a fix by the user first.
        """

    def cancel(self) -> None:  # noqa: B027 - optional
        """Cancel the running evaluation, which then raises ``AttemptError``. Called from another thread.

        Does nothing if no evaluation is running.
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Stop the worker. Called from the thread that calls ``evaluate``, or after that thread has ended."""


class WorkerPoolExecutor(Executor):
    """Evaluates children in several workers in parallel, in the order of submission.

    A failed attempt is retried in the same worker, which restarts first. A training that runs out of GPU memory is a failed
    attempt too, because other processes may use the same GPU. If all attempts at a child fail, its evaluation
    has the status ``TIMED_OUT`` or ``OUT_OF_MEMORY`` if all attempts have that status, else ``FAILED``. If
    ``MAX_CONSECUTIVE_FAILURES`` children have the status ``FAILED`` and no child succeeds between them, the future of the
    last one raises ``InputError`` instead, as does the future of every further such child until one succeeds.

    Args:
        evaluator: the evaluator of the workers.
        workers: at least one; the executor closes them.
        max_retries: maximum number of retries per child.

    Raises:
        ValueError: if ``workers`` is empty.
    """

    in_background = True

    def __init__(self, evaluator: Evaluator, workers: Sequence[Worker], *, max_retries: int = 2) -> None:
        if not workers:
            raise ValueError("at least one worker is needed")
        self.evaluator = evaluator
        self.num_workers = len(workers)
        self._max_retries = max_retries
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._is_shut_down = False
        self._num_consecutive_failures = 0
        self._workers = {
            threading.Thread(target=self._work, args=(worker,), name=f"nases-worker-{slot}", daemon=True): worker
            for slot, worker in enumerate(workers)
        }
        for thread in self._workers:
            thread.start()
        atexit.register(self.shutdown)

    def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        job = _Job(Task(architecture, seed, fidelity), Future())
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
                worker.cancel()  # again: the evaluation may have started after the first call
                thread.join(_JOIN_SECONDS)

    def _work(self, worker: Worker) -> None:
        """Evaluate jobs from the queue until it contains None; the body of the thread of a worker."""
        try:
            while (job := self._queue.get()) is not None:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    evaluation = self._evaluate(worker, job.task)
                except BaseException as error:  # forward any exception to the caller
                    job.future.set_exception(error)
                else:
                    job.future.set_result(evaluation)
                del job  # otherwise it stays in memory while the thread waits for the next job
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
                if evaluation.status is Status.OUT_OF_MEMORY:
                    raise AttemptError("the GPU is out of memory", status=Status.OUT_OF_MEMORY, evaluation=evaluation)
            except AttemptError as failure:
                if self._is_shut_down:
                    raise CancelledError from None
                failures.append(failure)
                reason = one_line(failure.reason)
                logger.warning("child %s, attempt %d of %d: %s", task.name, len(failures), num_attempts, reason)
            else:
                with self._lock:
                    self._num_consecutive_failures = 0
                return evaluation
        return self._failed_evaluation(task, failures, time.monotonic() - start)

    def _failed_evaluation(self, task: Task, failures: Sequence[AttemptError], seconds: float) -> Evaluation:
        """Return the evaluation of a child for which every attempt failed."""
        statuses = {failure.status for failure in failures}
        status = failures[0].status if len(statuses) == 1 else Status.FAILED
        reason = "; ".join(dict.fromkeys(one_line(failure.reason) for failure in failures))
        if status is Status.FAILED:
            with self._lock:
                self._num_consecutive_failures += 1
                num_failed = self._num_consecutive_failures
            if num_failed >= MAX_CONSECUTIVE_FAILURES:
                last_lines = " ".join(failures[-1].log.splitlines()[-3:])
                log = f"; end of its log: {one_line(last_lines)}" if last_lines.strip() else ""
                raise InputError(
                    f"{num_failed} consecutive children failed in every attempt, the last one: {reason}{log}; "
                    "fix the cause and start again; resume a search with --resume"
                )
        evaluation = failures[-1].evaluation
        if evaluation is not None and status is Status.OUT_OF_MEMORY:
            return dataclasses.replace(evaluation, seconds=seconds, reason=reason)  # with the costs of the network
        return Evaluation(task.architecture.key, task.seed, status, seconds=seconds, device=self._device(), reason=reason)

    def _device(self) -> str:
        """Return the device of the children, for those without a result; the device of a table is one of its columns."""
        device = getattr(self.evaluator, "device", None) if self.evaluator.is_expensive else None
        return device_type(device) if device == "auto" else str(device or "cpu")


class _Job(NamedTuple):
    task: Task
    future: Future[Evaluation]

    def cancel(self) -> None:
        """Cancel the future of a job that no worker has started, and notify the threads that wait for it."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
