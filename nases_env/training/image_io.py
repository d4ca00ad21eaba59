"""Pictures in PNG or JPEG, decoded as a data set of folders is: upright, in RGB or grey, stretched to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from nases_env.errors import InputError, one_line
from nases_env.training.resizing import resize

_TURNS = {  # EXIF orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: Path, size: tuple[int, int] | None, *, grey: bool = False) -> torch.Tensor:
    """The picture in a PNG or JPEG file, as ``picture_to_tensor`` gives it.

    Raises:
        InputError: if there is no such file, or it is no intact PNG or JPEG.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as picture:
            if size is not None:  # decodes a large JPEG at a fraction of its size, which is faster
                picture.draft("RGB", (2 * size[1], 2 * size[0]))
            return picture_to_tensor(picture, size, grey=grey)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give a PNG or JPEG file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not an intact PNG or JPEG picture ({one_line(error)}); replace or remove it") from error


def picture_to_tensor(picture: Image.Image, size: tuple[int, int] | None, *, grey: bool = False) -> torch.Tensor:
    """A picture as uint8 of shape (3, H, W) or, if ``grey``, (1, H, W), turned upright as its EXIF data say.

    Args:
        size: (height, width) in pixels that it is stretched to; None: its own.
    """
    upright = _upright(_to_rgb(picture), picture.getexif().get(ExifTags.Base.Orientation))
    pixels = np.array(upright.convert("L") if grey else upright)
    tensor = torch.from_numpy(pixels[None] if grey else pixels.transpose(2, 0, 1))
    return tensor if size is None else resize(tensor[None], size)[0]


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        picture = Image.fromarray((np.asarray(picture, dtype=np.uint16) >> 8).astype(np.uint8))
    elif "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _upright(picture: Image.Image, orientation: int | None) -> Image.Image:
    # Not ImageOps.exif_transpose: it also writes the other EXIF tags anew, and fails where one of them is malformed.
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture
