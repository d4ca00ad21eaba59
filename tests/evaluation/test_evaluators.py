"""Evaluations depend only on architecture, configuration and seed."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.envs import SyntheticEnv
from nases_env.errors import InputError
from nases_env.evaluation import (
    Evaluation,
    Limits,
    OperatorShareEvaluator,
    Status,
    TrainingEvaluator,
    resolve_preset,
    training,
)
from nases_env.networks import count_parameters
from nases_env.optimizers import SGD
from nases_env.search_spaces import EnasMicro, EnasMicroSized, get_search_space
from nases_env.training import datasets
from tests.search_spaces.test_enas_micro import reorder_architecture
from tests.training.images import write_folder, write_image

SPACE = EnasMicro()
_, SMOKE = resolve_preset("smoke")
EVALUATOR = TrainingEvaluator("enas_micro", "digits", SMOKE, device="cpu")
ARCHITECTURE = SPACE.sample(np.random.default_rng(0))


def without_time(evaluation: Evaluation) -> Evaluation:
    return dataclasses.replace(evaluation, seconds=0.0)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Evaluate ``ARCHITECTURE`` with seed 1."""
    return EVALUATOR.evaluate(ARCHITECTURE, seed=1)


def test_evaluation_is_bit_identical_regardless_of_global_state(evaluation: Evaluation) -> None:
    assert evaluation.status is Status.OK
    assert evaluation.num_epochs == len(evaluation.curve) == SMOKE.num_epochs
    torch.manual_seed(123)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    again = pickle.loads(pickle.dumps(EVALUATOR)).evaluate(ARCHITECTURE, seed=1)
    assert without_time(again) == without_time(evaluation)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert EVALUATOR.evaluate(ARCHITECTURE, seed=2).curve != evaluation.curve


def test_failing_device_is_not_an_input_error() -> None:
    """The executor has checked the device, so it can only have failed since then, and the child is tried again."""
    with pytest.raises((RuntimeError, AssertionError)):  # the type depends on the build of torch
        dataclasses.replace(EVALUATOR, device="cuda:99").evaluate(ARCHITECTURE, seed=1)


def test_equivalent_architectures_have_the_same_evaluation(evaluation: Evaluation) -> None:
    same = reorder_architecture(ARCHITECTURE, np.random.default_rng(1))
    assert same.decisions != ARCHITECTURE.decisions
    assert without_time(EVALUATOR.evaluate(same, seed=1)) == without_time(evaluation)


class KilledError(Exception):
    """Raised to interrupt an evaluation in the middle of a step."""


def count_steps(monkeypatch: pytest.MonkeyPatch, fatal: int | None = None) -> list[int]:
    """Count the steps of SGD; the step with the number ``fatal`` raises ``KilledError``."""
    steps: list[int] = []
    step = SGD.step

    def counted_step(optimizer: SGD, *arguments: Any) -> Any:
        if len(steps) == fatal:
            raise KilledError
        steps.append(len(steps))
        return step(optimizer, *arguments)

    monkeypatch.setattr(SGD, "step", counted_step)
    return steps


def test_killed_evaluation_resumes_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(SMOKE, num_epochs=3, num_train_images=64, drop_path_prob=0.3)
    evaluator = dataclasses.replace(EVALUATOR, settings=settings)
    resumable = dataclasses.replace(evaluator, checkpoint_dir=str(tmp_path / "checkpoints"), checkpoint_interval=0.0)
    expected = evaluator.evaluate(ARCHITECTURE, seed=1)
    with monkeypatch.context() as patch:
        count_steps(patch, fatal=5)
        with pytest.raises(KilledError):
            resumable.evaluate(ARCHITECTURE, seed=1)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    steps = count_steps(monkeypatch)
    again = pickle.loads(pickle.dumps(resumable)).evaluate(ARCHITECTURE, seed=1)
    assert len(steps) == 2  # third epoch
    assert without_time(again) == without_time(expected)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_every_configuration_architecture_and_seed_has_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SMOKE, num_epochs=2, num_train_images=64)
    resumable = TrainingEvaluator("nasbench201", "digits", settings, checkpoint_dir=str(tmp_path), checkpoint_interval=0.0)
    other_split = dataclasses.replace(resumable, split_seed=1)
    first, second = (get_search_space("nasbench201").architecture([1, 0, 0, choice, 0, 0]) for choice in (1, 2))
    cases = [
        (resumable, first, 0),
        (resumable, first, 1),
        (resumable, second, 0),
        (other_split, first, 0),
        (other_split, second, 1),
    ]
    for number, (evaluator, architecture, seed) in enumerate(cases, start=1):
        with monkeypatch.context() as patch:
            count_steps(patch, fatal=2)
            with pytest.raises(KilledError):
                evaluator.evaluate(architecture, seed)
        assert len(list(tmp_path.iterdir())) == number


