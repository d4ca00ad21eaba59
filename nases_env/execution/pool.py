"""Executor that evaluates children in parallel workers and retries failed attempts."""

from __future__ import annotations

import atexit
import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

from nases_env.evaluation import Evaluation, Evaluator
from nases_env.execution.attempts import GPU_WAIT_SECONDS, MAX_RETRIES, AttemptError, Attempts, Child
from nases_env.execution.executor import Executor, Task
from nases_env.search_spaces import Architecture

logger = logging.getLogger(__name__)

MAX_GPU_FAILURES = 3
"""After this many consecutive children that failed on a GPU and succeeded on another one, the GPU is no longer used."""

_JOIN_SECONDS = 0.1


class Worker(ABC):
    """Evaluates one child at a time, for example in a process or as a job.

    Attributes:
        gpu: the GPU that the worker uses, a value of ``CUDA_VISIBLE_DEVICES``; empty if it has none, or may use several.
    """

    gpu: str = ""

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

    A failed attempt is retried on another GPU if there is one, else in the same worker, which restarts first; ``Attempts``
    says what a failed attempt is. A GPU on which ``MAX_GPU_FAILURES`` children in a row failed that succeeded on others is
    no longer used. If ``MAX_CONSECUTIVE_FAILURES`` children have the status ``FAILED`` and no child succeeds between them,
    the future of the last one raises ``InputError`` instead, as does the future of every further such child until one
    succeeds.

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
        self._gpus = _Gpus({worker.gpu for worker in workers})
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()  # of the queue and the GPUs, and their lock
        self._is_shut_down = threading.Event()
        self._workers = {
            threading.Thread(target=self._work, args=(worker,), name=f"nases-worker-{slot}", daemon=True): worker
            for slot, worker in enumerate(workers)
        }
        for thread in self._workers:
            thread.start()
        atexit.register(self.shutdown)

    def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        job = _Job(Child(Task(architecture, seed, fidelity)))
        with self._changed:
            if self._is_shut_down.is_set():
                job.cancel()
            else:
                self._queue.append(job)
                self._changed.notify_all()
        return job.future

    def shutdown(self) -> None:
        with self._changed:
            self._is_shut_down.set()
            jobs = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        atexit.unregister(self.shutdown)
        for job in jobs:
            job.cancel()
        for worker in self._workers.values():
            worker.cancel()
        for thread, worker in self._workers.items():
            while thread.is_alive():
                worker.cancel()  # again: the evaluation may have started after the first call
                thread.join(_JOIN_SECONDS)

    def _work(self, worker: Worker) -> None:
        """Evaluate jobs from the queue; the body of the thread of a worker."""
        try:
            while (job := self._take(worker)) is not None:
                try:
                    evaluation = self._evaluate(worker, job)
                except BaseException as error:  # forward any exception to the caller
                    job.future.set_exception(error)
                else:
                    if evaluation is not None:
                        job.future.set_result(evaluation)
                del job  # otherwise it stays in memory while the thread waits for the next job
        finally:
            worker.close()

    def _take(self, worker: Worker) -> _Job | None:
        """Wait for the next job of a worker; None: it evaluates no more."""
        with self._changed:
            while not self._is_shut_down.is_set() and worker.gpu in self._gpus.used:
                job = next((job for job in self._queue if self._gpus.may_take(worker.gpu, job)), None)
                if job is None:
                    self._changed.wait()
                    continue
                self._queue.remove(job)
                if job.future.running() or job.future.set_running_or_notify_cancel():
                    return job
        return None

    def _evaluate(self, worker: Worker, job: _Job) -> Evaluation | None:
        """Evaluate a child; return None if a worker of another GPU retries it."""

        def evaluate(task: Task) -> Evaluation:
            try:
                return worker.evaluate(task)
            except AttemptError:
                if self._is_shut_down.is_set():
                    raise CancelledError from None
                raise

        while not self._is_shut_down.is_set():
            num_failures = len(job.child.failures)
            evaluation = self._attempts.attempt(job.child, evaluate)
            waits = evaluation is None and job.child.found_full_gpu
            with self._changed:
                self._gpus.add_attempt(worker.gpu, job, failed=len(job.child.failures) > num_failures)
                is_passed_on = evaluation is None and not self._is_shut_down.is_set() and bool(self._gpus.others(job))
                if is_passed_on:
                    self._queue.appendleft(job)
                self._changed.notify_all()
            if waits:
                self._is_shut_down.wait(self._gpu_wait_seconds)
            if evaluation is not None or is_passed_on:
                return evaluation
        raise CancelledError


@dataclass(eq=False)
class _Job:
    """A child, and the GPUs on which it has failed."""

    child: Child
    gpus: set[str] = field(default_factory=set)
    future: Future[Evaluation] = field(default_factory=lambda: Future())

    def cancel(self) -> None:
        """Cancel the future of a job that no worker evaluates, and notify the threads that wait for it."""
        if self.future.running():  # a worker passed it on
            self.future.set_exception(CancelledError())
        else:
            self.future.cancel()
            self.future.set_running_or_notify_cancel()


class _Gpus:
    """The GPUs of the workers; for workers with an empty ``Worker.gpu``, one with this name. Not thread-safe.

    Attributes:
        used: those that are still used; at least one.
    """

    def __init__(self, names: set[str]) -> None:
        self.used = names
        self._failing: set[str] = set()  # the last attempt failed
        self._num_refuted: Counter[str] = Counter()  # children in a row that failed here and succeeded on another one

    def others(self, job: _Job) -> set[str]:
        """Return the GPUs on which a child is to be retried, rather than on those on which it failed; may be empty."""
        untried = self.used - job.gpus
        return untried - self._failing or untried

    def may_take(self, gpu: str, job: _Job) -> bool:
        """Return whether a worker of ``gpu`` may evaluate a job from the queue."""
        others = self.others(job)
        return not job.gpus or not others or gpu in others

    def add_attempt(self, gpu: str, job: _Job, *, failed: bool) -> None:
        """Record an attempt at a child."""
        if failed:
            self._failing.add(gpu)
            job.gpus.add(gpu)
            return
        self._failing.discard(gpu)
        self._num_refuted[gpu] = 0
        if gpu in self.used:  # so that this one remains
            for other in (job.gpus - {gpu}) & self.used:
                self._num_refuted[other] += 1
                if self._num_refuted[other] == MAX_GPU_FAILURES:
                    self.used.remove(other)
                    logger.warning(
                        "GPU %s is not used any more: %d children in a row failed on it and succeeded on another one",
                        other,
                        MAX_GPU_FAILURES,
                    )
