"""Folders of small images for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, width: int = 12, height: int = 12, mode: str = "RGB", seed: int = 0) -> None:
    """Write an image of random pixels; the suffix determines the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_two_folders(path: Path) -> tuple[str, str]:
    """Write two folders of images that differ only in a test image, and return their paths."""
    folders = path / "one", path / "two"
    for folder in folders:
        write_folder(folder, per_class=10)
    write_image(folders[1] / "test" / "cat" / "0000.png", seed=1000)
    return str(folders[0]), str(folders[1])


def write_folder(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 3, side: int = 12) -> None:
    """Write ``root/{train,test}/<class>/<number>.png``; all images differ."""
    seed = 0
    for split in ("train", "test"):
        for name in classes:
            for number in range(per_class):
                write_image(root / split / name / f"{number:04}.png", width=side, height=side, seed=seed)
                seed += 1
