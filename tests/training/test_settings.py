from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nases_env.errors import InputError
from nases_env.training import TrainingSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 0),
        ("num_cycles", 0),
        ("lr_max", -0.1),
        ("lr_max", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("batch_size", 1),
        ("crop_padding", -1),
        ("cutout_length", -1),
        ("image_size", 0),
        ("num_train_images", 1),
        ("num_valid_images", 0),
        ("schedule", "cosin"),
        ("precision", "float16"),
    ],
)
def test_invalid_setting_is_an_error(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} must be .*, not ") as caught:
        TrainingSettings(**{name: value})
    assert "\n" not in str(caught.value)


def test_defaults_match_the_search_phase_of_the_paper() -> None:
    settings = TrainingSettings()
    assert (settings.num_epochs, settings.num_cycles, settings.batch_size) == (70, 3, 128)
    assert (settings.lr_max, settings.lr_min, settings.momentum, settings.weight_decay) == (0.05, 0.001, 0.9, 1e-4)
    assert settings.crop_padding is None  # an eighth of the size: 4 pixels for 32
    assert all(field.metadata["help"] for field in dataclasses.fields(settings))


@pytest.mark.parametrize(
    ("num_images", "total"),
    [
        (160, 5),  # 10 steps per epoch
        (170, 5),  # an incomplete batch is dropped
        (16, 50),
        (3, 50),  # one batch of 3 images
        (1600, 2),  # num_epochs is the minimum
    ],
)
def test_small_data_sets_are_trained_for_a_minimum_number_of_steps(num_images: int, total: int) -> None:
    assert TrainingSettings(num_epochs=2, min_steps=50, batch_size=16).total_epochs(num_images) == total
    assert TrainingSettings(num_epochs=2, batch_size=16).total_epochs(num_images) == 2
