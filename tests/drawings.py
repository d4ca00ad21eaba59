"""Drawings that are reused, because hundreds of searches of the tests write them and few tests look at them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nases_env import visualization
from nases_env.atomic_io import write_atomically
from nases_env.search_spaces import SearchSpace

ORIGINALS: dict[str, Callable[..., Any]] = {name: getattr(visualization, name) for name in ("draw", "to_array", "save")}

_files: dict[tuple[type[SearchSpace], str], bytes] = {}


class _Drawing:
    """The arguments of ``draw``, and the figure if it is needed."""

    def __init__(self, search_space: SearchSpace, *arguments: Any, fixed_size: bool = False) -> None:
        self.space_type = type(search_space)
        self.is_frame = fixed_size
        self._draw = functools.partial(ORIGINALS["draw"], search_space, *arguments, fixed_size=fixed_size)

    @functools.cached_property
    def figure(self) -> Figure:
        figure: Figure = self._draw()
        return figure


def _to_array(drawn: Figure | _Drawing) -> Any:
    """Render all but the images of TensorBoard, which are black: no test reads their pixels."""
    if isinstance(drawn, Figure):  # not of an architecture
        return ORIGINALS["to_array"](drawn)
    return ORIGINALS["to_array"](drawn.figure) if drawn.is_frame else np.zeros((8, 8, 3), np.uint8)


def _save(drawn: Figure | _Drawing, path: str | Path) -> None:
    if isinstance(drawn, Figure):  # not of an architecture
        ORIGINALS["save"](drawn, path)
        return
    key = (drawn.space_type, Path(path).suffix.lower())
    if key in _files:
        write_atomically(path, _files[key])
    else:
        ORIGINALS["save"](drawn.figure, path)
        _files[key] = Path(path).read_bytes()


def reuse_drawings(patch: pytest.MonkeyPatch) -> None:
    """Draw all frames of videos, but only the first file of each format and search space.

    Tests that look at what a file shows call ``draw_every_time``.
    """
    for name, function in (("draw", _Drawing), ("to_array", _to_array), ("save", _save)):
        patch.setattr(visualization, name, function)


def draw_every_time(patch: pytest.MonkeyPatch) -> None:
    """Undo ``reuse_drawings``."""
    for name, function in ORIGINALS.items():
        patch.setattr(visualization, name, function)
