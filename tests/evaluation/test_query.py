"""Accuracies that a search space provides itself."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Status
from nases_env.evaluation.query import QueryEvaluator
from nases_env.search_spaces import Architecture, SearchSpace
from tests.embedding.spaces import ListSpace


class LastChoiceSpace(SearchSpace):
    """The accuracy is the share of decisions that take their last choice."""

    name = "last_choice"
    decision_sizes = (2, 3, 4, 5)

    def query(self, architecture: Architecture) -> float:
        return float(np.mean(np.array(architecture.decisions) == np.array(self.decision_sizes) - 1))


class ConstantSpace(LastChoiceSpace):
    """The accuracy is a given object."""

    def __init__(self, accuracy: object) -> None:
        self.accuracy = accuracy

    def query(self, architecture: Architecture) -> float:
        return self.accuracy  # type: ignore[return-value]


@pytest.mark.parametrize("search_space", [LastChoiceSpace(), f"{__name__}:LastChoiceSpace"])
def test_evaluation_contains_the_accuracy_of_the_search_space(search_space: str | SearchSpace) -> None:
    evaluator = pickle.loads(pickle.dumps(QueryEvaluator(search_space)))
    architecture = LastChoiceSpace().architecture([1, 2, 0, 4])
    evaluation = evaluator.evaluate(architecture, seed=3)
    assert (evaluation.key, evaluation.seed, evaluation.status) == (architecture.key, 3, Status.OK)
    assert evaluation.reward == evaluation.valid_accuracy == evaluation.train_accuracy == 0.75
    assert (evaluation.num_params, evaluation.num_flops, evaluation.num_epochs) == (0, 0, 0)


@pytest.mark.parametrize("accuracy", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_any_real_number_in_the_unit_interval_is_accepted(accuracy: object) -> None:
    evaluation = QueryEvaluator(ConstantSpace(accuracy)).evaluate(LastChoiceSpace().architecture([0] * 4), seed=0)
    assert type(evaluation.valid_accuracy) is float
    assert evaluation.valid_accuracy == accuracy


@pytest.mark.parametrize("accuracy", [-0.1, 1.01, 93.2, np.nan, np.inf, -np.inf, None, "0.9", [0.9], 1j])
def test_invalid_accuracy_is_an_input_error_with_the_architecture(accuracy: object) -> None:
    with pytest.raises(InputError, match=r"last_choice:0-0-0-0; it must return an accuracy, a number in \[0, 1\]") as caught:
        QueryEvaluator(ConstantSpace(accuracy)).evaluate(LastChoiceSpace().architecture([0] * 4), seed=0)
    assert "\n" not in str(caught.value)
    assert repr(accuracy) in str(caught.value)


class PartialTable(LastChoiceSpace):
    """A table without the rows of the first choice, which ``sample`` does not draw."""

    def sample(self, rng: np.random.Generator) -> Architecture:
        return self.architecture(rng.integers(1, self.decision_sizes).tolist())

    def query(self, architecture: Architecture) -> float:
        return {choice: choice / 10 for choice in range(1, 5)}[min(architecture.decisions)]


def test_missing_row_is_an_input_error_with_the_architecture_unless_it_is_not_queried() -> None:
    evaluator = QueryEvaluator(PartialTable())
    evaluator.prepare()
    with pytest.raises(
        InputError, match=r"last_choice:1-0-0-0 \(KeyError: 0\); it must return an accuracy for every"
    ) as caught:
        evaluator.evaluate(PartialTable().architecture([1, 0, 0, 0]), seed=0)
    assert isinstance(caught.value.__cause__, KeyError)


def test_search_space_without_query_is_an_input_error() -> None:
    space = ListSpace((2, 3))
    with pytest.raises(InputError, match="override its query"):
        QueryEvaluator(space).evaluate(space.architecture([0, 0]), seed=0)
    with pytest.raises(InputError, match="override its query"):
        QueryEvaluator(space).prepare()


def test_prepare_detects_an_invalid_accuracy() -> None:
    QueryEvaluator(LastChoiceSpace()).prepare()
    with pytest.raises(InputError, match="must return an accuracy"):
        QueryEvaluator(ConstantSpace(93.2)).prepare()