def test_checkpoints_do_not_change_the_digest(tmp_path: Path) -> None:
    EVALUATOR.prepare()
    resumable = dataclasses.replace(EVALUATOR, checkpoint_dir=str(tmp_path), checkpoint_interval=1.0)
    assert resumable.describe() == EVALUATOR.describe()
    assert resumable.digest() == EVALUATOR.digest()


def test_configuration_on_a_gpu_is_the_same_with_and_without_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = dataclasses.replace(EVALUATOR, device="cuda")
    elsewhere.prepare()
    described = elsewhere.describe()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert described == dataclasses.replace(EVALUATOR, device="auto", num_threads=4).describe()
    assert described["device"] == "cuda"


def test_images_that_change_after_they_were_read_are_an_error_in_a_later_process(tmp_path: Path) -> None:
    """Its results would be stored under the description of the earlier images."""
    write_folder(tmp_path, per_class=10, side=8)
    evaluator = TrainingEvaluator("enas_micro", "image_folder", SMOKE, data_dir=str(tmp_path), device="cpu")
    digest = evaluator.digest()
    message = f"the images of image_folder in {tmp_path} have changed since the first read; undo the change, or start"
    copies = [pickle.loads(pickle.dumps(evaluator)), evaluator.with_checkpoints("checkpoints", 0.0)]
    write_image(tmp_path / "train" / "cat" / "0000.png", width=8, height=8, seed=99)
    for copy in copies:
        for cache in (training.SPLIT_CACHE, datasets.IMAGE_CACHE):
            cache.clear()  # a new process has none
        for read in (copy.prepare, copy.digest, lambda copy=copy: copy.evaluate(ARCHITECTURE, seed=0)):
            with pytest.raises(InputError, match=message):
                read()
    assert dataclasses.replace(evaluator, split_seed=1).digest() != digest
    fresh = TrainingEvaluator("enas_micro", "image_folder", SMOKE, data_dir=str(tmp_path), device="cpu")
    assert fresh.digest() != digest


def test_splits_have_the_configured_sizes_and_depend_on_the_seed() -> None:
    everything = dataclasses.replace(
        EVALUATOR, settings=dataclasses.replace(SMOKE, num_train_images=None, num_valid_images=None)
    )
    train, valid = everything.images()
    assert len(valid) == round(0.1 * (len(train) + len(valid)))
    cut_train, cut_valid = EVALUATOR.images()
    assert (len(cut_train), len(cut_valid)) == (128, 64)
    assert torch.equal(cut_train.images, train.images[:128])
    assert not torch.equal(dataclasses.replace(EVALUATOR, split_seed=1).images()[1].images, cut_valid.images)


COSTS = [("max_params", "num_params"), ("max_flops", "num_flops"), ("max_memory", "activation_bytes")]


