"""The table of NAS-Bench-201 with latencies: accuracy, costs, limits, and the error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Limits, NasBench201CostEvaluator, Status
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.evaluation.latency_table import LINES, SPACE, write_latency_table

CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv")


def test_accuracy_and_latency_are_read_and_costs_are_those_of_the_published_network(table: str) -> None:
    evaluator = NasBench201CostEvaluator(path=table, device="ms_phone", counts_costs=True)
    child = SPACE.from_string(CONVOLUTIONS)
    evaluation = evaluator.evaluate(child, 3)
    assert (evaluation.status, evaluation.seed, evaluation.num_epochs) == (Status.OK, 3, 200)
    assert evaluation.valid_accuracy == pytest.approx(0.82)
    assert evaluator.measure_latency(child, 0) == pytest.approx(0.025)
    assert evaluation.num_params == 1_531_546  # 1.532 million in the paper of NAS-Bench-201
    assert evaluation.num_flops > 0
    assert NasBench201CostEvaluator(path=table).evaluate(child, 3).num_params == 0


def test_order_of_operators_has_no_effect(table: str) -> None:
    permuted = NasBench201(NasBench201.order_operators(1))
    first, second = (NasBench201CostEvaluator(space, table, "ms_phone") for space in (SPACE, permuted))
    assert first.measure_latency(SPACE.from_string(CONVOLUTIONS), 0) == second.measure_latency(
        permuted.from_string(CONVOLUTIONS), 0
    )
    assert first.digest() == second.digest()
    assert first.digest() != NasBench201CostEvaluator(SPACE, table, "ms_server").digest()


def test_child_above_a_limit_is_infeasible(table: str) -> None:
    child = SPACE.from_string(CONVOLUTIONS)
    limited = NasBench201CostEvaluator(path=table, limits=Limits(max_params=10**6))
    screened = limited.screen(child, 0)
    assert screened is not None
    assert screened.status is Status.TOO_LARGE
    assert screened.reason == "1,531,546 parameters, more than max_params = 1,000,000; increase it"
    assert NasBench201CostEvaluator(path=table, limits=Limits(max_params=2 * 10**6)).screen(child, 0) is None
    # Not traced, which takes many times as long as the network: an agent screens hundreds of candidates.
    assert screened.num_flops == 0
    flops = NasBench201CostEvaluator(path=table, limits=Limits(max_params=2 * 10**6, max_flops=10**6)).screen(child, 0)
    assert flops is not None
    assert "FLOPs" in flops.reason
    assert flops.num_flops > 10**6


def test_reason_of_a_latency_names_no_setting_of_the_networks(table: str) -> None:
    limited = NasBench201CostEvaluator(path=table, device="ms_phone", limits=Limits(max_latency=0.01))
    screened = limited.screen_latency(SPACE.from_string(CONVOLUTIONS), 0, 0.025)
    assert screened is not None
    assert screened.reason.endswith("more than max_latency = 10ms; increase it")


def test_limit_of_the_latency_needs_a_device(table: str) -> None:
    with pytest.raises(InputError, match=r"max_latency needs the device .* such as ms_pixel3"):
        NasBench201CostEvaluator(path=table, limits=Limits(max_latency=0.01))


def test_unknown_device_is_an_input_error_that_lists_the_devices(table: str) -> None:
    evaluator = NasBench201CostEvaluator(path=table, device="ms_phones")
    with pytest.raises(InputError, match=r"no device ms_phones \(did you mean 'ms_phone'\?\); it has ms_phone, ms_server"):
        evaluator.prepare()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("valid_accuracy_200_epochs_cifar10", "accuracy", "its header is different; use a CSV file with the header arch,"),
        (",7", ",-1", "line 2 of .*-1 is not a latency in milliseconds"),
        (",7", ",inf", "inf is not a latency in milliseconds"),
        (",10.0,", ",101,", "101 is not an accuracy in percent"),
    ],
)
def test_invalid_table_is_an_input_error(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_latency_table(tmp_path / "latency.csv", [line.replace(old, new) for line in LINES])
    with pytest.raises(InputError, match=message):
        NasBench201CostEvaluator(path=path).prepare()
