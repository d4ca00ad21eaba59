"""Folders of small pictures for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, *, width: int = 12, height: int = 12, mode: str = "RGB", seed: int = 0) -> None:
    """A picture of random pixels in PNG or JPEG, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_folder(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 3, side: int = 12) -> None:
    """``root/{train,test}/<class>/<number>.png``, every picture another."""
    seed = 0
    for half in ("train", "test"):
        for name in classes:
            for number in range(per_class):
                write_picture(root / half / name / f"{number:04}.png", width=side, height=side, seed=seed)
                seed += 1
