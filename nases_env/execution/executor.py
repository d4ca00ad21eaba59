"""What every executor offers, in the terms of ``concurrent.futures``, and the one that evaluates here and now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass

from nases_env.evaluation import Evaluation, Evaluator
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class Task:
    """A child to evaluate: all that travels to where it is evaluated, beside the evaluator's configuration.

    Attributes:
        architecture: the child.
        seed: the child's own seed.
    """

    architecture: Architecture
    seed: int

    @property
    def name(self) -> str:
        """A short name for files of this child, the same in every run: 16 hexadecimal digits."""
        return sha256_hex(f"{self.architecture.key}\x1f{self.seed}")[:16]


class Executor(ABC):
    """Evaluates children with one evaluator, somewhere.

    Attributes:
        evaluator: evaluates the children.
        in_background: whether ``submit`` returns before the child is evaluated, so that several are evaluated at once.
        num_from_store: children that needed no evaluation, since a store has them.
    """

    evaluator: Evaluator
    in_background: bool
    num_from_store: int = 0

    @abstractmethod
    def submit(self, architecture: Architecture, seed: int) -> Future[Evaluation]:
        """Has a child evaluated.

        Returns:
            A future of the evaluation. It raises ``InputError`` where a person has to mend something before children can be
            evaluated, and ``CancelledError`` where the executor was shut down before.
        """

    def shutdown(self) -> None:  # noqa: B027 - not all have something to end
        """Abandons the children under evaluation and ends all workers. To call it twice does no harm."""


class SerialExecutor(Executor):
    """Evaluates each child in this process as it is submitted. What an evaluator raises, ``submit`` raises."""

    in_background = False

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def submit(self, architecture: Architecture, seed: int) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        future.set_result(self.evaluator.evaluate(architecture, seed))
        return future
