"""The final training of an architecture with one seed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS, ChildSettings
from nases_env.networks import build_network, count_costs
from nases_env.retraining import FinalFolder, FinalTraining
from nases_env.retraining.search_record import changed_settings
from nases_env.training import load_images
from tests.retraining.architectures import LARGE, some_architecture

QUICK = dataclasses.replace(RETRAIN_PRESETS["smoke"], num_epochs=1)


def training(settings: ChildSettings = QUICK) -> FinalTraining:
    return FinalTraining(LARGE, some_architecture(LARGE), "digits", settings)


def test_all_training_images_are_used() -> None:
    everything = dataclasses.replace(QUICK, num_train_images=None)
    images = load_images("digits", train=True)
    assert torch.equal(training(everything).train_images.images, images.images)
    few = training(QUICK).train_images
    assert len(few) == 256
    assert len(set(few.labels.tolist())) == 10  # a random sample, not the first images
    assert torch.equal(training(QUICK).train_images.images, few.images)


def test_paper_preset_matches_the_paper() -> None:
    paper = RETRAIN_PRESETS["paper"]
    assert (paper.num_epochs, paper.num_cycles, paper.batch_size) == (630, 6, 128)
    assert (paper.lr_max, paper.lr_min, paper.weight_decay, paper.momentum) == (0.05, 0.001, 1e-4, 0.9)
    assert (paper.cells_per_stage, paper.num_filters) == (5, 40)
    assert (paper.cutout_length, paper.drop_path_prob, paper.auxiliary_head) == (0, 0.0, False)
    assert paper.num_train_images is None


@pytest.mark.parametrize("auxiliary_head", [False, True])
def test_returned_model_is_the_tested_model(tmp_path: Path, auxiliary_head: bool) -> None:
    settings = dataclasses.replace(QUICK, auxiliary_head=auxiliary_head)
    epochs: list[int] = []
    model, result = training(settings).run(4, tmp_path / "checkpoint", lambda record: epochs.append(record.epoch))
    test = load_images("digits", train=False)
    with torch.inference_mode():
        num_correct = (model.eval()(test.images / 255).argmax(1) == test.labels).sum()
    assert abs(int(num_correct) - result.num_correct) <= 1  # rounding may break ties differently
    assert result.num_test_images == len(test)
    assert 0.05 < result.test_error < 0.95
    assert model.class_names == tuple("0123456789")
    FinalFolder(tmp_path / "final").open(training(settings))
    network = build_network(json.loads((tmp_path / "final" / "genotype.json").read_text()))
    network.load_state_dict(model.network.state_dict())  # without the auxiliary head
    costs = count_costs(model.network, model.image_shape)
    assert (result.num_params, result.num_flops, result.activation_bytes, result.file_bytes) == costs
    assert epochs == [record.epoch for record in result.curve] == [1]
    assert (tmp_path / "checkpoint").exists()


def test_seed_determines_the_weights(tmp_path: Path) -> None:
    few = training(dataclasses.replace(QUICK, num_train_images=64))
    weights = [next(few.run(seed, tmp_path / name)[0].network.parameters()) for seed, name in ((0, "a"), (0, "b"), (1, "c"))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_diverged_training_is_an_error_with_a_hint(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, lr_max=1e30, lr_min=1e30)
    with pytest.raises(InputError, match=r"seed 0 failed in epoch 1: .* lower --child.lr-max, and choose a"):
        training(settings).run(0, tmp_path / "checkpoint")


def test_failed_measurement_is_not_called_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.training.trainer._measure", lambda *args: None)  # its outputs are not finite
    with pytest.raises(InputError, match=r"seed 0 failed when its network was measured: the loss is not finite; lower"):
        training(QUICK).run(0, tmp_path / "checkpoint")


def test_cutout_of_whole_images_is_an_error() -> None:
    training(dataclasses.replace(QUICK, cutout_length=15)).check()
    with pytest.raises(InputError, match=r"16 erases images of 8 x 8 pixels .* for example to 4, or to 0"):
        training(dataclasses.replace(QUICK, cutout_length=16)).check()


def test_settings_without_effect_are_not_changes() -> None:
    searched = ChildSettings(schedule="triangular", num_cycles=1)
    final = dataclasses.replace(searched, num_cycles=4, reward_signal="training_speed")
    assert changed_settings(searched, final) == {}
    cosine = dataclasses.replace(final, schedule="cosine")
    assert changed_settings(searched, cosine) == {"schedule": ("triangular", "cosine"), "num_cycles": (1, 4)}
