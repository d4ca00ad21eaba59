"""The map of the values of images to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_VALUE = 1e30  # of a magnitude; differences of larger ones could be infinite


@dataclass(frozen=True)
class ValueRange:
    """The smallest and the largest value of each channel of the training images, which become 0 and 255.

    Images of any other type than uint8 are converted with it: linearly, rounded to the nearest integer. Values outside of
    the range, which test images can have, are clipped.

    Attributes:
        low: the smallest value of each channel.
        high: the largest value of each channel.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, images: NDArray[Any]) -> ValueRange:
        """Return the range of images of shape (N, C, H, W).

        Raises:
            ValueError: if they are not real numbers, or one of them is NaN or infinite.
        """
        require_finite(images)
        low, high = (bound(axis=(0, 2, 3)).astype(np.float64).tolist() for bound in (images.min, images.max))
        return cls(tuple(low), tuple(high))

    def union(self, other: ValueRange) -> ValueRange:
        """Return the smallest range that contains both."""
        return ValueRange(tuple(map(min, self.low, other.low)), tuple(map(max, self.high, other.high)))

    def scale_error(self, images: NDArray[Any]) -> str:
        """Return why images for a model have values on a different scale from its training images; empty if they do not.

        Integers are not fractions of 1, and those of 8 bits are neither standardized values nor those of a larger range.
        """
        lowest, highest = min(self.low), max(self.high)
        is_integer = images.dtype.kind in "ui" and highest <= 1 < images.max()
        is_8_bit = images.dtype == np.uint8 and (lowest < 0 or highest > 255)
        if not (is_integer or is_8_bit):
            return ""
        values = "8 bits per channel" if images.dtype == np.uint8 else f"values of type {images.dtype}"
        return f"{values}, but the model was trained on values from {lowest:g} to {highest:g}"

    def to_uint8(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert images of shape (..., C, H, W).

        Raises:
            ValueError: if they are not real numbers, or one of them is NaN or infinite.
        """
        require_finite(images)
        low, high = (np.array(bound)[:, None, None] for bound in (self.low, self.high))
        clipped = np.clip(images.astype(np.float64), low, high)
        scaled: NDArray[np.uint8] = np.rint((clipped - low) / np.where(high > low, high - low, 1) * 255).astype(np.uint8)
        return scaled


def require_finite(images: NDArray[Any]) -> None:
    """Raise ``ValueError`` if ``images`` are not real numbers, or one of them is NaN or infinite."""
    if images.dtype.kind not in "buif":
        raise ValueError(f"values of type {images.dtype} are not real numbers")
    if images.dtype.kind == "f" and not (np.abs(images) <= np.float64(_MAX_VALUE)).all():  # in float16 it is inf
        raise ValueError(f"a value is NaN, infinite or above {_MAX_VALUE:g}; replace it, for example with numpy.nan_to_num")
