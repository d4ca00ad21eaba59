"""Evaluation by a custom search space that provides accuracies itself: from a table, a formula or a model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from nases_env.errors import InputError, one_line
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.seeding import numpy_generator


@dataclass(frozen=True)
class QueryEvaluator(Evaluator):
    """Uses the result of the search space's ``query`` as validation and training accuracy.

    The accuracy must depend on the network alone: an environment queries each architecture once.

    Attributes:
        search_space: a search space that overrides ``query``, or its name.
    """

    search_space: str | SearchSpace

    is_expensive = False
    is_noisy = False

    def prepare(self) -> None:
        """Query a sampled architecture to check that the search space provides accuracies.

        Raises:
            InputError: see ``evaluate``.
        """
        self.evaluate(queried_first(get_search_space(self.search_space)), seed=0)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Query the accuracy of ``architecture``; ``seed`` has no effect.

        Raises:
            InputError: if the search space does not override ``query``, or ``query`` raises ``LookupError`` or returns
                something other than a number in [0, 1].
        """
        search_space = get_search_space(self.search_space)
        try:
            accuracy = search_space.query(architecture)
        except LookupError as error:  # a missing row; other exceptions may be temporary, and executors try again
            raise InputError(
                f"query of {search_space.name} failed for the architecture {architecture.key} "
                f"({type(error).__name__}: {one_line(error)}); it must return an accuracy for every architecture, such as 0 "
                "for one without a result"
            ) from error
        if not (isinstance(accuracy, Real) and 0 <= accuracy <= 1):
            raise InputError(
                f"query of {search_space.name} returned {accuracy!r} for the architecture {architecture.key}; "
                "it must return an accuracy, a number in [0, 1]"
            )
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=float(accuracy), train_accuracy=float(accuracy))


def queried_first(search_space: SearchSpace) -> Architecture:
    """Return the sampled architecture that ``QueryEvaluator.prepare`` queries."""
    return search_space.sample(numpy_generator(0, "query"))
