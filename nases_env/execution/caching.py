"""Has children evaluated only if nobody has evaluated them, or does so at this moment."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution.executor import Executor
from nases_env.execution.store import Store
from nases_env.search_spaces import Architecture

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""How often the holder of claims shows that it lives."""

POLL_SECONDS = 0.2
"""How often the store is asked for children that others evaluate."""


class CachingExecutor(Executor):
    """Takes from a store what it knows, and has another executor evaluate the rest.

    A child that is evaluated here is claimed in the store, so that no other search evaluates it too, and its result is
    in the store before the future has it. For one that another search has claimed, the future waits; it is evaluated here
    after all if the other died or gave it up. A failed evaluation is not kept.

    Args:
        inner: evaluates the children.
        store: the store, which the executor closes.
        describe_genotype: an architecture in words, as ``SearchSpace.to_json`` gives it.
        beat_seconds: how often the store is told that this executor lives.
        poll_seconds: how often it is asked for children that others evaluate.

    Attributes:
        num_from_store: children that needed no evaluation here.
    """

    def __init__(
        self,
        inner: Executor,
        store: Store,
        describe_genotype: Callable[[Architecture], str],
        *,
        beat_seconds: float = BEAT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.inner = inner
        self.evaluator = inner.evaluator
        self.in_background = inner.in_background
        self.store = store
        self.num_from_store = 0
        self._describe_genotype = describe_genotype
        self._beat_seconds = beat_seconds
        self._poll_seconds = poll_seconds
        self._lock = threading.RLock()
        self._digest: str | None = None
        self._jobs: dict[tuple[str, int], _Job] = {}
        self._waiting: list[_Job] = []
        self._is_shut_down = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nases-store", daemon=True)
        self._thread.start()
        atexit.register(self.shutdown)

    @property
    def num_waiting(self) -> int:
        """Children that another search evaluates and this one waits for."""
        return len(self._waiting)

    def submit(self, architecture: Architecture, seed: int) -> Future[Evaluation]:
        """Finds a child in the store, or has it evaluated.

        Where the other executor evaluates at once, this waits for a child that another search evaluates.

        Raises:
            InputError: if the store cannot be used. Whatever the other executor's ``submit`` raises, this raises too.
        """
        with self._lock:
            if self._is_shut_down:
                return _cancelled()
            name = architecture.key, seed
            if name in self._jobs:
                return self._jobs[name].future
            job = self._jobs[name] = _Job(architecture, seed)
        try:
            if not self._advance(job):
                self._wait(job)
        except BaseException as error:
            self._fail(job, error)
            raise
        return job.future

    def shutdown(self) -> None:
        with self._lock:
            if self._is_shut_down:
                return
            self._is_shut_down = True
        atexit.unregister(self.shutdown)
        self._changed.set()
        try:
            self.inner.shutdown()
        finally:
            if threading.current_thread() is not self._thread:
                self._thread.join()
            for job in list(self._jobs.values()):
                self._fail(job, CancelledError())
            self.store.close()

    def _configuration(self) -> str:
        """The digest of the evaluator's configuration, which the store has been told of."""
        with self._lock:
            if self._digest is None:
                digest = self.evaluator.digest()
                self.store.configure(digest, self.evaluator.describe())
                self._digest = digest
            return self._digest

    def _advance(self, job: _Job) -> bool:
        """Ends a child that is known, begins one that is free; False where another search evaluates it."""
        child = job.architecture.key, self._configuration(), job.seed
        known = self.store.get(*child)
        if known is not None:
            with self._lock:
                self.num_from_store += 1
            self._succeed(job, known)
            return True
        if not self.store.claim(*child):
            return False
        self._stop_waiting(job)
        try:
            evaluated = self.inner.submit(job.architecture, job.seed)
        except BaseException:
            self._release(job)
            raise
        evaluated.add_done_callback(partial(self._finish, job))
        return True

    def _finish(self, job: _Job, evaluated: Future[Evaluation]) -> None:
        """Keeps what the other executor found. Called in whichever thread it is done in."""
        try:
            evaluation = evaluated.result()
            if evaluation.status is Status.FAILED:
                self._release(job)
            else:
                evaluation = self.store.put(evaluation, self._configuration(), self._describe_genotype(job.architecture))
        except BaseException as error:  # whatever it is, the search must hear of it
            self._release(job)
            self._fail(job, error)
        else:
            self._succeed(job, evaluation)

    def _wait(self, job: _Job) -> None:
        with self._lock:
            self._waiting.append(job)
        if self.in_background:
            self._changed.set()
            return
        while not self._advance(job):
            if self._is_shut_down:
                raise CancelledError
            time.sleep(self._poll_seconds)

    def _release(self, job: _Job) -> None:
        try:
            self.store.release(job.architecture.key, self._configuration(), job.seed)
        except InputError as error:
            logger.warning("the claim on %s was not released: %s", job.architecture.key, error)

    def _succeed(self, job: _Job, evaluation: Evaluation) -> None:
        self._forget(job)
        if not job.future.done():
            job.future.set_result(evaluation)

    def _fail(self, job: _Job, error: BaseException) -> None:
        self._forget(job)
        if not job.future.done():
            job.future.set_exception(error)

    def _forget(self, job: _Job) -> None:
        self._stop_waiting(job)
        name = job.architecture.key, job.seed
        with self._lock:
            if self._jobs.get(name) is job:
                del self._jobs[name]

    def _stop_waiting(self, job: _Job) -> None:
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)

    def _watch(self) -> None:
        """What the executor's thread does all its life: it beats, and asks for children that others evaluate."""
        next_beat = time.monotonic() + self._beat_seconds
        while not self._is_shut_down:
            with self._lock:
                waiting = list(self._waiting) if self.in_background else []
            self._changed.wait(self._poll_seconds if waiting else max(0.0, next_beat - time.monotonic()))
            self._changed.clear()
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat = time.monotonic() + self._beat_seconds
            for job in waiting:
                if self._is_shut_down:
                    break
                try:
                    self._advance(job)
                except BaseException as error:  # whatever it is, the search must hear of it
                    self._fail(job, error)

    def _beat(self) -> None:
        with self._lock:
            is_evaluating = len(self._jobs) > len(self._waiting)
        if not is_evaluating:
            return
        try:
            self.store.beat()
        except InputError as error:  # a result that cannot be kept fails by itself
            logger.warning("other searches were not told that this one lives: %s", error)


def _running() -> Future[Evaluation]:
    """A future that nobody can cancel: the claim must be released first, which ``shutdown`` sees to."""
    future: Future[Evaluation] = Future()
    future.set_running_or_notify_cancel()
    return future


def _cancelled() -> Future[Evaluation]:
    future: Future[Evaluation] = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


@dataclass(eq=False)
class _Job:
    """A child that was asked for and is not known yet."""

    architecture: Architecture
    seed: int
    future: Future[Evaluation] = field(default_factory=_running)
