"""Reading and resizing of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image

from nases_env.errors import InputError, one_line

MAX_PIXELS = 80_000_000
"""Pixels of an image file that is decoded, which needs 240 MB. A small file can be an image that would fill the memory."""

_EXIF_TRANSPOSES = {  # EXIF orientation: the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, size: tuple[int, int] | None, *, grayscale: bool = False) -> torch.Tensor:
    """Read a PNG or JPEG file; arguments and result are as in ``image_to_tensor``.

    Args:
        path: the file.
        size: (height, width) in pixels; None keeps the size of the image.
        grayscale: whether to convert the image to grayscale instead of RGB.

    Raises:
        InputError: if the file cannot be read, is not a valid PNG or JPEG image, or has more than ``MAX_PIXELS``.
    """
    with _open(path) as image:
        if size is not None:  # decodes a large JPEG at a fraction of its size, which is faster
            image.draft("RGB", (2 * size[1], 2 * size[0]))
        return image_to_tensor(image, size, grayscale=grayscale)


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG or JPEG file in pixels, without decoding it.

    Raises:
        InputError: as ``read_image``.
    """
    with _open(path) as image:
        return image.size


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is less than the limit of Pillow
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # on damaged metadata
            with Image.open(path, formats=("JPEG", "PNG")) as image:  # reads the header only
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass a PNG or JPEG file") from error
    except Image.DecompressionBombError:
        raise InputError(f"{path} has more than {MAX_PIXELS:,} pixels; shrink or remove it") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is not a valid PNG or JPEG image ({one_line(error)}); replace or remove it") from error


def image_to_tensor(image: Image.Image, size: tuple[int, int] | None, *, grayscale: bool = False) -> torch.Tensor:
    """Convert an image to a tensor, upright according to its EXIF orientation.

    Args:
        image: the image.
        size: (height, width) in pixels that the image is stretched to; None keeps its size.
        grayscale: whether to convert the image to grayscale instead of RGB.

    Returns:
        uint8, shape (3, H, W), or (1, H, W) if ``grayscale``.
    """
    upright = _apply_exif_orientation(_to_rgb(image), image.getexif().get(ExifTags.Base.Orientation))
    pixels = np.array(upright.convert("L") if grayscale else upright)
    tensor = torch.from_numpy(pixels[None] if grayscale else pixels.transpose(2, 0, 1))
    return tensor if size is None else resize(tensor[None], size)[0]


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stretch uint8 images of shape (N, C, H, W) to ``size`` (height, width), bilinear and antialiased."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def shrink(images: torch.Tensor, side: int | None) -> torch.Tensor:
    """Shrink uint8 images of shape (N, C, H, W) so that the longer side is ``side`` pixels; smaller images are unchanged."""
    longer = max(images.shape[2:])
    if side is None or longer <= side:
        return images
    height, width = (max(round(length * side / longer), 1) for length in images.shape[2:])
    return resize(images, (height, width))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip instead of scale
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _apply_exif_orientation(image: Image.Image, orientation: int | None) -> Image.Image:
    # Not ImageOps.exif_transpose, which also rewrites the other EXIF tags and fails if one of them is malformed.
    return image.transpose(_EXIF_TRANSPOSES[orientation]) if orientation in _EXIF_TRANSPOSES else image
