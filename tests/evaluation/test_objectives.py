"""The values of objectives, and the error messages for their names."""

from __future__ import annotations

from typing import Any

import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status, objective_value, parse_objectives


@pytest.mark.parametrize(
    ("name", "costs", "value"),
    [
        ("params", {"num_params": 1000}, -3.0),
        ("flops", {"num_flops": 10**6}, -6.0),
        ("memory", {"activation_bytes": 100}, -2.0),
        ("latency", {"latency": 1e-3}, -6.0),
        ("params", {"num_params": 1}, 0.0),
        ("params", {}, -16.0),
        ("latency", {"latency": 1e-12}, 0.0),
        ("latency", {"latency": 1e9}, -16.0),
    ],
)
def test_value_of_a_cost_is_its_negated_logarithm_in_the_range(name: str, costs: dict[str, Any], value: float) -> None:
    child = Evaluation("key", 0, Status.OK, valid_accuracy=0.5, **costs)
    assert objective_value(name, child) == pytest.approx(value)
    assert objective_value("accuracy", child) == 0.5


def test_child_without_a_result_has_the_lowest_values() -> None:
    child = Evaluation("key", 0, Status.DIVERGED, num_params=10)
    assert (objective_value("accuracy", child), objective_value("params", child)) == (0.0, -16.0)


def test_objectives_are_names_or_a_text_with_commas() -> None:
    assert parse_objectives("accuracy,params") == parse_objectives(["accuracy", "params"]) == ("accuracy", "params")


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ("accuracy", "the objectives are accuracy; they must be accuracy and then distinct costs, such as accuracy,params"),
        ((), "the objectives are empty; they must be"),
        ("params,accuracy", "must be accuracy and then"),
        ("accuracy,params,params", "distinct costs"),
        ("accuracy,flop", r"unknown objective 'flop' \(did you mean 'flops'\?\); known: accuracy, params, flops"),
        (("accuracy", 3), "unknown objective 3; known:"),
    ],
)
def test_invalid_objectives_are_input_errors(objectives: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_objectives(objectives)
