"""How large the children are and how they are trained: one settings object, and the presets that fill it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from typeguard import TypeCheckError, check_type

from nases_env.errors import InputError, did_you_mean
from nases_env.networks import NetworkSettings
from nases_env.training import TrainingSettings


@dataclass(frozen=True)
class ChildSettings(NetworkSettings, TrainingSettings):
    """Everything that decides a child's accuracy but its architecture, its data set and its seed.

    Raises:
        InputError: if a value is out of range.
    """

    max_params: int | None = field(
        default=None,
        metadata={"help": "A child with more parameters is not trained: its status is too_large, its reward 0."},
    )

    def __post_init__(self) -> None:
        NetworkSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        if self.max_params is not None and self.max_params < 1:
            raise InputError(f"max_params is {self.max_params}; it must be at least 1")


PRESETS: dict[str, ChildSettings] = {
    # The paper's search phase, section 4.2.
    "paper": ChildSettings(),
    # Minutes a child on one GPU: the paper's network, narrower, for one cosine cycle.
    "gpu": ChildSettings(cells_per_stage=2, num_filters=20, num_epochs=10, num_cycles=1),
    # Seconds to half a minute a child on one core.
    "cpu": ChildSettings(
        cells_per_stage=1,
        num_filters=8,
        num_epochs=2,
        schedule="triangular",
        lr_max=0.1,
        batch_size=64,
        image_size=16,
        num_train_images=6000,
        num_valid_images=2000,
    ),
    # A second a child: to see that everything works, not to learn anything about architectures.
    "smoke": ChildSettings(
        cells_per_stage=1,
        num_filters=2,
        num_epochs=1,
        schedule="triangular",
        lr_max=0.1,
        batch_size=32,
        image_size=8,
        num_train_images=128,
        num_valid_images=64,
    ),
}


RETRAIN_PRESETS: dict[str, ChildSettings] = {
    # The paper's final phase, section 4.2: 10 + 20 + ... + 320 epochs; the second of its results adds cutout=16.
    "paper": ChildSettings(num_epochs=630, num_cycles=6),
    # An hour or some on one GPU: the paper's network for 10 + 20 + 40 + 80 epochs, with its cutout.
    "gpu": ChildSettings(num_epochs=150, num_cycles=4, cutout=16),
    # Minutes on one core: a network of the size that the preset cpu searches with, at its image size, on all images.
    "cpu": ChildSettings(
        cells_per_stage=1, num_filters=8, num_epochs=15, num_cycles=4, lr_max=0.1, batch_size=64, image_size=16
    ),
    "smoke": ChildSettings(
        cells_per_stage=1, num_filters=2, num_epochs=3, num_cycles=1, batch_size=32, image_size=8, num_train_images=256
    ),
}
"""How the best architecture of a search with the preset of the same name is trained in the end: on all training images."""


def resolve_preset(
    name: str, overrides: Mapping[str, Any] | None = None, presets: Mapping[str, ChildSettings] = PRESETS
) -> tuple[str, ChildSettings]:
    """The preset called ``name`` with some of its fields replaced.

    Args:
        name: one of ``presets``, or "auto": ``gpu`` where torch sees a GPU, else ``cpu``.
        overrides: fields of ``ChildSettings`` by name.
        presets: ``PRESETS`` or ``RETRAIN_PRESETS``.

    Returns:
        The name of the preset, never "auto", and the settings.

    Raises:
        InputError: if there is no such preset or field, or a value is of the wrong type or out of range.
    """
    overrides = dict(overrides or {})
    if name == "auto":
        name = "gpu" if torch.cuda.is_available() else "cpu"
    if name not in presets:
        raise InputError(f"unknown preset {name!r}{did_you_mean(name, presets)}; known: auto, {', '.join(presets)}")
    types_by_name = typing.get_type_hints(ChildSettings)
    for option, value in overrides.items():
        if option not in types_by_name:
            raise InputError(
                f"unknown option {option!r}{did_you_mean(option, types_by_name)}; known: {', '.join(types_by_name)}"
            )
        try:
            check_type(value, types_by_name[option])
        except TypeCheckError:
            raise InputError(f"{option} must be {_describe(types_by_name[option])}, not {value!r}") from None
    return name, dataclasses.replace(presets[name], **overrides)


def _describe(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
