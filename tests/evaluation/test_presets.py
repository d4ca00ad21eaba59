"""Presets and overrides."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import (
    PRESETS,
    RETRAIN_PRESETS,
    ChildSettings,
    auto_preset,
    final_settings,
    presets,
    resolve_preset,
)
from tests.training.images import write_folder


def test_paper_preset() -> None:
    """Section 4.2 of the paper: N, F, epochs, schedule, optimizer and augmentation of the search phase."""
    name, settings = resolve_preset("paper")
    assert name == "paper"
    assert (settings.cells_per_stage, settings.num_filters) == (5, 40)
    assert (settings.num_epochs, settings.num_cycles, settings.schedule) == (70, 3, "cosine")
    assert (settings.lr_max, settings.lr_min, settings.momentum) == (0.05, 0.001, 0.9)
    assert (settings.weight_decay, settings.batch_size) == (1e-4, 128)
    assert (settings.drop_path_prob, settings.auxiliary_head, settings.cutout_length) == (0.0, False, 0)
    assert settings.image_size is settings.num_train_images is settings.num_valid_images is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_can_be_overridden(preset: str) -> None:
    _, settings = resolve_preset(preset, {"num_epochs": 3, "lr_max": 1, "num_train_images": None})
    assert settings == dataclasses.replace(PRESETS[preset], num_epochs=3, lr_max=1, num_train_images=None)


@pytest.mark.parametrize("has_gpu", [False, True])
def test_auto_selects_by_the_device(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert resolve_preset("auto")[0] == ("gpu" if has_gpu else "cpu")
    assert auto_preset(device="cuda") == "gpu"
    assert auto_preset(device="cpu") == "cpu"


def test_every_setting_has_a_help_text() -> None:
    assert all(field.metadata["help"].endswith((".", "off.")) for field in dataclasses.fields(ChildSettings))


def test_few_images_in_a_folder_select_the_preset_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = auto_preset()
    assert auto_preset("image_folder", tmp_path) == other  # no images: loading them raises the error
    write_folder(tmp_path, per_class=3)
    assert auto_preset("image_folder", tmp_path) == "small"
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    assert auto_preset("image_folder") == "small"
    assert auto_preset("cifar10") == other
    monkeypatch.setattr(presets, "SMALL_DATASET", 6)
    assert auto_preset("image_folder", tmp_path) == other


@pytest.mark.parametrize("preset", PRESETS)
def test_final_training_keeps_the_network_of_the_search(preset: str) -> None:
    limits: dict[str, Any] = {"num_train_images": 100, "num_valid_images": 50}
    custom: dict[str, Any] = {
        "cells_per_stage": 3,
        "num_filters": 5,
        "image_size": 24,
        "batch_size": 48,
        "momentum": 0.5,
    }
    final = final_settings(dataclasses.replace(PRESETS[preset], **custom, **limits), preset)
    assert {name: getattr(final, name) for name in custom} == custom
    assert final.num_train_images == (256 if preset == "smoke" else None)
    assert final.num_valid_images is None
    assert final.num_epochs == RETRAIN_PRESETS[preset].num_epochs > PRESETS[preset].num_epochs
    assert final.min_steps == RETRAIN_PRESETS[preset].min_steps


def test_presets_of_the_final_training_include_the_size_of_the_network() -> None:
    sizes = {name: (preset.cells_per_stage, preset.num_filters) for name, preset in RETRAIN_PRESETS.items()}
    assert sizes == {"paper": (5, 40), "gpu": (5, 40), "cpu": (1, 8), "small": (1, 8), "smoke": (1, 2)}
    for name in ("paper", "cpu", "small", "smoke"):
        assert RETRAIN_PRESETS[name] == final_settings(PRESETS[name], name)


@pytest.mark.parametrize("option", ["num_cycles", "lr_min"])
def test_option_without_effect_on_the_schedule_is_an_input_error(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} has no effect with the schedule triangular; omit it, or"):
        resolve_preset("cpu", {option: 1})
    assert getattr(resolve_preset("cpu", {option: 1, "schedule": "cosine"})[1], option) == 1
