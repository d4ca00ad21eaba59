"""Provides architectures for the tests of the final training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nases_env.search_spaces import Architecture, EnasMicro, SearchSpace, get_search_space

SPACE = get_search_space("nasbench201")  # whose networks are small
LARGE = EnasMicro()  # whose networks have an auxiliary head and drop-path


def some_architecture(space: SearchSpace = SPACE) -> Architecture:
    return space.sample(np.random.default_rng(3))


def architecture_file(folder: Path, space: SearchSpace = SPACE) -> Path:
    """Write an architecture to ``best.json``, as a search does."""
    path = folder / "best.json"
    path.write_text(space.to_json(some_architecture(space)) + "\n")
    return path
