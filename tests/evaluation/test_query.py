"""Accuracies that a search space gives itself."""

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


class Known(SearchSpace):
    """The share of the decisions that make their last choice."""

    name = "known"
    decision_sizes = (2, 3, 4, 5)

    def query(self, architecture: Architecture) -> float:
        return float(np.mean(np.array(architecture.decisions) == np.array(self.decision_sizes) - 1))


class Given(Known):
    """Gives what it was made with."""

    def __init__(self, accuracy: object) -> None:
        self.accuracy = accuracy

    def query(self, architecture: Architecture) -> float:
        return self.accuracy  # type: ignore[return-value]


@pytest.mark.parametrize("search_space", [Known(), f"{__name__}:Known"])
def test_an_evaluation_is_what_the_space_knows(search_space: str | SearchSpace) -> None:
    evaluator = pickle.loads(pickle.dumps(QueryEvaluator(search_space)))
    architecture = Known().architecture([1, 2, 0, 4])
    evaluation = evaluator.evaluate(architecture, seed=3)
    assert (evaluation.key, evaluation.seed, evaluation.status) == (architecture.key, 3, Status.OK)
    assert evaluation.reward == evaluation.valid_accuracy == evaluation.train_accuracy == 0.75
    assert (evaluation.num_params, evaluation.num_flops, evaluation.num_epochs) == (0, 0, 0)


@pytest.mark.parametrize("accuracy", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_any_real_number_in_the_unit_interval_is_an_accuracy(accuracy: object) -> None:
    evaluation = QueryEvaluator(Given(accuracy)).evaluate(Known().architecture([0] * 4), seed=0)
    assert type(evaluation.valid_accuracy) is float
    assert evaluation.valid_accuracy == accuracy


@pytest.mark.parametrize("accuracy", [-0.1, 1.01, 93.2, np.nan, np.inf, -np.inf, None, "0.9", [0.9], 1j])
def test_what_is_no_accuracy_is_one_line_that_names_the_architecture(accuracy: object) -> None:
    with pytest.raises(InputError, match=r"known:0-0-0-0; its query must give an accuracy, a number in \[0, 1\]") as caught:
        QueryEvaluator(Given(accuracy)).evaluate(Known().architecture([0] * 4), seed=0)
    assert "\n" not in str(caught.value)
    assert repr(accuracy) in str(caught.value)


def test_a_space_that_looks_nothing_up_says_what_to_override() -> None:
    space = ListSpace((2, 3))
    with pytest.raises(InputError, match="override its query"):
        QueryEvaluator(space).evaluate(space.architecture([0, 0]), seed=0)
    with pytest.raises(InputError, match="override its query"):
        QueryEvaluator(space).prepare()


def test_preparation_misses_a_wrong_number_before_a_search_begins() -> None:
    QueryEvaluator(Known()).prepare()
    with pytest.raises(InputError, match="must give an accuracy"):
        QueryEvaluator(Given(93.2)).prepare()
