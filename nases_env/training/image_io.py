"""Reading and resizing of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from nases_env.errors import InputError, one_line
from nases_env.training.image_orientation import TURNED, exif_orientation, orient, turn
from nases_env.training.image_size import ImageSize, parse_image_size
from nases_env.training.image_tiff import MissingCodecError, is_tiff, read_tiff
from nases_env.training.value_range import ValueRange

MAX_PIXELS = 80_000_000
"""Maximum number of pixels of an image file; decoding it needs 240 MB. A small file can decompress to an image that would
fill the memory."""


class ImageFormat(NamedTuple):
    """What all images of a data set have in common.

    Attributes:
        channels: number of channels of the images in memory: 3 for files in grayscale and RGB.
        dtype: name of the NumPy type of the values in the file.
    """

    channels: int
    dtype: str


RGB = ImageFormat(3, "uint8")

_GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue, as in Pillow


def read_format(path: Path) -> ImageFormat:
    """Return the format of an image file.

    Raises:
        InputError: as ``read_image``.
    """
    with _open(path) as image:
        if isinstance(image, Image.Image):
            return ImageFormat(3, _dtype(image))
        return ImageFormat(3 if len(image) == 1 else len(image), _dtype(image))


def read_image(
    path: Path,
    size: tuple[int, int] | None,
    *,
    image_format: ImageFormat = RGB,
    value_range: ValueRange | None = None,
) -> torch.Tensor:
    """Read a PNG, JPEG or TIFF file, upright according to its EXIF orientation.

    Args:
        path: the file.
        size: (height, width) in pixels that the image is stretched to; None keeps its size.
        image_format: the required format.
        value_range: the range of its values, which are converted to uint8; required for other types.

    Returns:
        uint8, shape (channels, H, W).

    Raises:
        InputError: if the file cannot be read, is not a valid image, has more than ``MAX_PIXELS``, or a different format.
    """
    with _open(path) as image:
        _require_dtype(path, image, image_format.dtype)
        _draft(image, size, value_range)
        return _convert(str(path), image, size, image_format.channels, value_range)


def read_any_image(
    path: Path, size: tuple[int, int] | None, *, channels: int, value_range: ValueRange | None
) -> torch.Tensor:
    """Read an image file for a trained model: as ``read_image``, but of any type.

    Args:
        path: the file.
        size: (height, width) in pixels that the image is stretched to; None keeps its size.
        channels: 1 converts the image to grayscale, 3 to RGB without transparency; others must be its number of channels.
        value_range: the range of the training images; None: they had 8 bits, so 16-bit values are divided by 256.

    Raises:
        InputError: as ``read_image``; also if the image has 8 bits and the training images had values on a different scale.
    """
    with _open(path) as image:
        _draft(image, size, value_range)
        return _convert_any(str(path), image, size, channels, value_range)


def convert_image(
    image: Image.Image, size: tuple[int, int] | None, *, channels: int, value_range: ValueRange | None
) -> torch.Tensor:
    """Convert an image in memory for a trained model; see ``read_any_image``. The image is not changed.

    Raises:
        InputError: as ``read_any_image``; also if there is no ``value_range`` and the image has mode "F", or values of more
            than 16 bits in mode "I".
    """
    if isinstance(image, TiffImageFile):
        _load_tiff(image)
    try:
        return _convert_any("the image", image, size, channels, value_range)
    except ValueError as error:
        raise InputError(f"the image cannot be used ({one_line(error)})") from None


def _load_tiff(image: TiffImageFile) -> None:
    """Load an image without its file name: Pillow maps a file with a name into memory, and ignores that it is turned."""
    name = image.filename
    image.filename = ""
    try:
        image.load()
    finally:
        image.filename = name


def _convert_any(
    name: str,
    image: Image.Image | NDArray[Any],
    size: tuple[int, int] | None,
    channels: int,
    value_range: ValueRange | None,
) -> torch.Tensor:
    error = "" if value_range is None else value_range.scale_error(np.asarray(image))
    if error:
        raise InputError(f"{name} has {error}; pass an image with such values, for example as an .npy file")
    return _convert(name, image, size, channels, value_range)


def read_values(path: Path, image_format: ImageFormat) -> NDArray[Any]:
    """Return the values of an image file, shape (channels, H, W), as ``read_image`` does before it converts them to uint8.

    Raises:
        InputError: as ``read_image``.
    """
    with _open(path) as image:
        _require_dtype(path, image, image_format.dtype)
        return _values(str(path), image, image_format.channels)


def _convert(
    name: str,
    image: Image.Image | NDArray[Any],
    size: tuple[int, int] | None,
    channels: int,
    value_range: ValueRange | None,
) -> torch.Tensor:
    if isinstance(image, Image.Image) and value_range is None and channels in (1, 3):
        return image_to_tensor(image, size, grayscale=channels == 1)
    pixels = torch.from_numpy(np.ascontiguousarray(_to_uint8(_values(name, image, channels), value_range)))
    return pixels if size is None else resize(pixels[None], size)[0]


def _draft(image: Image.Image | NDArray[Any], size: tuple[int, int] | None, value_range: ValueRange | None) -> None:
    """Let a large JPEG file be decoded at a fraction of its size, which is faster; this changes ``image``."""
    if isinstance(image, Image.Image) and size is not None and value_range is None:
        image.draft("RGB", (2 * size[1], 2 * size[0]))


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of an upright image file in pixels; of a JPEG or PNG file, without decoding it.

    Raises:
        InputError: as ``read_image``.
    """
    with _open(path) as image:
        if not isinstance(image, Image.Image):
            return image.shape[2], image.shape[1]
        width, height = image.size
        is_turned = image.format != "TIFF" and exif_orientation(image) in TURNED  # Pillow turns TIFF files itself
        return (height, width) if is_turned else (width, height)