@pytest.mark.parametrize(("limit", "cost"), COSTS)
def test_screen_finds_children_above_a_limit_without_training(
    limit: str, cost: str, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count_steps(monkeypatch)
    value = getattr(evaluation, cost)
    for maximum, is_feasible in ((None, True), (value, True), (value - 1, False)):
        limited = dataclasses.replace(EVALUATOR, limits=Limits(**{limit: maximum}))
        screened = limited.screen(ARCHITECTURE, seed=1)
        assert (screened is None) == is_feasible
        assert limited.digest() == EVALUATOR.digest()
    assert screened is not None
    assert (screened.key, screened.status, getattr(screened, cost)) == (ARCHITECTURE.key, Status.TOO_LARGE, value)
    assert f", more than {limit} = " in screened.reason
    assert "; increase it, or decrease " in screened.reason
    assert steps == []


def test_screen_builds_no_network_whose_parameters_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = TrainingEvaluator("enas_micro_sized", "digits", SMOKE, device="cpu")
    architecture = get_search_space("enas_micro_sized").sample(np.random.default_rng(0))
    num_params = count_parameters(evaluator.build(architecture, seed=0))
    tight = dataclasses.replace(evaluator, limits=Limits(max_params=num_params - 1))
    both = dataclasses.replace(evaluator, limits=Limits(max_params=num_params, max_flops=1))
    traced = both.screen(architecture, seed=0)
    assert traced is not None
    assert traced.num_flops > 1
    monkeypatch.setattr(EnasMicroSized, "build", None)
    screened = tight.screen(architecture, seed=0)
    assert screened is not None
    assert (screened.status, screened.num_params) == (Status.TOO_LARGE, num_params)
    assert dataclasses.replace(evaluator, limits=Limits(max_params=num_params)).screen(architecture, seed=0) is None


def test_screen_computes_only_the_costs_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing a network takes several times longer than building it."""

    def fail(*args: Any) -> Any:
        raise AssertionError("the network was traced")

    monkeypatch.setattr(training, "count_costs", fail)
    for limits in (Limits(max_params=10), Limits(max_params=10, max_flops=10, max_memory=10)):
        assert dataclasses.replace(EVALUATOR, limits=limits).screen(ARCHITECTURE, seed=0) is not None
    assert dataclasses.replace(EVALUATOR, limits=Limits(max_params=10**9)).screen(ARCHITECTURE, seed=0) is None


def test_digest_is_that_of_earlier_versions() -> None:
    """They recorded a limit among the settings; stored results without one are still found."""
    assert EVALUATOR.describe()["settings"]["max_params"] is None


class Unbuildable(EnasMicro):
    def build(self, *args: Any, **options: Any) -> torch.nn.Module:
        raise ValueError("no such layer")

    def count_parameters(self, *args: Any, **options: Any) -> Any:
        return None


def test_child_that_cannot_be_built_is_left_to_evaluate() -> None:
    """The executor handles the errors of ``evaluate``."""
    evaluator = TrainingEvaluator(Unbuildable(), "digits", SMOKE, limits=Limits(max_params=100))
    assert evaluator.screen(ARCHITECTURE, seed=0) is None
    with pytest.raises(ValueError, match="no such layer"):
        evaluator.evaluate(ARCHITECTURE, seed=0)


def test_costs_of_a_child_that_cannot_be_built_are_not_known() -> None:
    """An agent computes the costs of many candidates; one that cannot be built must not end the search."""
    assert TrainingEvaluator(Unbuildable(), "digits", SMOKE).costs(ARCHITECTURE, seed=0) is None


def test_latency_of_a_child_that_cannot_be_built_is_not_known() -> None:
    """The executor handles the errors of ``evaluate``."""
    evaluator = TrainingEvaluator(Unbuildable(), "digits", SMOKE, limits=Limits(max_latency=1e-9))
    latency = evaluator.measure_latency(ARCHITECTURE, seed=0)
    assert latency == 0
    assert evaluator.screen_latency(ARCHITECTURE, 0, latency) is None


class Uncountable(EnasMicro):
    def count_parameters(self, *args: Any, **options: Any) -> Any:
        raise AttributeError("no such setting")


def test_error_in_count_parameters_does_not_disable_the_limit() -> None:
    evaluator = TrainingEvaluator(Uncountable(), "digits", SMOKE, limits=Limits(max_params=10))
    with pytest.raises(AttributeError, match="no such setting"):
        evaluator.screen(ARCHITECTURE, seed=0)


def test_to_dict_returns_json_values(evaluation: Evaluation) -> None:
    record = evaluation.to_dict()
    assert record["status"] == "ok"
    assert type(record["valid_accuracy"]) is float
    assert type(record["curve"][0]["epoch"]) is int
    assert 64 * record["valid_accuracy"] == pytest.approx(round(64 * record["valid_accuracy"]), abs=1e-12)


def test_unknown_operator_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"unknown operator 'sep_conv_3x4' \(did you mean 'sep_conv_3x3'\?\)") as caught:
        OperatorShareEvaluator("enas_micro", "sep_conv_3x4")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operator", ["", 3])
def test_operator_without_a_name_is_an_input_error(operator: Any) -> None:
    with pytest.raises(InputError, match=f"unknown operator {operator!r}"):
        SyntheticEnv(operator=operator)


def test_operator_share_has_the_known_optimum_and_mean() -> None:
    evaluator = OperatorShareEvaluator("enas_micro", "sep_conv_3x3")
    rng = np.random.default_rng(0)
    best = SPACE.architecture([1 if index % 2 else 0 for index in range(40)])
    assert evaluator.evaluate(best, seed=0).reward == 1.0
    architectures = [SPACE.sample(rng) for _ in range(500)]
    rewards = [evaluator.evaluate(architecture, seed=0).reward for architecture in architectures]
    assert np.mean(rewards) == pytest.approx(0.2, abs=0.02)
    assert [evaluator.evaluate(reorder_architecture(a, rng), seed=0).reward for a in architectures[:50]] == rewards[:50]
