"""TIFF files: those that Pillow cannot decode without a loss."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nases_env.training.image_orientation import orient

MAX_CHANNELS = 16

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TRANSPARENCY = (1, 2)  # kinds of extra samples that are not a channel
_WHITE_IS_ZERO, _SEPARATED = 0, 5  # photometric interpretations: inverted grayscale, and CMYK

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also logs the damage that it raises an exception for


class MissingCodecError(Exception):
    """Error of a file whose compression, which is the message, needs a package that is not installed."""


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF file, according to its first bytes."""
    with open(path, "rb") as file:
        return file.read(4) in _MAGIC


def has_transparency(path: Path) -> bool:
    """Return whether a sample of a valid TIFF file is marked as transparency."""
    import tifffile  # slow to import

    with tifffile.TiffFile(path) as file:
        return bool(_transparent_samples(file.pages[0]))


def read_tiff(path: Path, max_pixels: int) -> NDArray[Any] | None:
    """Read a TIFF file of several pages or channels, or of more than 8 bits; None: Pillow decodes it without a loss.

    Grayscale pages of equal size are the channels of one image. Transparency is dropped.

    Returns:
        The values, shape (C, H, W), upright.

    Raises:
        ValueError: if it is invalid, has more than ``MAX_CHANNELS``, more than ``max_pixels``, or more than three times as
            many values.
        MissingCodecError: if a package for its compression is missing.
    """
    import tifffile  # slow to import

    try:
        with tifffile.TiffFile(path) as file:
            num_pages = len(file.pages)
            if num_pages > MAX_CHANNELS:
                raise ValueError(f"it has {num_pages} pages; save one image per file, with at most {MAX_CHANNELS} channels")
            # As pages, because a file of several pages can contain frames, which lack tags.
            pages = [page if isinstance(page, tifffile.TiffPage) else page.aspage() for page in file.pages]
            values = _read_pages(pages, max_pixels)
            return None if values is None else orient(values, pages[0].tags.valueof("Orientation"))
    except (ValueError, MissingCodecError):
        raise
    except Exception as error:  # a damaged file raises a dozen types
        raise ValueError(error) from error


def _read_pages(pages: list[Any], max_pixels: int) -> NDArray[Any] | None:
    first = pages[0]
    if first.imagewidth * first.imagelength * max(first.samplesperpixel * len(pages), 3) > 3 * max_pixels:
        raise ValueError("it is too large; shrink it")
    if len(pages) > 1:
        for number, page in enumerate(pages, start=1):
            if page.axes != "YX" or page.shape != first.shape or page.dtype != first.dtype:
                raise ValueError(
                    f"page {number} is not a grayscale image of the same size and type as page 1, and the pages are the "
                    "channels of one image; save one image per file"
                )
        return np.stack([_decode(page) for page in pages])
    transparent = _transparent_samples(first)
    num_channels = first.samplesperpixel - len(transparent)
    is_cmyk = num_channels == 4 and first.photometric == _SEPARATED
    if first.dtype in (np.bool_, np.uint8) and (num_channels in (1, 3) or is_cmyk):
        return None
    if first.dtype == np.uint16 and first.samplesperpixel == 1 and first.photometric != _WHITE_IS_ZERO:
        return None
    if num_channels > MAX_CHANNELS:
        raise ValueError(f"it has {num_channels} channels, more than {MAX_CHANNELS}")
    if first.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"its axes are {first.axes}; save one image per file")
    values = _decode(first)
    if first.axes == "YX":
        return values[None]
    return np.delete(values.transpose(2, 0, 1) if first.axes == "YXS" else values, transparent, axis=0)


def _decode(page: Any) -> NDArray[Any]:
    """Return the values of a page, of which high ones are bright."""
    try:
        values: NDArray[Any] = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise MissingCodecError(page.compression.name) from None
    is_inverted = page.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u"
    return np.iinfo(values.dtype).max - values if is_inverted else values


def _transparent_samples(page: Any) -> list[int]:
    """Return the indices of the samples of a pixel that are transparency; the extra samples are the last ones."""
    kinds = page.extrasamples
    return [page.samplesperpixel - len(kinds) + index for index, kind in enumerate(kinds) if int(kind) in _TRANSPARENCY]
