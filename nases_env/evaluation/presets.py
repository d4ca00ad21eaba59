"""Size and training of children: settings and presets."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from nases_env.devices import device_type
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.reward import RewardSignal
from nases_env.json_io import require_field_types, require_type
from nases_env.networks import NetworkSettings
from nases_env.training import TrainingSettings, count_training_images, resolve_data_dir

MAX_FLOPS_EXPONENT = 10


@dataclass(frozen=True)
class ChildSettings(NetworkSettings, TrainingSettings):
    """Settings of a child: everything that affects its accuracy and reward, except its architecture, data set and seed.

    Raises:
        InputError: if a value is out of range.
    """

    reward_signal: RewardSignal = field(
        default="valid_accuracy",
        metadata={
            "help": "What the reward is computed from: valid_accuracy, or training_speed, exp(-mean training loss over the "
            "epochs). The latter is for short training runs in which the network sees each image a few times."
        },
    )
    flops_exponent: float | None = field(
        default=0.0,
        metadata={
            "help": "Multiply the odds of the reward by the number of MFLOPs to this power. Above 0, it corrects for the "
            "advantage of small networks in a short training run; 0: no correction; None: as the search space recommends. "
            "Range: -10 to 10."
        },
    )

    def __post_init__(self) -> None:
        NetworkSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        if self.reward_signal not in get_args(RewardSignal):
            choices = ", ".join(get_args(RewardSignal))
            raise InputError(f"reward_signal must be one of {choices}, not {self.reward_signal!r}")
        if self.flops_exponent is not None and not abs(self.flops_exponent) <= MAX_FLOPS_EXPONENT:
            raise InputError(
                f"flops_exponent must be from -{MAX_FLOPS_EXPONENT} to {MAX_FLOPS_EXPONENT}, not {self.flops_exponent}"
            )

    @property
    def rewards_accuracy(self) -> bool:
        """Whether the reward is the validation accuracy."""
        return self.reward_signal == "valid_accuracy" and self.flops_exponent == 0


PRESETS: dict[str, ChildSettings] = {
    # The paper's search phase, section 4.2.
    "paper": ChildSettings(),
    # Minutes per child on one GPU: a narrower network than the paper's, trained for one cosine cycle.
    "gpu": ChildSettings(cells_per_stage=2, num_filters=20, num_epochs=10, num_cycles=1),
    # Up to half a minute per child on one core.
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
        # Chosen with ``benchmarks.fidelity``; see docs/results/fidelity.md.
        reward_signal="training_speed",
        flops_exponent=None,
    ),
    # Seconds per child on one core, for hundreds of images: steps instead of epochs, and strong regularization.
    "small": ChildSettings(
        cells_per_stage=1,
        num_filters=8,
        num_epochs=2,
        min_steps=60,
        schedule="triangular",
        lr_max=0.1,
        batch_size=32,
        weight_decay=1e-2,
        cutout_length=8,
    ),
    # One second per child: checks the setup; the accuracies are meaningless.
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


RECIPES: dict[str, dict[str, Any]] = {
    # The paper's final phase, section 4.2: 10 + 20 + ... + 320 epochs; its second result adds cutout_length=16.
    "paper": {"num_epochs": 630, "num_cycles": 6, "num_train_images": None},
    # 10 + 20 + 40 + 80 epochs, with cutout.
    "gpu": {"num_epochs": 150, "num_cycles": 4, "cutout_length": 16, "num_train_images": None},
    # Minutes on one core.
    "cpu": {"num_epochs": 15, "num_cycles": 4, "schedule": "cosine", "num_train_images": None},
    "small": {"num_epochs": 15, "min_steps": 1500, "num_cycles": 1, "schedule": "cosine", "num_train_images": None},
    "smoke": {"num_epochs": 3, "num_cycles": 1, "schedule": "cosine", "lr_max": 0.05, "num_train_images": 256},
}
"""The settings that a final training changes after a search with the preset of the same name; never the network's size."""


SMALL_DATASET = 2000
"""Image folders with fewer training images are small."""


def auto_preset(dataset: str | None = None, data_dir: str | Path | None = None, device: str = "auto") -> str:
    """Return the preset that "auto" selects.

    Args:
        dataset: name of the data set; None if there is none.
        data_dir: its directory; None as in ``load_images``.
        device: the device of the trainings.

    Returns:
        ``small`` for an image folder with fewer than ``SMALL_DATASET`` training images; otherwise ``gpu`` if ``device`` is
        a GPU, otherwise ``cpu``.

    Raises:
        InputError: if ``device`` is not a GPU and not available.
    """
    if dataset == "image_folder" and 0 < count_training_images(resolve_data_dir(data_dir)) < SMALL_DATASET:
        return "small"
    return "gpu" if device_type(device) == "cuda" else "cpu"


