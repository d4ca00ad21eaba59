"""Drawings that are reused, because hundreds of searches of the tests have the same best architectures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

from nases_env import visualization
from nases_env.atomic_io import write_atomically
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.visualization.figure import to_figure
from nases_env.visualization.scene import Scene

ORIGINALS: dict[str, Callable[..., Any]] = {name: getattr(visualization, name) for name in ("draw", "to_array", "save")}
MAX_DRAWINGS = 64

SLOW_FORMATS = (".pdf", ".png")
"""Formats of files of which the first one is reused for all architectures; no test reads what they show."""

_shared_outputs: dict[str, Any] = {}
_shared_pixels: dict[type[SearchSpace], Any] = {}


class _Text(str):
    """A scene as text, for comparison, and the scene itself."""

    scene: Scene


class _Drawing:
    """A drawing of which matplotlib draws only what is asked for: the figure, its pixels, or the content of its files."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.files: dict[str, bytes] = {}

    @functools.cached_property
    def figure(self) -> Figure:
        return to_figure(self._scene)

    @functools.cached_property
    def pixels(self) -> Any:
        return ORIGINALS["to_array"](self.figure)


class _DrawingOf(NamedTuple):
    """A drawing as it is returned by ``draw``: equal scenes have the same drawing."""

    drawing: _Drawing
    search_space: SearchSpace
    is_frame: bool


@functools.lru_cache(maxsize=MAX_DRAWINGS)
def _drawing(text: _Text) -> _Drawing:
    return _Drawing(text.scene)


def _draw(search_space: SearchSpace, architecture: Architecture, title: str = "", *, fixed_size: bool = False) -> _DrawingOf:
    scene = visualization.make_scene(search_space, architecture, title, fixed_size=fixed_size)
    text = _Text(scene)
    text.scene = scene
    return _DrawingOf(_drawing(text), search_space, fixed_size)


def _to_array(drawn: Figure | _DrawingOf) -> Any:
    """Render the frames of videos, and the first image of TensorBoard; no test reads the pixels of the others."""
    if isinstance(drawn, Figure):  # not of an architecture
        return ORIGINALS["to_array"](drawn)
    if drawn.is_frame:
        return drawn.drawing.pixels.copy()
    space = type(drawn.search_space)
    if space not in _shared_pixels:
        _shared_pixels[space] = drawn.drawing.pixels
    return _shared_pixels[space].copy()


def _save(drawn: Figure | _DrawingOf, path: str | Path) -> None:
    if isinstance(drawn, Figure):  # not of an architecture
        ORIGINALS["save"](drawn, path)
        return
    ending = Path(path).suffix.lower()
    files = _shared_outputs if ending in SLOW_FORMATS else drawn.drawing.files
    if ending in files:
        write_atomically(path, files[ending])
    else:
        ORIGINALS["save"](drawn.drawing.figure, path)
        files[ending] = Path(path).read_bytes()


def reuse_drawings(patch: pytest.MonkeyPatch) -> None:
    """Draw equal scenes once, and only the first PDF and PNG file and the first image of TensorBoard of a search space.

    test_visualization.py draws all of them.
    """
    for name, function in (("draw", _draw), ("to_array", _to_array), ("save", _save)):
        patch.setattr(visualization, name, function)


def draw_every_time(patch: pytest.MonkeyPatch) -> None:
    """Undo ``reuse_drawings``."""
    for name, function in ORIGINALS.items():
        patch.setattr(visualization, name, function)


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Write empty drawings, because drawing takes much of the time of a short search."""
    patch.setattr(visualization, "draw", lambda *args, **options: None)
    patch.setattr(visualization, "to_array", lambda drawn: np.zeros((8, 8, 3), np.uint8))
    patch.setattr(visualization, "save", lambda drawn, path: Path(path).touch())


def report_nothing(patch: pytest.MonkeyPatch) -> None:
    """Write no HTML report at the end of a search."""
    patch.setattr("nases_env.search.SearchRun._write_report", lambda run: None)
