"""Attempts at a child: errors, retries, and the error that ends a search in which no child can be evaluated."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nases_env.devices import device_type
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution.executor import Task

logger = logging.getLogger(__name__)

MAX_RETRIES = 2
"""Default number of retries of a child."""

MAX_CONSECUTIVE_FAILURES = 3
"""After this many consecutive ``FAILED`` children the search aborts: the cause is then probably the machine or the code."""

GPU_WAIT_SECONDS = 10.0
"""Time between two attempts at a child that ran out of GPU memory, in which another process may release memory."""


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


@dataclass
class Child:
    """A child that is being evaluated: the failed attempts so far, and their duration in seconds."""

    task: Task
    failures: list[AttemptError] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def found_full_gpu(self) -> bool:
        """Whether the last attempt ran out of GPU memory."""
        return bool(self.failures) and self.failures[-1].evaluation is not None


class Attempts:
    """Evaluates children in several attempts. Can be used by several threads.

    A training that runs out of GPU memory is a failed attempt, because other processes may use the same GPU. If all attempts
    at a child fail, its evaluation has the status ``TIMED_OUT`` or ``OUT_OF_MEMORY`` if all attempts have that status, else
    ``FAILED``.

    Args:
        evaluator: the evaluator of the children.
        max_retries: maximum number of retries per child.
    """

    def __init__(self, evaluator: Evaluator, max_retries: int) -> None:
        self._evaluator = evaluator
        self._num_attempts = 1 + max_retries
        self._lock = threading.Lock()
        self._num_consecutive_failures = 0

    def attempt(self, child: Child, evaluate: Callable[[Task], Evaluation]) -> Evaluation | None:
        """Attempt to evaluate a child; return None if the attempt failed and ``child`` is to be attempted again.

        Args:
            child: the child, to which a failure is added.
            evaluate: evaluates the child, or raises ``AttemptError``. Other exceptions are raised again.

        Raises:
            InputError: if this was the last attempt, and ``MAX_CONSECUTIVE_FAILURES`` or more children had the status
                ``FAILED`` since the last one that could be evaluated.
        """
        start = time.monotonic()
        try:
            evaluation = evaluate(child.task)
            if evaluation.status is Status.OUT_OF_MEMORY:
                raise AttemptError("the GPU is out of memory", evaluation=evaluation)
        except AttemptError as failure:
            child.seconds += time.monotonic() - start
            child.failures.append(failure)
            number, reason = len(child.failures), one_line(failure.reason)
            logger.warning("child %s, attempt %d of %d: %s", child.task.name, number, self._num_attempts, reason)
            return None if number < self._num_attempts else self._failed_evaluation(child)
        with self._lock:
            self._num_consecutive_failures = 0
        return evaluation

    def _failed_evaluation(self, child: Child) -> Evaluation:
        """Return the evaluation of a child for which every attempt failed."""
        statuses = {failure.status for failure in child.failures}
        status = child.failures[0].status if len(statuses) == 1 else Status.FAILED
        reason = "; ".join(dict.fromkeys(one_line(failure.reason) for failure in child.failures))
        if status is Status.FAILED:
            with self._lock:
                self._num_consecutive_failures += 1
                num_failed = self._num_consecutive_failures
            if num_failed >= MAX_CONSECUTIVE_FAILURES:
                raise _abort(num_failed, reason, child)
        last = child.failures[-1].evaluation  # with the costs of the network
        key, seed = child.task.architecture.key, child.task.seed
        failed = Evaluation(key, seed, status, device=self._device()) if last is None else last
        return replace(failed, status=status, seconds=child.seconds, reason=reason)

    def _device(self) -> str:
        """Return the device of the children, for those without a result; the device of a table is one of its columns."""
        device = getattr(self._evaluator, "device", None) if self._evaluator.is_expensive else None
        return device_type(device) if device == "auto" else str(device or "cpu")


def _abort(num_failed: int, reason: str, child: Child) -> InputError:
    last_lines = " ".join(child.failures[-1].log.splitlines()[-3:])
    log = f"; end of its log: {one_line(last_lines)}" if last_lines.strip() else ""
    fix, instead = "fix the cause", ""
    if child.found_full_gpu:
        fix, instead = "free its memory", ", or start a new one with a smaller preset, batch_size or num_filters"
    return InputError(
        f"{num_failed} consecutive children failed in every attempt, the last one: {reason}{log}; "
        f"{fix} and start again; resume a search with --resume{instead}"
    )
