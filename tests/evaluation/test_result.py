"""Evaluations, of which a long search has many in memory."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from nases_env.evaluation import Evaluation, Status
from nases_env.search_spaces import EnasMicro


def restored(evaluation: Evaluation) -> Evaluation:
    return Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict())))


def test_evaluation_is_restored_from_json_and_pickle() -> None:
    evaluation = Evaluation("a", 3, Status.OK, 0.5, 0.6, 7, 8, 9, 1.5, "cuda:0", reason="none", fidelity=2)
    assert restored(evaluation) == evaluation == pickle.loads(pickle.dumps(evaluation))


def test_restored_evaluations_share_their_texts_with_each_other_and_with_the_architecture() -> None:
    architecture = EnasMicro().sample(np.random.default_rng(0))
    evaluation = Evaluation(architecture.key, 1, Status.TIMED_OUT, device="cuda:0", reason="it took too long")
    first, second = restored(evaluation), restored(evaluation)
    assert first.key is second.key is architecture.key
    assert first.device is second.device
    assert first.reason is second.reason
    assert not hasattr(first, "__dict__")
    assert not hasattr(architecture, "__dict__")


@pytest.mark.parametrize("name", ["key", "device", "reason"])
@pytest.mark.parametrize("value", [None, 1, ["text"]])
def test_texts_of_another_type_are_an_error(name: str, value: object) -> None:
    values = Evaluation("a", 3, Status.OK).to_dict()
    with pytest.raises((TypeError, ValueError)):
        Evaluation.from_dict({**values, name: value})
