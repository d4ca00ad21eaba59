"""Executor that evaluates children in parallel workers and retries failed attempts."""

from __future__ import annotations

import atexit
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

from nases_env.evaluation import Evaluation, Evaluator
from nases_env.execution.attempts import GPU_WAIT_SECONDS, MAX_RETRIES, AttemptError, Attempts, Child
from nases_env.execution.executor import Executor, Task
from nases_env.search_spaces import Architecture

_JOIN_SECONDS = 0.1


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

    A failed attempt is retried in the same worker, which restarts first; see ``Attempts``. If ``MAX_CONSECUTIVE_FAILURES``
    children have the status ``FAILED`` and no child succeeds between them, the future of the last one raises ``InputError``
    instead, as does the future of every further such child until one succeeds.

    Args:
        evaluator: the evaluator of the workers.
        workers: at least one; the executor closes them.
        max_retries: maximum number of retries per child.
        gpu_wait_seconds: time between two attempts at a child that ran out of GPU memory.

    Raises:
        ValueError: if ``workers`` is empty.
    """

    in_background = True

    def __init__(
        self,
        evaluator: Evaluator,
        workers: Sequence[Worker],
        *,
        max_retries: int = MAX_RETRIES,
        gpu_wait_seconds: float = GPU_WAIT_SECONDS,
    ) -> None:
        if not workers:
            raise ValueError("at least one worker is needed")
        self.evaluator = evaluator
        self.num_workers = len(workers)
        self._attempts = Attempts(evaluator, max_retries)
        self._gpu_wait_seconds = gpu_wait_seconds
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._is_shut_down = threading.Event()
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
            if self._is_shut_down.is_set():
                job.cancel()
            else:
                self._queue.put(job)
        return job.future

    def shutdown(self) -> None:
        with self._lock:
            self._is_shut_down.set()
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
        def evaluate(task: Task) -> Evaluation:
            try:
                return worker.evaluate(task)
            except AttemptError:
                if self._is_shut_down.is_set():
                    raise CancelledError from None
                raise

        child = Child(task)
        while not self._is_shut_down.is_set():
            evaluation = self._attempts.attempt(child, evaluate)
            if evaluation is not None:
                return evaluation
            if child.found_full_gpu:
                self._is_shut_down.wait(self._gpu_wait_seconds)
        raise CancelledError


class _Job(NamedTuple):
    task: Task
    future: Future[Evaluation]

    def cancel(self) -> None:
        """Cancel the future of a job that no worker has started, and notify the threads that wait for it."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
