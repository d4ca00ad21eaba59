"""Images of other channels, shapes, depths and formats than square 8-bit images in RGB."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from nases_env.errors import InputError
from nases_env.training.image_arrays import read_arrays
from nases_env.training.image_folder import read_image_folder
from nases_env.training.image_io import ImageFormat, convert_image, image_size, read_format, read_image, read_values
from nases_env.training.image_orientation import orient
from nases_env.training.image_size import target_size
from nases_env.training.image_tiff import read_tiff
from nases_env.training.own_images import count_training_images, measure_own_images, read_own_images
from nases_env.training.value_range import ValueRange
from tests.training.images import write_image

LABELS = np.arange(20) % 2


def random_values(shape: tuple[int, ...], dtype: Any = np.uint16, high: int = 4096) -> NDArray[Any]:
    return np.random.default_rng(0).integers(high, size=shape).astype(dtype)


def write_png(path: Path, values: NDArray[np.uint16]) -> None:
    """Write a 16-bit PNG file of (H, W, C), which Pillow cannot write in color."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))


def write_tiff(path: Path, values: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, **options)


def read_one(path: Path) -> torch.Tensor:
    """Return the only image of a folder whose training image is ``path``."""
    return read_image_folder(path.parents[2], train=True, size=None).images[0]


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 16])
@pytest.mark.parametrize("is_first", [True, False])
def test_arrays_of_any_number_of_channels(channels: int, is_first: bool, tmp_path: Path) -> None:
    images = random_values((20, channels, 24, 20), np.uint8, 256)
    np.savez(tmp_path / "images.npz", images=images if is_first else images.transpose(0, 2, 3, 1), labels=LABELS)
    test = read_own_images(tmp_path / "images.npz", train=False, image_size=None)
    assert test.image_shape == (channels, 24, 20)
    assert torch.equal(test.images, torch.from_numpy(images[[8, 18, 9, 19]]))
    assert measure_own_images(tmp_path / "images.npz") == [(20, 24)]


def test_entry_says_which_axis_has_the_channels(tmp_path: Path) -> None:
    for name, shape in (("first", (5, 8, 6)), ("last", (6, 5, 8))):
        np.savez(tmp_path / "images.npz", images=random_values((20, 5, 8, 6), np.uint8, 256), labels=LABELS, channels=name)
        assert read_arrays(tmp_path / "images.npz", train=True, image_size=8).image_shape[0] == shape[0]


@pytest.mark.parametrize("names", [("images", "labels"), ("train_images", "train_labels", "test_images", "test_labels")])
def test_directory_of_arrays(names: tuple[str, ...], tmp_path: Path) -> None:
    images = random_values((20, 16, 16), np.uint8, 256)
    for images_name, labels_name in zip(names[::2], names[1::2], strict=True):
        np.save(tmp_path / f"{images_name}.npy", images)
        np.save(tmp_path / f"{labels_name}.npy", np.array(["dog", "cat"])[LABELS])
    (tmp_path / "notes").mkdir()
    train = read_own_images(tmp_path, train=True, image_size=None)
    assert train.class_names == ("cat", "dog")
    assert count_training_images(tmp_path) == len(train) == (16 if len(names) == 2 else 20)
    assert torch.equal(train.images[0, 0], torch.from_numpy(images[1 if len(names) == 2 else 0]))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([5, 2] * 10), ("2", "5")),
        (np.array([[5.0], [2.0]] * 10), ("2", "5")),
        (np.array([b"a", b"b"] * 10), ("a", "b")),
        (np.eye(2)[LABELS], ("0", "1")),
        (LABELS == 1, ("0", "1")),
    ],
)
def test_labels_are_integers_texts_or_one_hot(labels: NDArray[Any], expected: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=random_values((20, 8, 8), np.uint8, 256), labels=labels)
    assert read_own_images(tmp_path / "images.npz", train=True, image_size=8).class_names == expected


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int16, np.float32, np.float64, ">u2"])
def test_values_of_other_types_are_mapped_by_the_range_of_each_channel(dtype: Any, tmp_path: Path) -> None:
    images = random_values((20, 18, 18, 2), dtype)
    images[..., 1] //= 16
    images[9, 0, 0] = 9999, 0  # a test image
    np.savez(tmp_path / "images.npz", images=images, labels=LABELS)
    train, test = (read_own_images(tmp_path / "images.npz", train=is_train, image_size=18) for is_train in (True, False))
    used = images[[index for index in range(20) if index not in (8, 9, 18, 19)]].astype(float)
    low, high = used.min(axis=(0, 1, 2)), used.max(axis=(0, 1, 2))
    assert train.value_range == test.value_range == ValueRange(tuple(low), tuple(high))
    expected = np.rint((np.clip(images[9], low, high) - low) / (high - low) * 255)
    assert torch.equal(test.images[2], torch.from_numpy(expected.astype(np.uint8)).permute(2, 0, 1))
    assert test.images[2, 0, 0, 0] == 255
    assert train.images.amax(dim=(0, 2, 3)).tolist() == [255, 255]
    assert train.subset(torch.tensor([0])).value_range == train.value_range


