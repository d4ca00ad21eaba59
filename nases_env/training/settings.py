"""Settings of the training of a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from nases_env.errors import InputError, require_minimum
from nases_env.training.image_size import ImageSize, require_image_size

Schedule = Literal["cosine", "triangular"]
Precision = Literal["auto", "float32", "bfloat16"]

_MINIMUMS: dict[str, float] = {
    "num_epochs": 1,
    "min_steps": 0,
    "num_cycles": 1,
    "lr_max": 0,
    "lr_min": 0,
    "momentum": 0,
    "weight_decay": 0,
    "batch_size": 2,
    "crop_padding": 0,
    "cutout_length": 0,
    "num_train_images": 2,
    "num_valid_images": 1,
}


@dataclass(frozen=True)
class TrainingSettings:
    """Training hyperparameters and data set size. The defaults are the paper's search phase (section 4.2).

    Raises:
        InputError: if a number is out of range or a string is not one of the choices.
    """

    num_epochs: int = field(default=70, metadata={"help": "Number of epochs."})
    min_steps: int = field(
        default=0,
        metadata={
            "help": "Minimum number of training steps (batches): with few images, training takes more than num_epochs "
            "epochs."
        },
    )
    num_cycles: int = field(
        default=3,
        metadata={
            "help": "Number of cosine cycles, each twice as long as the previous one; together they last the whole "
            "training. No effect with the schedule triangular."
        },
    )
    schedule: Schedule = field(
        default="cosine",
        metadata={
            "help": "Learning rate per batch. cosine: cosine annealing with warm restarts (SGDR). "
            "triangular: one cycle from 0 to lr_max and back to 0, for very short training runs."
        },
    )
    lr_max: float = field(
        default=0.05, metadata={"help": "Learning rate at the start of a cosine cycle, or the peak of the triangle."}
    )
    lr_min: float = field(default=0.001, metadata={"help": "Learning rate at the end of a cosine cycle."})
    momentum: float = field(default=0.9, metadata={"help": "Nesterov momentum."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay of all parameters."})
    batch_size: int = field(default=128, metadata={"help": "Images per batch."})
    crop_padding: int | None = field(
        default=None,
        metadata={
            "help": "Random crop: zero padding in pixels on each side; 0 disables it. "
            "Default: an eighth of the shorter side, as in the paper (4 for 32 pixels)."
        },
    )
    flip: bool | None = field(
        default=None,
        metadata={"help": "Random horizontal flip with probability 0.5. Default: on, except for data sets of digits."},
    )
    cutout_length: int = field(default=0, metadata={"help": "Cutout: side of the square in pixels; 0 disables it."})
    precision: Precision = field(
        default="auto", metadata={"help": "auto: bfloat16 autocast on GPUs that support it, float32 otherwise."}
    )
    cuda_graphs: bool = field(
        default=True,
        metadata={"help": "On a GPU, capture a training step as a CUDA graph and replay it. No effect on a CPU."},
    )
    image_size: ImageSize | None = field(
        default=None,
        metadata={
            "help": "Longer side of the images in pixels, or WIDTHxHEIGHT to stretch all; the built-in data sets are only "
            "shrunk. Default: their size, and for your images between 16 and 32 pixels, by their sizes."
        },
    )
    num_train_images: int | None = field(
        default=None, metadata={"help": "Maximum number of training images. Default: all images of the split."}
    )
    num_valid_images: int | None = field(
        default=None, metadata={"help": "Maximum number of validation images. Default: all images of the split."}
    )

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUMS.items():
            require_minimum(minimum, **{name: getattr(self, name)})
        require_image_size(self.image_size)
        if not self.momentum < 1:
            raise InputError(f"momentum must be below 1, not {self.momentum}")
        for name, choices in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")

    def total_epochs(self, num_images: int) -> int:
        """Return the number of epochs on ``num_images`` images: ``num_epochs``, or more to reach ``min_steps``."""
        steps_per_epoch = num_images // min(self.batch_size, num_images)
        return max(self.num_epochs, math.ceil(self.min_steps / steps_per_epoch))