@contextmanager
def _open(path: Path) -> Iterator[Image.Image | NDArray[Any]]:
    """Open an image; yield the values of one that Pillow cannot decode without a loss."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is less than the limit of Pillow
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # on damaged metadata
            values = read_tiff(path, MAX_PIXELS) if is_tiff(path) else None
            if values is not None:
                yield values
                return
            # As a file without a name, see ``_load_tiff``.
            with open(path, "rb") as file, Image.open(file, formats=("JPEG", "PNG", "TIFF")) as image:  # the header only
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                if image.format == "PNG" and image.mode != "I;16" and _is_16_bit(image):
                    yield _read_16_bit_png(path, image)
                else:
                    yield image
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass a PNG, JPEG or TIFF file") from error
    except MissingCodecError as error:
        raise InputError(
            f"{path} has the compression {error}, which needs another package; run: pip install imagecodecs, or save the "
            "image without compression"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has more than {MAX_PIXELS:,} pixels; shrink or remove it") from None
    except (OSError, RuntimeError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} is not a valid PNG, JPEG or TIFF image ({one_line(error)}); replace or remove it"
        ) from error


def image_to_tensor(image: Image.Image, size: tuple[int, int] | None, *, grayscale: bool = False) -> torch.Tensor:
    """Convert an image to a tensor, upright according to its EXIF orientation.

    Args:
        image: the image.
        size: (height, width) in pixels that the image is stretched to; None keeps its size.
        grayscale: whether to convert the image to grayscale instead of RGB.

    Returns:
        uint8, shape (3, H, W), or (1, H, W) if ``grayscale``.
    """
    upright = turn(_to_rgb(image), exif_orientation(image))
    pixels = np.array(upright.convert("L") if grayscale else upright)
    tensor = torch.from_numpy(pixels[None] if grayscale else pixels.transpose(2, 0, 1))
    return tensor if size is None else resize(tensor[None], size)[0]


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stretch uint8 images of shape (N, C, H, W) to ``size`` (height, width), bilinear and antialiased."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def shrink(images: torch.Tensor, side: ImageSize | None) -> torch.Tensor:
    """Shrink uint8 images of shape (N, C, H, W) so that the longer side is ``side`` pixels; smaller images are unchanged.

    WIDTHxHEIGHT stretches them to exactly this size.
    """
    if isinstance(side, str):
        return resize(images, parse_image_size(side))
    longer = max(images.shape[2:])
    if side is None or longer <= side:
        return images
    height, width = (max(round(length * side / longer), 1) for length in images.shape[2:])
    return resize(images, (height, width))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB; raise ``ValueError`` if the range of its values is unknown."""
    if image.mode == "F":
        raise ValueError('mode F has no fixed range of values; scale them to 0 to 255 and convert it to mode "L"')
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip instead of scale
        values = np.asarray(image)
        if image.mode == "I" and not 0 <= values.min() <= values.max() < 2**16:
            raise ValueError('it has values that do not fit into 16 bits; scale them to 0 to 255 and convert it to mode "L"')
        image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _is_16_bit(image: Image.Image) -> bool:
    """Return whether the file has 16 bits per channel, of which Pillow decodes 8 if it is in color."""
    if image.mode.startswith("I"):
        return True
    return image.format == "PNG" and any(str(tile[3]).endswith("16B") for tile in getattr(image, "tile", ()))


