"""Evaluations, of which a long search has many in memory."""

from __future__ import annotations

import json
import pickle

import pytest

from nases_env.evaluation import Evaluation, Status


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
