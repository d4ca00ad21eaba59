"""Image folders with damaged and unusual files."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fault_injection.fuzzing.inputs import INPUTS, FuzzInput, command
from benchmarks.fault_injection.fuzzing.mutations import mutate_bytes
from benchmarks.fault_injection.fuzzing.samples import MODEL
from benchmarks.fault_injection.fuzzing.values import choose
from nases_env.cli import main as cli
from nases_env.training.datasets import IMAGE_CACHE, load_images

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "HSV", "LAB")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM")
CLAIMED_SIZES = (
    (20_000, 20_000),
    (10_000, 10_000),
    (2**31 - 1, 1),
    (1, 2**31 - 1),
    (65_535, 65_535),
    (0, 1),
    (2**32 - 1, 2**32 - 1),
)
CLASSES = ("a", "b", "é", "with space", "new\nline", "\x1b[31m", "\udcff", ".hidden", "[red]", "a" * 255, "-x", "x,y")
NAMES = (
    "0.png",
    "1.jpg",
    "2.JPEG",
    "3.PNG",
    "é.png",
    "new\nline.png",
    "\x07.png",
    "\udcff.png",
    ".hidden.png",
    "a" * 251 + ".png",
)


def _valid_image(rng: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
    side = choose(rng, (1, 2, 8, 33))
    size = (side, side) if rng.random() < 0.7 else (side, choose(rng, (1, 8, 500)))
    image = Image.fromarray(rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8))
    options: dict[str, Any] = {}
    if rng.random() < 0.2:
        exif = Image.Exif()
        exif[274] = int(rng.integers(0, 20))
        options["exif"] = exif
    if rng.random() < 0.1:
        options["transparency"] = choose(rng, (0, 255, (1, 2, 3), b"\0\1"))
    return image, options


def image_content(rng: np.random.Generator) -> bytes:
    """Return the content of an image file: of any mode and format, damaged, or with a size that its data does not have."""
    kind = rng.random()
    if kind < 0.12:
        return claimed_png(*choose(rng, CLAIMED_SIZES), depth=choose(rng, (1, 8, 16)), color=choose(rng, (0, 2, 3, 6)))
    if kind < 0.2:
        return choose(rng, (b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"<svg/>", b"\0" * 1000, b"BM"))
    content = unusual_image(rng)
    return mutate_bytes(content, rng) if rng.random() < 0.6 else content


def unusual_image(rng: np.random.Generator) -> bytes:
    """Return a valid image of any mode, and sometimes of another format than PNG and JPEG."""
    image, options = _valid_image(rng)
    content = io.BytesIO()
    try:
        image = image.convert(choose(rng, MODES))
        if rng.random() < 0.1:
            options |= {"save_all": True, "append_images": [image, image]}
        with warnings.catch_warnings():  # a mode that Pillow may not save in the future
            warnings.simplefilter("ignore", DeprecationWarning)
            image.save(content, format=choose(rng, FORMATS[:2] if rng.random() < 0.97 else FORMATS), **options)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # a mode that the format does not support
        content = io.BytesIO()
        image.convert("RGB").save(content, format="PNG")
    return content.getvalue()


def claimed_png(width: int, height: int, *, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG file whose header claims the size; it contains almost no data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _write_class(rng: np.random.Generator, folder: Path) -> None:
    folder.mkdir(parents=True)
    damage = choose(rng, (0.02, 0.1, 0.5))
    for name in rng.permutation(NAMES)[: rng.integers(0 if rng.random() < damage else 1, 5)].tolist():
        path, kind = folder / name, rng.random()
        if kind < 0.1 * damage:
            path.symlink_to(choose(rng, (name, "nowhere", "..", "/dev/null")))
        elif kind < 0.2 * damage:
            path.mkdir()
        else:
            path.write_bytes(image_content(rng) if kind < damage else unusual_image(rng))
    if rng.random() < 0.3:
        (folder / "notes.txt").write_text("not an image")


def _write_folder(rng: np.random.Generator, root: Path) -> None:
    classes = rng.permutation(CLASSES)[: rng.integers(1, 4)].tolist()
    if rng.random() < 0.7:
        classes = list(CLASSES[:2])
    for split in ("train", "test"):
        for name in classes:
            if rng.random() < 0.98:
                _write_class(rng, root / split / name)
        (root / split).mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.1:
            (root / split / "again").symlink_to("..", target_is_directory=True)
        if rng.random() < 0.1:
            (root / split / "file").write_text("not a directory")


def draw_image_folder(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that reads a damaged image folder."""
    root = folder / INPUTS / "damaged"
    _write_folder(rng, root)
    train, size = bool(rng.random() < 0.7), choose(rng, (None, None, 1, 8))

    def read() -> None:
        try:
            load_images("image_folder", train=train, data_dir=root, image_size=size)
        finally:
            IMAGE_CACHE.clear()

    return FuzzInput(f"load_images('image_folder', train={train}, data_dir={root.name!r}, image_size={size})", read)


def draw_image(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that classifies a damaged image with ``nases predict``."""
    path = folder / INPUTS / "damaged.png"
    path.write_bytes(image_content(rng))
    return command("nases", cli.main, ["predict", f"{INPUTS}/{MODEL}", f"{INPUTS}/{path.name}"])
