"""Evaluations, of which a long search has many in memory."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.evaluation.result import require_evaluation


def restored(evaluation: Evaluation) -> Evaluation:
    return Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict())))


def test_evaluation_is_restored_from_json_and_pickle() -> None:
    evaluation = Evaluation("a", 3, Status.OK, 0.5, 0.6, 7, 8, 9, 1.5, "cuda:0", reason="none", fidelity=2)
    assert restored(evaluation) == evaluation == pickle.loads(pickle.dumps(evaluation))


@pytest.mark.parametrize("name", ["key", "device", "reason"])
@pytest.mark.parametrize("value", [None, 1, ["text"]])
def test_texts_of_another_type_are_an_error(name: str, value: object) -> None:
    values = Evaluation("a", 3, Status.OK).to_dict()
    with pytest.raises((TypeError, ValueError)):
        Evaluation.from_dict({**values, name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_accuracy": np.float32(0.5)},
        {"valid_accuracy": torch.tensor(0.5)},
        {"num_params": np.int64(3)},
        {"status": "ok"},
    ],
)
def test_numbers_of_numpy_and_torch_become_those_of_python(changes: dict[str, Any]) -> None:
    expected: dict[str, Any] = {"key": "a", "seed": 1, "status": Status.OK, "valid_accuracy": 0.5, "num_params": 3}
    evaluation = require_evaluation(Evaluation(**{**expected, **changes}), "a", 1, "Own")
    assert evaluation == restored(evaluation) == Evaluation(**expected)
    assert type(evaluation.valid_accuracy) is float


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "Own.evaluate must return an Evaluation, not None"),
        (0.5, "must return an Evaluation, not 0.5"),
        (Evaluation("a", 1, Status.OK, 95.0), "valid_accuracy is not a number in its range"),
        (Evaluation("a", 1, Status.OK, float("nan")), "valid_accuracy is not a number in its range"),
        (Evaluation("a", 1, Status.OK, score=-0.5), "score is not a number in"),
        (Evaluation("a", 1, Status.OK, np.zeros(2)), "invalid result"),  # type: ignore[arg-type]
        (Evaluation("a", 1, "good"), "'good' is not a valid Status"),  # type: ignore[arg-type]
        (Evaluation("b", 1, Status.OK), "result of b with the seed 1 for a with the seed 1"),
        (Evaluation("a", 0, Status.OK), "result of a with the seed 0 for a with the seed 1"),
    ],
)
def test_invalid_result_of_an_evaluator_is_an_input_error(result: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_evaluation(result, "a", 1, "Own")