def resolve_preset(
    name: str, overrides: Mapping[str, Any] | None = None, presets: Mapping[str, ChildSettings] = PRESETS
) -> tuple[str, ChildSettings]:
    """Return a preset with some of its fields replaced.

    Args:
        name: a name in ``presets``, or "auto": that of ``auto_preset`` without a data set.
        overrides: values of fields of ``ChildSettings`` by name.
        presets: ``PRESETS`` or ``RETRAIN_PRESETS``.

    Returns:
        The resolved name of the preset (never "auto") and the settings.

    Raises:
        InputError: if the preset is unknown, a value has the wrong type or is out of range, or a field has no effect.
        TypeError: if a field is unknown.
    """
    overrides = dict(overrides or {})
    if name == "auto":
        name = auto_preset()
    if name not in presets:
        raise InputError(f"unknown preset {name!r}{did_you_mean(name, presets)}; known: auto, {', '.join(presets)}")
    types_by_name = typing.get_type_hints(ChildSettings)
    for option, value in overrides.items():
        hint = types_by_name.get(option, Any)  # the last line raises the error for an unknown field
        try:
            require_type(option, value, hint, allow_infinity=True)
        except ValueError as error:
            raise InputError(str(error)) from None
    settings = dataclasses.replace(presets[name], **overrides)
    if settings.schedule == "triangular":
        for option in ("num_cycles", "lr_min"):
            if option in overrides:
                raise InputError(f"{option} has no effect with the schedule triangular; omit it, or set schedule to cosine")
    return name, settings


def final_settings(searched: ChildSettings, preset: str) -> ChildSettings:
    """Return the settings of the final training of a child: those of its search, changed by the recipe of ``preset``.

    Args:
        searched: the child settings of the search.
        preset: name of the preset of the search, or "auto".

    Raises:
        InputError: if the preset is unknown.
    """
    name, _ = resolve_preset(preset)
    changed = {**RECIPES[name], "num_valid_images": None, "reward_signal": "valid_accuracy", "flops_exponent": 0.0}
    return dataclasses.replace(searched, **changed)


RETRAIN_PRESETS: dict[str, ChildSettings] = {
    "paper": final_settings(PRESETS["paper"], "paper"),
    # The paper's network, larger than that of the search; about an hour on one GPU.
    "gpu": final_settings(PRESETS["paper"], "gpu"),
    "cpu": final_settings(PRESETS["cpu"], "cpu"),
    "small": final_settings(PRESETS["small"], "small"),
    "smoke": final_settings(PRESETS["smoke"], "smoke"),
}
"""Presets of a final training that include the size of the network: for ``nases train --preset NAME``."""


def settings_overrides(settings: ChildSettings | None, preset: ChildSettings) -> dict[str, Any]:
    """Return the fields of ``settings`` that differ from ``preset``, by name; ``settings`` None means the preset itself."""
    values = {} if settings is None else vars(settings)
    return {name: value for name, value in values.items() if value != getattr(preset, name)}


def load_settings(values: Mapping[str, Any] | None, preset: ChildSettings) -> ChildSettings:
    """Rebuild settings from JSON values, including values written by an earlier version.

    Args:
        values: fields by current or former name; None if the settings equal the preset.
        preset: provides the fields that are missing or have the value "preset".

    Raises:
        InputError: if a field is unknown, or a value has the wrong type or is out of range.
    """
    if not isinstance(values, Mapping | None):
        raise InputError(f"the settings must be an object, not {values!r}")
    given = rename_settings({name: value for name, value in (values or {}).items() if value != "preset"})
    given.pop("max_params", None)  # now one of the ``Limits``
    unknown = [name for name in given if name not in vars(preset)]
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}; known: {', '.join(vars(preset))}")
    try:
        require_field_types(ChildSettings, given, allow_infinity=True)
    except ValueError as error:
        raise InputError(str(error)) from None
    return dataclasses.replace(preset, **given)


def rename_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings written by an earlier version by their current names; a value that is damaged keeps its name."""
    renamed = dict(values)
    if isinstance(renamed.get("drop_path_keep"), (float, int)):
        renamed["drop_path_prob"] = 1 - renamed.pop("drop_path_keep")
    if "cutout" in renamed:
        renamed["cutout_length"] = renamed.pop("cutout")
    return renamed
