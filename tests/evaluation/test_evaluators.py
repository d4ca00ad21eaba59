"""Evaluators are functions of architecture, configuration and seed."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, OperatorShareEvaluator, Status, TrainingEvaluator, resolve_preset
from nases_env.search_spaces import EnasMicro
from tests.search_spaces.test_enas_micro import rewrite_architecture

SPACE = EnasMicro()
_, SMOKE = resolve_preset("smoke")
EVALUATOR = TrainingEvaluator("enas_micro", "digits", SMOKE, device="cpu")


def timeless(evaluation: Evaluation) -> Evaluation:
    return dataclasses.replace(evaluation, seconds=0.0)


def test_an_evaluation_repeats_bit_for_bit_whatever_happened_before() -> None:
    architecture = SPACE.sample(np.random.default_rng(0))
    first = EVALUATOR.evaluate(architecture, seed=1)
    assert first.status is Status.OK
    assert first.num_epochs == len(first.curve) == SMOKE.num_epochs
    torch.manual_seed(123)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    again = pickle.loads(pickle.dumps(EVALUATOR)).evaluate(architecture, seed=1)
    assert timeless(again) == timeless(first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert EVALUATOR.evaluate(architecture, seed=2).curve != first.curve


def test_architectures_with_one_key_have_one_evaluation() -> None:
    rng = np.random.default_rng(1)
    architecture = SPACE.sample(rng)
    same = rewrite_architecture(architecture, rng)
    assert same.decisions != architecture.decisions
    assert timeless(EVALUATOR.evaluate(same, 5)) == timeless(EVALUATOR.evaluate(architecture, 5))


class KilledError(Exception):
    """What ends an evaluation in the middle of a step."""


def count_steps(monkeypatch: pytest.MonkeyPatch, fatal: int | None = None) -> list[int]:
    """The steps of SGD from now on, a number each; the one whose number is ``fatal`` ends the training."""
    steps: list[int] = []
    step = torch.optim.SGD.step

    def counted_step(optimizer: torch.optim.SGD, *arguments: Any) -> Any:
        if len(steps) == fatal:
            raise KilledError
        steps.append(len(steps))
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", counted_step)
    return steps


def test_an_evaluation_that_was_killed_continues_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(SMOKE, num_epochs=3, drop_path_keep=0.7)
    evaluator = dataclasses.replace(EVALUATOR, settings=settings)
    resumable = dataclasses.replace(evaluator, checkpoint_dir=str(tmp_path / "checkpoints"), checkpoint_interval=0.0)
    architecture = SPACE.sample(np.random.default_rng(0))
    expected = evaluator.evaluate(architecture, seed=1)
    with monkeypatch.context() as patch:
        count_steps(patch, fatal=10)
        with pytest.raises(KilledError):
            resumable.evaluate(architecture, seed=1)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    steps = count_steps(monkeypatch)
    again = pickle.loads(pickle.dumps(resumable)).evaluate(architecture, seed=1)
    assert len(steps) == 4  # of the third epoch
    assert timeless(again) == timeless(expected)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_is_of_one_configuration_architecture_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumable = dataclasses.replace(
        EVALUATOR,
        settings=dataclasses.replace(SMOKE, num_epochs=2),
        checkpoint_dir=str(tmp_path),
        checkpoint_interval=0.0,
    )
    evaluators = (resumable, dataclasses.replace(resumable, split_seed=1))
    architectures = [SPACE.sample(np.random.default_rng(seed)) for seed in (0, 1)]
    for number, (evaluator, architecture, seed) in enumerate(itertools.product(evaluators, architectures, (0, 1)), start=1):
        with monkeypatch.context() as patch:
            count_steps(patch, fatal=5)
            with pytest.raises(KilledError):
                evaluator.evaluate(architecture, seed)
        assert len(list(tmp_path.iterdir())) == number


def test_where_checkpoints_are_does_not_change_what_a_store_knows(tmp_path: Path) -> None:
    EVALUATOR.prepare()
    resumable = dataclasses.replace(EVALUATOR, checkpoint_dir=str(tmp_path), checkpoint_interval=1.0)
    assert resumable.describe() == EVALUATOR.describe()
    assert resumable.digest() == EVALUATOR.digest()


def test_splits_are_disjoint_cut_to_size_and_the_seeds() -> None:
    everything = dataclasses.replace(
        EVALUATOR, settings=dataclasses.replace(SMOKE, num_train_images=None, num_valid_images=None)
    )
    train, valid = everything.images()
    assert len(valid) == round(0.1 * (len(train) + len(valid)))
    cut_train, cut_valid = EVALUATOR.images()
    assert (len(cut_train), len(cut_valid)) == (128, 64)
    assert torch.equal(cut_train.images, train.images[:128])
    assert not torch.equal(dataclasses.replace(EVALUATOR, split_seed=1).images()[1].images, cut_valid.images)


def test_a_child_above_the_limit_is_not_trained() -> None:
    limited = dataclasses.replace(EVALUATOR, settings=dataclasses.replace(SMOKE, max_params=100))
    evaluation = limited.evaluate(SPACE.sample(np.random.default_rng(0)), seed=0)
    assert evaluation.status is Status.TOO_LARGE
    assert evaluation.num_params > 100
    assert (evaluation.reward, evaluation.curve) == (0.0, ())


def test_record_is_plain_json_values() -> None:
    record = EVALUATOR.evaluate(SPACE.sample(np.random.default_rng(0)), seed=0).to_dict()
    assert record["status"] == "ok"
    assert type(record["valid_accuracy"]) is float
    assert type(record["curve"][0]["epoch"]) is int
    assert 64 * record["valid_accuracy"] == pytest.approx(round(64 * record["valid_accuracy"]), abs=1e-12)


def test_an_operator_that_the_search_space_does_not_have() -> None:
    with pytest.raises(InputError, match=r"unknown operator 'sep_conv_3x4' \(did you mean 'sep_conv_3x3'\?\)") as caught:
        OperatorShareEvaluator("enas_micro", "sep_conv_3x4")
    assert "\n" not in str(caught.value)


def test_analytic_optimum_and_mean() -> None:
    evaluator = OperatorShareEvaluator("enas_micro", "sep_conv_3x3")
    rng = np.random.default_rng(0)
    best = SPACE.architecture([1 if index % 2 else 0 for index in range(40)])
    assert evaluator.evaluate(best, seed=0).reward == 1.0
    architectures = [SPACE.sample(rng) for _ in range(500)]
    rewards = [evaluator.evaluate(architecture, seed=0).reward for architecture in architectures]
    assert np.mean(rewards) == pytest.approx(0.2, abs=0.02)
    assert [evaluator.evaluate(rewrite_architecture(a, rng), seed=0).reward for a in architectures[:50]] == rewards[:50]
