"""Everything that decides how a classifier is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TrainingSettings:
    """How a child is trained and on how much of the data. The defaults are the paper's search phase (section 4.2)."""

    num_epochs: int = field(default=70, metadata={"help": "Passes over the training images."})
    num_cycles: int = field(
        default=3,
        metadata={"help": "SGDR: cosine cycles, each twice as long as the one before; together they fill num_epochs exactly."},
    )
    schedule: Literal["cosine", "triangular"] = field(
        default="cosine",
        metadata={"help": "cosine: SGDR, per batch. triangular: up to lr_max and down to 0 once, for trainings of an epoch or two."},
    )
    lr_max: float = field(default=0.05, metadata={"help": "Learning rate at the start of a cycle, or at the triangle's peak."})
    lr_min: float = field(default=0.001, metadata={"help": "Learning rate at the end of a cosine cycle."})
    momentum: float = field(default=0.9, metadata={"help": "Nesterov momentum."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay of every weight."})
    batch_size: int = field(default=128, metadata={"help": "Images per step."})
    crop_padding: int = field(default=4, metadata={"help": "Zero-pad by so many pixels on each side and crop back; 0 is off."})
    flip: bool | None = field(
        default=None, metadata={"help": "Mirror half of the images; unset: as suits the data set (not digits)."}
    )
    cutout: int = field(default=0, metadata={"help": "Side in pixels of the square that is blanked out; 0 is off."})
    precision: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "auto: bfloat16 autocast on a GPU that has it, float32 elsewhere."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Shrink larger images to this side in pixels; unset: the data set's own size."}
    )
    num_train_images: int | None = field(default=None, metadata={"help": "Train on so many images; unset: all of the split."})
    num_valid_images: int | None = field(default=None, metadata={"help": "Validate on so many images; unset: all of the split."})
