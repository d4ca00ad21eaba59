"""The size that images are resized to."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import TypeAlias

from nases_env.errors import InputError, require_minimum, shown

ImageSize: TypeAlias = int | str
"""A number of pixels, or WIDTHxHEIGHT."""

MIN_SIDE, MAX_SIDE = 16, 32  # bounds of the default size in pixels


def require_image_size(image_size: ImageSize | None) -> None:
    """Raise ``InputError`` unless ``image_size`` is None, at least 1, or WIDTHxHEIGHT."""
    if isinstance(image_size, str):
        parse_image_size(image_size)
    else:
        require_minimum(1, image_size=image_size)


def parse_image_size(text: str) -> tuple[int, int]:
    """Return (height, width) of WIDTHxHEIGHT.

    Raises:
        InputError: if the text has a different form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    if match is None:
        raise InputError(f"image_size must be a number of pixels, or WIDTHxHEIGHT such as 32x24, not {shown(text)}")
    return int(match[2]), int(match[1])


def target_size(sizes: Sequence[tuple[int, int]], image_size: ImageSize | None) -> tuple[int, int]:
    """Return the (height, width) that the images of the user are resized to.

    Images of one size keep their aspect ratio, unless ``image_size`` is WIDTHxHEIGHT. Images of several sizes are stretched
    to squares.

    Args:
        sizes: (width, height) of the images, or of a sample of them.
        image_size: the number of pixels of the longer side, or WIDTHxHEIGHT. None: images of one size are shrunk until the
            shorter side has at most 32 pixels, and enlarged until the longer side has at least 16; others are stretched to
            squares of the median of the shorter sides, at least 16 and at most 32.
    """
    if isinstance(image_size, str):
        return parse_image_size(image_size)
    if len(set(sizes)) != 1:
        side = statistics.median(map(min, sizes)) if sizes else MAX_SIDE
        side = int(min(max(side, MIN_SIDE), MAX_SIDE)) if image_size is None else image_size
        return side, side
    width, height = sizes[0]
    shorter, longer = min(sizes[0]), max(sizes[0])
    scale = max(min(1.0, MAX_SIDE / shorter), MIN_SIDE / longer) if image_size is None else image_size / longer
    return max(round(height * scale), 1), max(round(width * scale), 1)