def _read_16_bit_png(path: Path, image: Image.Image) -> NDArray[Any]:
    """Return all 16 bits of a PNG file, shape (C, H, W), of which Pillow decodes the upper 8 if it is not grayscale."""
    (mode,) = {str(tile[3]) for tile in getattr(image, "tile", ())}
    if mode == "LA;16B":
        upper, lower = np.moveaxis(_decode_png(path, "RGBA"), 2, 0)[
            :2, None
        ]  # the bytes of a pixel, as they are in the file
    else:
        # As little-endian, the lower byte of a value in the file is its upper one.
        upper, lower = (_decode_png(path, raw)[:, :, :3].transpose(2, 0, 1) for raw in (mode, mode.replace("16B", "16L")))
    values = upper.astype(np.uint16) << 8 | lower
    return orient(values, exif_orientation(image))


def _decode_png(path: Path, raw_mode: str) -> NDArray[np.uint8]:
    with Image.open(path, formats=("PNG",)) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.asarray(image)


def _values(name: str, image: Image.Image | NDArray[Any], channels: int) -> NDArray[Any]:
    """Return the values of an image, shape (channels, H, W)."""
    if not isinstance(image, Image.Image):
        values = image
    elif image.mode == "F" or image.mode.startswith("I"):
        pixels = np.asarray(image, dtype=np.uint16 if image.mode.startswith("I;16") else None)
        values = orient(pixels[None], exif_orientation(image))
    else:
        values = image_to_tensor(image, None, grayscale=channels == 1).numpy()
    if len(values) == 1 and channels == 3:
        return values.repeat(3, axis=0)
    if len(values) == 3 and channels == 1:
        gray = np.tensordot(_GRAY_WEIGHTS, values.astype(np.float64), axes=1)[None]
        return (gray if values.dtype.kind == "f" else np.rint(gray)).astype(values.dtype)
    if len(values) != channels:
        raise InputError(f"{name} has {len(values)} channels instead of {channels}; save all images with the same channels")
    return values


def _require_dtype(path: Path, image: Image.Image | NDArray[Any], dtype: str) -> None:
    if _dtype(image) != dtype:
        raise InputError(f"{path} has values of type {_dtype(image)} instead of {dtype}; convert all images to one type")


def _dtype(image: Image.Image | NDArray[Any]) -> str:
    if isinstance(image, Image.Image):
        return "uint16" if _is_16_bit(image) else "uint8"
    return str(image.dtype.name)


def _to_uint8(values: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    """Convert values to uint8; raise ``ValueError`` if this is not possible."""
    if value_range is not None:
        return value_range.to_uint8(values)
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"it has values of type {values.dtype}, but the model was trained on images of 8 bits")
    return values
