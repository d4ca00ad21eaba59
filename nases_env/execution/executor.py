"""Base class of executors, modeled on ``concurrent.futures.Executor``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass

from nases_env.evaluation import Evaluation, Evaluator
from nases_env.evaluation.result import require_evaluation
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class Task:
    """A child to evaluate. A worker needs only the task and the evaluator.

    Attributes:
        architecture: the architecture of the child.
        seed: the seed of the child.
        fidelity: the rung of the evaluation; None: that of the evaluator.
    """

    architecture: Architecture
    seed: int
    fidelity: int | None = None

    def run(self, evaluator: Evaluator) -> Evaluation:
        """Evaluate the child with ``evaluator``.

        Raises:
            InputError: if the evaluator does not return a valid evaluation of this child.
        """
        if self.fidelity is not None:
            evaluator = evaluator.at_fidelity(self.fidelity)
        evaluation = evaluator.evaluate(self.architecture, self.seed)
        return require_evaluation(evaluation, self.architecture.key, self.seed, type(evaluator).__name__)

    @property
    def name(self) -> str:
        """A short name for files of this child, 16 hexadecimal digits; the same in every run."""
        return sha256_hex(f"{self.architecture.key}\x1f{self.seed}")[:16]


class Executor(ABC):
    """Evaluates children with one evaluator; subclasses decide where.

    Attributes:
        evaluator: evaluates the children.
        in_background: whether ``submit`` returns before the child is evaluated, so that several can be in flight.
        num_workers: maximum number of children that are evaluated concurrently.
    """

    evaluator: Evaluator
    in_background: bool
    num_workers: int = 1

    @abstractmethod
    def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        """Submit a child for evaluation.

        Args:
            architecture: the architecture of the child.
            seed: the seed of the child.
            fidelity: the rung of the evaluation; None: that of the evaluator.

        Returns:
            A future of the evaluation. It raises ``InputError`` if children cannot be evaluated until the user fixes
            something, and ``CancelledError`` if the executor is shut down first.
        """

    def shutdown(self) -> None:  # noqa: B027 - optional
        """Cancel the children in flight and stop all workers. Can be called repeatedly."""
