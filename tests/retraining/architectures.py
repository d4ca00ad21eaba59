"""Provides an architecture for the tests of the final training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nases_env.search_spaces import Architecture, EnasMicro

SPACE = EnasMicro()


def some_architecture() -> Architecture:
    return SPACE.sample(np.random.default_rng(3))


def architecture_file(folder: Path) -> Path:
    """Write an architecture to ``best.json``, as a search does."""
    path = folder / "best.json"
    path.write_text(SPACE.to_json(some_architecture()) + "\n")
    return path