def test_constant_channel_becomes_zero() -> None:
    images = np.full((2, 1, 3, 3), 7, np.uint16)
    assert not ValueRange.of(images).to_uint8(images).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_more_than_the_upper_8_bits(channels: int, tmp_path: Path) -> None:
    values = random_values((6, 5, channels))  # 12 bits
    write_png(tmp_path / "train/a/0.png", values)
    color = values[:, :, : channels - (1 - channels % 2)].astype(float)
    low, high = color.min(axis=(0, 1)), color.max(axis=(0, 1))
    expected = np.rint((color - low) / (high - low) * 255).transpose(2, 0, 1)
    image = read_one(tmp_path / "train/a/0.png")
    assert torch.equal(image, torch.from_numpy(expected.astype(np.uint8)).expand(3, 6, 5))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_8_bit_tiff_is_read_like_png(mode: str, compression: str | None, orientation: int, tmp_path: Path) -> None:
    write_image(tmp_path / "train/a/0.png", width=6, height=5)
    (tmp_path / "tiff/train/a").mkdir(parents=True)
    path = tmp_path / "tiff/train/a/0.TIF"
    with Image.open(tmp_path / "train/a/0.png") as image:
        converted = image.convert(mode)
        converted.save(path, format="TIFF", compression=compression, tiffinfo={ExifTags.Base.Orientation: orientation})
    expected = orient(np.array(converted.convert("RGB")).transpose(2, 0, 1), orientation)
    assert torch.equal(read_one(path), torch.from_numpy(expected.copy()))
    assert image_size(path) == (expected.shape[2], expected.shape[1])


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_16_bit_tiff_is_turned_and_bright_if_its_values_are(orientation: int, photometric: str, tmp_path: Path) -> None:
    values = random_values((5, 6), np.uint16, 2**16)
    tags = [(ExifTags.Base.Orientation, 3, 1, orientation, True)]
    write_tiff(tmp_path / "0.tif", values, photometric=photometric, extratags=tags)
    expected = orient(values[None] if photometric == "minisblack" else 65535 - values[None], orientation)
    assert np.array_equal(read_values(tmp_path / "0.tif", ImageFormat(1, "uint16")), expected)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_damaged_metadata_does_not_matter(suffix: str, tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", width=6, height=5)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"damaged.{suffix}"
    with Image.open(tmp_path / "0.png") as image:
        image.save(path, exif=exif.tobytes()[:12], dpi=(72, 72))
    assert image_size(path) == (6, 5)
    assert read_image(path, None).shape == (3, 5, 6)
    with Image.open(path) as image:
        assert convert_image(image, None, channels=3, value_range=None).shape == (3, 5, 6)


def test_orientation_in_a_text_of_a_png_file_determines_its_size(tmp_path: Path) -> None:
    """As ImageMagick writes it."""
    write_image(tmp_path / "0.png", width=6, height=5)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = exif.tobytes()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    with Image.open(tmp_path / "0.png") as image:
        image.save(tmp_path / "turned.png", pnginfo=texts)
    assert image_size(tmp_path / "turned.png") == (5, 6)
    assert read_image(tmp_path / "turned.png", None).shape == (3, 6, 5)


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs is installed")
def test_missing_codec_is_an_input_error(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 6), np.float32)).save(tmp_path / "0.tif", compression="tiff_lzw")
    with pytest.raises(InputError, match=r"0\.tif has the compression LZW, .* run: pip install imagecodecs, or save the"):
        read_format(tmp_path / "0.tif")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((6, 7), {}),
        ((6, 7), {"byteorder": ">", "compression": "zlib"}),
        ((6, 7, 3), {"photometric": "rgb"}),
        ((6, 7, 3), {"photometric": "rgb", "compression": "zlib"}),
        ((6, 7, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, 6, 7), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((5, 6, 7), {"photometric": "minisblack"}),  # pages
        ((2, 6, 7), {"photometric": "minisblack", "bigtiff": True}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_deep_tiff_of_any_layout(shape: tuple[int, ...], options: dict[str, Any], dtype: Any, tmp_path: Path) -> None:
    values = random_values(shape, dtype)
    write_tiff(tmp_path / "train/a/0.tif", values, **options)
    channels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1) if shape[:2] == (6, 7) else values
    expected = ValueRange.of(channels[None]).to_uint8(channels)
    if len(channels) == 1:
        expected = expected.repeat(3, axis=0)
    assert torch.equal(read_one(tmp_path / "train/a/0.tif"), torch.from_numpy(expected))
    assert image_size(tmp_path / "train/a/0.tif") == (7, 6)


def test_8_bit_tiff_of_many_channels_keeps_its_values(tmp_path: Path) -> None:
    values = random_values((6, 7, 5), np.uint8, 256)
    write_tiff(tmp_path / "train/a/0.tif", values, photometric="minisblack", planarconfig="contig")
    assert torch.equal(read_one(tmp_path / "train/a/0.tif"), torch.from_numpy(values).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("kinds", "kept", "is_warned"), [([0], [0, 1, 2, 3], False), ([2], [0, 1, 2], True), ([1, 0], [0, 1, 2, 4], True)]
)
def test_transparency_of_tiff_is_dropped_with_a_warning(
    kinds: list[int], kept: list[int], is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = random_values((6, 7, 3 + len(kinds)), np.uint8, 256)
    write_tiff(tmp_path / "train/a/0.tif", values, photometric="rgb", extrasamples=kinds)
    assert torch.equal(read_one(tmp_path / "train/a/0.tif"), torch.from_numpy(values[..., kept]).permute(2, 0, 1))
    assert ["save them with ExtraSamples = 0" in record.getMessage() for record in caplog.records] == [True] * is_warned


@pytest.mark.parametrize(
    ("shape", "pixels"), [((6, 7), 42), ((6, 7, 2), 42), ((6, 7, 3), 42), ((6, 7, 6), 84), ((6, 6, 7), 84)]
)
def test_tiff_of_more_pixels_than_the_limit_is_refused(shape: tuple[int, ...], pixels: int, tmp_path: Path) -> None:
    """Images of more than three channels may have fewer pixels."""
    planes = {} if len(shape) == 2 else {"photometric": "minisblack", "planarconfig": "contig"}
    write_tiff(tmp_path / "0.tif", random_values(shape, np.float32), **(planes if shape != (6, 6, 7) else {}))
    assert read_tiff(tmp_path / "0.tif", pixels) is not None
    with pytest.raises(ValueError, match="it is too large; shrink it"):
        read_tiff(tmp_path / "0.tif", pixels - 1)


def test_test_images_have_the_range_of_the_training_images_and_both_are_cached(tmp_path: Path) -> None:
    for split, highest in (("train", 1000), ("test", 4000)):
        write_png(tmp_path / split / "a/0.png", np.array([[[0], [500], [highest]]], np.uint16))
    for _ in range(2):  # the second time from the cache
        test = read_image_folder(tmp_path, train=False, size=None)
        assert test.images[0, 0].tolist() == [[0, 128, 255]]
        assert test.value_range == ValueRange((0.0,) * 3, (1000.0,) * 3)
    write_png(tmp_path / "train/a/1.png", np.array([[[0], [500], [2000]]], np.uint16))
    assert read_image_folder(tmp_path, train=False, size=None).images[0, 0].tolist() == [[0, 64, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_values_and_tiff_files_are_upright(orientation: int, tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", width=10, height=6)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(tmp_path / "0.png") as image:
        values = np.asarray(image).transpose(2, 0, 1)
        image.save(tmp_path / "0.png", exif=exif)
    with Image.open(tmp_path / "0.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    assert np.array_equal(orient(values, orientation), expected)
    assert image_size(tmp_path / "0.png") == (expected.shape[2], expected.shape[1])
    deep = values.astype(np.uint16) * 16
    tags = [(274, 3, 1, orientation, True)]
    write_tiff(tmp_path / "deep/train/a/0.tif", deep.transpose(1, 2, 0), photometric="rgb", extratags=tags)
    image_set = read_image_folder(tmp_path / "deep", train=True, size=None)
    assert image_set.image_shape == expected.shape


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ([(12, 12)], None, (16, 16)),
        ([(28, 28)] * 3, None, (28, 28)),
        ([(300, 300)], None, (32, 32)),
        ([(28, 20)], None, (20, 28)),
        ([(200, 100)], None, (32, 64)),
        ([(6, 3)], None, (8, 16)),
        ([(1000, 4)], None, (4, 1000)),
        ([(200, 100)], 50, (25, 50)),
        ([(1000, 1)], 10, (1, 10)),
        ([(28, 28), (28, 20)], None, (24, 24)),
        ([(28, 28), (28, 20)], 9, (9, 9)),
        ([], None, (32, 32)),
        ([(28, 28)], "32x24", (24, 32)),
    ],
)
def test_images_of_one_size_keep_their_aspect_ratio(
    sizes: list[tuple[int, int]], image_size: int | str | None, expected: tuple[int, int]
) -> None:
    assert target_size(sizes, image_size) == expected


def test_folder_of_one_size_keeps_its_aspect_ratio(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for index, name in enumerate("ab"):
            write_image(tmp_path / split / name / f"{index}.png", width=30, height=20, seed=index)
    write_image(tmp_path / "test/a/large.png", width=60, height=50)
    assert read_own_images(tmp_path, train=True, image_size=None).image_shape == (3, 20, 30)
    assert read_own_images(tmp_path, train=False, image_size=15).image_shape == (3, 10, 15)
    assert read_own_images(tmp_path, train=False, image_size="8x9").image_shape == (3, 9, 8)
