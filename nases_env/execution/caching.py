"""Executor decorator that caches evaluations and coordinates with other searches that share a store."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from nases_env.errors import InputError
from nases_env.evaluation import UNEVALUATED, Evaluation, Evaluator, Status
from nases_env.execution.executor import Executor
from nases_env.execution.store import Store
from nases_env.search_spaces import Architecture

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
"""Interval between two heartbeats of the owner of leases."""

POLL_SECONDS = 0.2
"""Interval between two queries of the store for children that other searches evaluate."""

_Child: TypeAlias = tuple[str, int, int | None]  # key, seed, fidelity


class CachingExecutor(Executor):
    """Evaluates each child once: returns cached results from memory or the store, and sends other children to ``inner``.

    With a store, the executor acquires the lease of a child before it evaluates the child, so that no other search that
    shares the store evaluates it too. It commits the result before it completes the future. If another search holds the
    lease, the future waits for its result; the child is evaluated here if that search dies or releases the lease. A failed
    evaluation is cached in memory, but not stored.

    Args:
        inner: evaluates the children.
        store: the shared store, which this executor closes; None caches in memory only.
        describe_genotype: returns the genotype of an architecture as JSON text, such as ``SearchSpace.to_json``.
        heartbeat_seconds: interval between two heartbeats.
        poll_seconds: interval between two queries for children that other searches evaluate.

    Attributes:
        num_from_store: number of children whose result was found in the store.
    """

    def __init__(
        self,
        inner: Executor,
        store: Store | None,
        describe_genotype: Callable[[Architecture], str],
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.inner = inner
        self.evaluator = inner.evaluator
        self.in_background = inner.in_background
        self.num_workers = inner.num_workers
        self.store = store
        self.num_from_store = 0
        self._describe_genotype = describe_genotype
        self._heartbeat_seconds = heartbeat_seconds
        self._poll_seconds = poll_seconds
        self._lock = threading.RLock()
        self._digests: dict[int | None, str] = {}
        self._registered: set[str] = set()
        self._evaluations: dict[_Child, Evaluation] = {}
        self._jobs: dict[_Child, _Job] = {}
        self._waiting: list[_Job] = []
        self._is_shut_down = False
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        if store is not None:
            self._thread = threading.Thread(target=self._run_watcher, args=(store,), name="nases-store", daemon=True)
            self._thread.start()
        atexit.register(self.shutdown)

    @property
    def is_shut_down(self) -> bool:
        """Whether ``shutdown`` was called."""
        return self._is_shut_down

    @property
    def num_waiting(self) -> int:
        """Number of children that this search waits for because another search evaluates them."""
        return len(self._waiting)

    def preload(self, evaluation: Evaluation) -> None:
        """Cache an evaluation of a resumed search, unless it is in the store, which may be another one than before.

        Raises:
            InputError: if the store cannot be used.
        """
        child = evaluation.key, self._digest(evaluation.fidelity), evaluation.seed
        if self.store is None or evaluation.status is Status.FAILED or not self.store.contains(*child):
            self._cache(evaluation)

    def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        """Return the cached evaluation of a child, or evaluate it.

        If ``in_background`` is False, this also waits for a child that another search evaluates.

        Raises:
            InputError: if the store cannot be used. Exceptions of the inner executor's ``submit`` are raised too.
        """
        with self._lock:
            if self._is_shut_down:
                return _canceled()
            child = architecture.key, seed, fidelity
            if child in self._evaluations:
                return _completed(self._evaluations[child])
            if child in self._jobs:
                return self._jobs[child].future
            job = self._jobs[child] = _Job(architecture, seed, fidelity)
        try:
            if not self._try_start(job):
                self._wait(job)
        except BaseException as error:
            self._fail(job, error)
            raise
        return job.future

    def shutdown(self) -> None:
        """Cancel the children in flight, shut down the inner executor, and close the store."""
        with self._lock:
            if self._is_shut_down:
                return
            self._is_shut_down = True
        atexit.unregister(self.shutdown)
        self._changed.set()
        try:
            self.inner.shutdown()
        finally:
            if self._thread is not None and threading.current_thread() is not self._thread:
                self._thread.join()
            for job in list(self._jobs.values()):
                self._fail(job, CancelledError())
            if self.store is not None:
                self.store.close()

    def _evaluator_at(self, fidelity: int | None) -> Evaluator:
        return self.evaluator if fidelity is None else self.evaluator.at_fidelity(fidelity)

    def _digest(self, fidelity: int | None) -> str:
        """Return the digest of the evaluator's configuration at a rung."""
        if fidelity not in self._digests:
            self._digests[fidelity] = self._evaluator_at(fidelity).digest()
        return self._digests[fidelity]

    def _registered_digest(self, store: Store, fidelity: int | None) -> str:
        """Return the digest of the evaluator's configuration at a rung, and register the configuration in the store."""
        with self._lock:
            digest = self._digest(fidelity)
            if digest not in self._registered:
                store.register_config(digest, self._evaluator_at(fidelity).describe())
                self._registered.add(digest)
            return digest

    def _try_start(self, job: _Job) -> bool:
        """Complete a child that is in the store, or start its evaluation; return False if another search evaluates it."""
        if self.store is not None:
            child = job.architecture.key, self._registered_digest(self.store, job.fidelity), job.seed
            known = self.store.get(*child)
            if known is not None:
                with self._lock:
                    self.num_from_store += 1
                self._succeed(job, known)
                return True
            if not self.store.acquire(*child):
                return False
            self._stop_waiting(job)
        try:
            evaluated = self.inner.submit(job.architecture, job.seed, job.fidelity)
        except BaseException:
            self._release(job)
            raise
        evaluated.add_done_callback(partial(self._finish, job))
        return True

    def _finish(self, job: _Job, evaluated: Future[Evaluation]) -> None:
        """Store the result of the inner executor. Called in the thread that completes ``evaluated``."""
        try:
            evaluation = self._with_lower_rung(job, evaluated.result())
            if evaluation.status is Status.FAILED:
                self._release(job)
            elif self.store is not None:
                genotype = self._describe_genotype(job.architecture)
                evaluation = self.store.put(evaluation, self._registered_digest(self.store, job.fidelity), genotype)
        except BaseException as error:  # forward any exception to the caller
            self._release(job)
            self._fail(job, error)
        else:
            self._succeed(job, evaluation)

    def _with_lower_rung(self, job: _Job, evaluation: Evaluation) -> Evaluation:
        """Add the time of the lower rung, which the result of a training includes, to that of failed attempts."""
        if job.fidelity is None or evaluation.status not in UNEVALUATED:
            return evaluation
        rungs = (None, *self.evaluator.rungs)
        lower = rungs[rungs.index(job.fidelity) - 1]
        with self._lock:
            before = self._evaluations.get((evaluation.key, evaluation.seed, lower))
        return evaluation if before is None else replace(evaluation, seconds=before.seconds + evaluation.seconds)

    def _wait(self, job: _Job) -> None:
        with self._lock:
            self._waiting.append(job)
        if self.in_background:
            self._changed.set()
            return
        while not self._try_start(job):
            if self._is_shut_down:
                raise CancelledError
            time.sleep(self._poll_seconds)

    def _release(self, job: _Job) -> None:
        if self.store is None:
            return
        try:
            self.store.release(job.architecture.key, self._registered_digest(self.store, job.fidelity), job.seed)
        except InputError as error:
            logger.warning("cannot release the lease of %s: %s", job.architecture.key, error)

    def _succeed(self, job: _Job, evaluation: Evaluation) -> None:
        evaluation = replace(evaluation, fidelity=job.fidelity)
        self._cache(evaluation)
        self._discard(job)
        if not job.future.done():
            job.future.set_result(evaluation)

    def _cache(self, evaluation: Evaluation) -> None:
        with self._lock:
            self._evaluations[evaluation.key, evaluation.seed, evaluation.fidelity] = evaluation

    def _fail(self, job: _Job, error: BaseException) -> None:
        self._discard(job)
        if not job.future.done():
            job.future.set_exception(error)

    def _discard(self, job: _Job) -> None:
        self._stop_waiting(job)
        child = job.architecture.key, job.seed, job.fidelity
        with self._lock:
            if self._jobs.get(child) is job:
                del self._jobs[child]

    def _stop_waiting(self, job: _Job) -> None:
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)

    def _run_watcher(self, store: Store) -> None:
        """Send heartbeats and poll for children that other searches evaluate; the body of the executor's thread."""
        next_heartbeat = time.monotonic() + self._heartbeat_seconds
        while not self._is_shut_down:
            with self._lock:
                waiting = list(self._waiting) if self.in_background else []
            self._changed.wait(self._poll_seconds if waiting else max(0.0, next_heartbeat - time.monotonic()))
            self._changed.clear()
            if time.monotonic() >= next_heartbeat:
                self._send_heartbeat(store)
                next_heartbeat = time.monotonic() + self._heartbeat_seconds
            for job in waiting:
                if self._is_shut_down:
                    break
                try:
                    self._try_start(job)
                except BaseException as error:  # forward any exception to the caller
                    self._fail(job, error)

    def _send_heartbeat(self, store: Store) -> None:
        with self._lock:
            is_evaluating = len(self._jobs) > len(self._waiting)
        if not is_evaluating:
            return
        try:
            store.heartbeat()
        except InputError as error:  # a result that cannot be stored raises its own error
            logger.warning("cannot send a heartbeat to other searches: %s", error)


@dataclass(eq=False)
class _Job:
    """A child without a result. Its future cannot be canceled by the caller, because its lease must be released first."""

    architecture: Architecture
    seed: int
    fidelity: int | None
    future: Future[Evaluation] = field(default_factory=lambda: Future())

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()


def _completed(evaluation: Evaluation) -> Future[Evaluation]:
    future: Future[Evaluation] = Future()
    future.set_result(evaluation)
    return future


def _canceled() -> Future[Evaluation]:
    future: Future[Evaluation] = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future
