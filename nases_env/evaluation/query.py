"""Accuracies that a search space knows without training: a person's own table, formula or model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space


@dataclass(frozen=True)
class QueryEvaluator(Evaluator):
    """Asks the search space itself: its ``query`` is both the validation and the training accuracy.

    It must depend on the network alone: an environment looks each architecture up once.

    Attributes:
        search_space: a search space that overrides ``query``, or its name.
    """

    search_space: str | SearchSpace

    is_expensive = False

    def prepare(self) -> None:
        """Looks one architecture up, whichever: a search space must know all of them.

        Raises:
            InputError: as ``evaluate``.
        """
        search_space = get_search_space(self.search_space)
        self.evaluate(search_space.architecture([0] * search_space.num_decisions), seed=0)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """What ``query`` says of ``architecture``; nothing in it is random.

        Raises:
            InputError: if the search space looks nothing up, or what it gives is no number in [0, 1].
        """
        search_space = get_search_space(self.search_space)
        accuracy = search_space.query(architecture)
        if not (isinstance(accuracy, Real) and 0 <= accuracy <= 1):
            raise InputError(
                f"{search_space.name} looked up {accuracy!r} for the architecture {architecture.key}; "
                "its query must give an accuracy, a number in [0, 1]"
            )
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=float(accuracy), train_accuracy=float(accuracy))
