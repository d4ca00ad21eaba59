from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nases_env.errors import InputError
from nases_env.training.image_io import MAX_PIXELS, convert_image, image_size, read_image, resize, shrink
from tests.training.images import write_image


def test_resize_averages_pixels() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).expand(2, 3, 16, 16).contiguous()
    halved = resize(stripes, (8, 8))
    assert halved.shape == (2, 3, 8, 8)
    assert halved.dtype == torch.uint8
    inner = halved[:, :, :, 1:-1].int()
    assert (inner - 127).abs().max() <= 2


@pytest.mark.parametrize(("side", "expected"), [(None, (9, 20)), (40, (9, 20)), (20, (9, 20)), (10, (4, 10)), (1, (1, 1))])
def test_shrink_preserves_aspect_ratio_and_never_enlarges(side: int | None, expected: tuple[int, int]) -> None:
    images = torch.randint(256, (3, 1, 9, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shrunk = shrink(images, side)
    assert shrunk.shape == (3, 1, *expected)
    if expected == (9, 20):
        assert shrunk is images


def write_large(path: Path, width: int, height: int) -> None:
    """Write an image file of a few hundred bytes, whose header claims the given size."""
    write_image(path, width=8, height=8)
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (13_000, 13_000), (10_000, MAX_PIXELS // 10_000 + 1)])
@pytest.mark.parametrize("size", [(8, 8), None])
def test_large_image_is_refused_before_it_is_decoded(
    size: tuple[int, int] | None, width: int, height: int, name: str, tmp_path: Path
) -> None:
    """The files are truncated, so decoding them would be a different error; Pillow warns about the second size."""
    write_large(tmp_path / name, width, height)
    for read in (lambda: read_image(tmp_path / name, size), lambda: image_size(tmp_path / name)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value) == f"{tmp_path / name} has more than 80,000,000 pixels; shrink or remove it"


def test_damaged_animation_of_an_image_is_ignored_without_a_warning(tmp_path: Path) -> None:
    """Pillow warns about an animation of no frames, and reads the image without it."""
    write_image(tmp_path / "image.png", width=8, height=6)
    content, frames = (tmp_path / "image.png").read_bytes(), b"acTL" + bytes(8)
    expected, end = read_image(tmp_path / "image.png", None), len(b"\x89PNG\r\n\x1a\n") + 25  # of the first chunk
    animation = struct.pack(">I", 8) + frames + struct.pack(">I", zlib.crc32(frames))
    (tmp_path / "image.png").write_bytes(content[:end] + animation + content[end:])
    assert torch.equal(read_image(tmp_path / "image.png", None), expected)


def test_image_of_the_largest_size_is_decoded(tmp_path: Path) -> None:
    write_large(tmp_path / "image.png", 10_000, MAX_PIXELS // 10_000)
    assert image_size(tmp_path / "image.png") == (10_000, 8_000)
    with pytest.raises(InputError, match="not a valid PNG, JPEG or TIFF image"):
        read_image(tmp_path / "image.png", (8, 8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 1.0]], np.float32), "mode F has no fixed range of values; scale them to 0 to 255"),
        (np.array([[0, 70_000]], np.int32), "it has values that do not fit into 16 bits; scale them"),
        (np.array([[-1, 0]], np.int32), "it has values that do not fit into 16 bits; scale them"),
    ],
)
def test_image_in_memory_of_an_unknown_range_is_an_error(values: NDArray[Any], message: str) -> None:
    for channels in (1, 3):
        with pytest.raises(InputError, match=rf"^the image cannot be used \({message}"):
            convert_image(Image.fromarray(values), None, channels=channels, value_range=None)


def test_image_of_mode_i_in_memory_has_16_bits() -> None:
    image = Image.fromarray(np.array([[255, 2**15, 2**16 - 1]], np.int32))
    assert convert_image(image, None, channels=1, value_range=None).tolist() == [[[0, 128, 255]]]
