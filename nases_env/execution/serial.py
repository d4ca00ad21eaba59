"""Executor that evaluates children in this process."""

from __future__ import annotations

import time
from concurrent.futures import Future

from nases_env.evaluation import Evaluation, Evaluator
from nases_env.execution.attempts import GPU_WAIT_SECONDS, MAX_RETRIES, Attempts, Child
from nases_env.execution.executor import Executor, Task
from nases_env.search_spaces import Architecture


class SerialExecutor(Executor):
    """Evaluates each child in ``submit``, in this process; ``submit`` raises the exceptions of the evaluator.

    A child that runs out of GPU memory is evaluated again, as by ``WorkerPoolExecutor``.

    Args:
        evaluator: evaluates the children.
        gpu_wait_seconds: time between two attempts at a child that ran out of GPU memory.
    """

    in_background = False

    def __init__(self, evaluator: Evaluator, *, gpu_wait_seconds: float = GPU_WAIT_SECONDS) -> None:
        self.evaluator = evaluator
        self._attempts = Attempts(evaluator, MAX_RETRIES)
        self._gpu_wait_seconds = gpu_wait_seconds

    def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        child = Child(Task(architecture, seed, fidelity))
        while (evaluation := self._attempts.attempt(child, self._run)) is None:
            time.sleep(self._gpu_wait_seconds)
        future.set_result(evaluation)
        return future

    def _run(self, task: Task) -> Evaluation:
        return task.run(self.evaluator)
