"""The serial executor: children that run out of GPU memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, OperatorShareEvaluator, Status
from nases_env.execution import SerialExecutor
from nases_env.search_spaces import Architecture, get_search_space
from tests.interrupts import interrupted_after

SPACE = get_search_space("nasbench201")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(5)]


@dataclass(frozen=True)
class OnFullGpu(OperatorShareEvaluator):
    """Runs out of GPU memory in the first ``num_failures`` evaluations."""

    search_space: str = "nasbench201"
    operator: str = "skip_connect"
    num_failures: int = 99
    seeds: list[int] = field(default_factory=list)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        self.seeds.append(seed)
        evaluation = super().evaluate(architecture, seed)
        if len(self.seeds) > self.num_failures:
            return evaluation
        return replace(evaluation, status=Status.OUT_OF_MEMORY, num_params=7, device="cuda")


def test_child_that_runs_out_of_gpu_memory_is_tried_again() -> None:
    evaluator = OnFullGpu(num_failures=2)
    executor = SerialExecutor(evaluator, gpu_wait_seconds=0.0)
    assert executor.submit(ARCHITECTURES[0], 0).result().status is Status.OK
    assert evaluator.seeds == [0, 0, 0]


def test_gpu_that_remains_full_stops_the_search() -> None:
    executor = SerialExecutor(OnFullGpu(), gpu_wait_seconds=0.0)
    for seed in range(2):
        evaluation = executor.submit(ARCHITECTURES[seed], seed).result()
        assert (evaluation.status, evaluation.reward, evaluation.num_params) == (Status.FAILED, 0.0, 7)
        assert (evaluation.device, evaluation.reason) == ("cuda", "the GPU is out of memory")
    with pytest.raises(InputError, match=r"^3 consecutive children failed .* free its memory .* --resume"):
        executor.submit(ARCHITECTURES[2], 2)


def test_children_that_are_too_large_for_the_gpu_do_not_stop_a_search_whose_others_fit() -> None:
    evaluator = OnFullGpu(num_failures=6)
    executor = SerialExecutor(evaluator, gpu_wait_seconds=0.0)
    statuses = [executor.submit(ARCHITECTURES[seed], seed).result().status for seed in range(3)]
    evaluator.seeds.clear()
    statuses += [executor.submit(ARCHITECTURES[seed], seed).result().status for seed in range(3, 5)]
    assert statuses == [Status.FAILED, Status.FAILED, Status.OK, Status.FAILED, Status.FAILED]


def test_wait_for_gpu_memory_can_be_interrupted() -> None:
    evaluator = OnFullGpu()
    executor = SerialExecutor(evaluator, gpu_wait_seconds=60.0)

    def wait() -> None:
        while not evaluator.seeds:
            time.sleep(0.001)
        time.sleep(0.02)

    with interrupted_after(wait):
        executor.submit(ARCHITECTURES[0], 0)
    assert evaluator.seeds == [0]
