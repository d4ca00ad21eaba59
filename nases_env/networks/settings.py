"""The size of a child network."""

from __future__ import annotations

from dataclasses import dataclass, field

from nases_env.errors import InputError

MAX_CELLS_PER_STAGE = 1000
"""A network with more cells would take minutes to build, and a damaged file might contain any number."""


@dataclass(frozen=True)
class NetworkSettings:
    """The size of a network, and its regularization.

    Raises:
        InputError: if a number is out of range.
    """

    cells_per_stage: int = field(default=5, metadata={"help": "N: normal cells in each of the three stages."})
    num_filters: int = field(default=40, metadata={"help": "F: channels of the first stage; doubles at each reduction."})
    drop_path_prob: float = field(
        default=0.0,
        metadata={"help": "Drop-path: probability to drop a branch of the last cell at the end of training; 0 disables it."},
    )
    auxiliary_head: bool = field(
        default=False, metadata={"help": "Train an auxiliary classifier at two thirds of the depth."}
    )

    def __post_init__(self) -> None:
        if not 1 <= self.cells_per_stage <= MAX_CELLS_PER_STAGE:
            raise InputError(f"cells_per_stage is {self.cells_per_stage}; it must be in 1..{MAX_CELLS_PER_STAGE}")
        if self.num_filters < 1:
            raise InputError(f"num_filters is {self.num_filters}; it must be at least 1")
        if not 0.0 <= self.drop_path_prob < 1.0:
            raise InputError(f"drop_path_prob is {self.drop_path_prob}; it must be in [0, 1), where 0 disables drop-path")


def check_shapes(num_classes: int, image_shape: tuple[int, int, int]) -> None:
    """Raise ``InputError`` if a network cannot have ``num_classes`` outputs, or images of ``image_shape`` as input."""
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; it must be at least 1")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise InputError(f"image_shape is {tuple(image_shape)}; it must be (channels, height, width), all at least 1")
