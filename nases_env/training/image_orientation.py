"""EXIF orientations."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

TURNED = (5, 6, 7, 8)
"""The orientations that swap width and height."""

_TRANSPOSES = {  # the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation of an image; None if it has none, or its metadata are damaged."""
    try:
        orientation: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata raise several types, and the pixels can be valid all the same
        return None
    return orientation


def turn(image: Image.Image, orientation: int | None) -> Image.Image:
    """Make an image upright according to its EXIF orientation."""
    # Not ImageOps.exif_transpose, which also rewrites the other EXIF tags and fails if one of them is malformed.
    return image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image


def orient(values: NDArray[Any], orientation: int | None) -> NDArray[Any]:
    """Make the values of an image, shape (C, H, W), upright according to its EXIF orientation."""
    if orientation in TURNED:
        values = values.swapaxes(1, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return values[:, ::rows, ::columns]
