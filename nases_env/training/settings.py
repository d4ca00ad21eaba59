"""Everything that decides how a classifier is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from nases_env.errors import InputError

Schedule = Literal["cosine", "triangular"]
Precision = Literal["auto", "float32", "bfloat16"]

_LEAST: dict[str, float] = {
    "num_epochs": 1,
    "num_cycles": 1,
    "lr_max": 0,
    "lr_min": 0,
    "momentum": 0,
    "weight_decay": 0,
    "batch_size": 2,
    "crop_padding": 0,
    "cutout": 0,
    "image_size": 1,
    "num_train_images": 2,
    "num_valid_images": 1,
}


@dataclass(frozen=True)
class TrainingSettings:
    """How a child is trained and on how much of the data. The defaults are the paper's search phase (section 4.2).

    Raises:
        InputError: if a number is too small, or a word is not one of those that the setting knows.
    """

    num_epochs: int = field(default=70, metadata={"help": "Passes over the training images."})
    num_cycles: int = field(
        default=3,
        metadata={
            "help": "SGDR: cosine cycles, each twice as long as the one before; together they fill num_epochs exactly."
        },
    )
    schedule: Schedule = field(
        default="cosine",
        metadata={
            "help": "cosine: SGDR, per batch. triangular: up to lr_max and down to 0 once, for trainings of an epoch or two."
        },
    )
    lr_max: float = field(
        default=0.05, metadata={"help": "Learning rate at the start of a cycle, or at the triangle's peak."}
    )
    lr_min: float = field(default=0.001, metadata={"help": "Learning rate at the end of a cosine cycle."})
    momentum: float = field(default=0.9, metadata={"help": "Nesterov momentum."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay of every weight."})
    batch_size: int = field(default=128, metadata={"help": "Images per step."})
    crop_padding: int | None = field(
        default=None,
        metadata={
            "help": "Zero-pad by so many pixels on each side and crop back; 0 is off; unset: an eighth of the side, "
            "the paper's 4 of 32."
        },
    )
    flip: bool | None = field(
        default=None, metadata={"help": "Mirror half of the images; unset: as suits the data set (not digits)."}
    )
    cutout: int = field(default=0, metadata={"help": "Side in pixels of the square that is blanked out; 0 is off."})
    precision: Precision = field(
        default="auto", metadata={"help": "auto: bfloat16 autocast on a GPU that has it, float32 elsewhere."}
    )
    cuda_graphs: bool = field(
        default=True,
        metadata={
            "help": "On a GPU, capture a training step once and replay it: less to do for the CPU. No effect on a CPU."
        },
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Shrink larger images to this side in pixels; unset: the data set's own size."}
    )
    num_train_images: int | None = field(
        default=None, metadata={"help": "Train on at most so many images; unset: all of the split."}
    )
    num_valid_images: int | None = field(
        default=None, metadata={"help": "Validate on at most so many images; unset: all of them."}
    )

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if not self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; it must be below 1")
        for name, known in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
