"""Drawings that are reused, because hundreds of searches of the tests have the same best architectures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from matplotlib.figure import Figure

from nases_env import visualization
from nases_env.atomic_io import write_atomically
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.visualization.figure import to_figure
from nases_env.visualization.scene import Scene

ORIGINALS: dict[str, Callable[..., Any]] = {name: getattr(visualization, name) for name in ("draw", "to_array", "save")}
MAX_FIGURES = 64

SLOW_FORMATS = (".pdf", ".png")
"""Formats of files of which the first one is reused for all architectures; no test reads what they show."""

_shared_outputs: dict[str, Any] = {}
_outputs: WeakKeyDictionary[Figure, dict[str, Any]] = WeakKeyDictionary()
"""The pixels and the content of the files of each figure."""


class _Text(str):
    """A scene as text, for comparison, and the scene itself."""

    scene: Scene


@functools.lru_cache(maxsize=MAX_FIGURES)
def _figure(text: _Text) -> Figure:
    figure = to_figure(text.scene)
    _outputs[figure] = {}
    return figure


def _draw(search_space: SearchSpace, architecture: Architecture, title: str = "", *, fixed_size: bool = False) -> Figure:
    scene = visualization.make_scene(search_space, architecture, title, fixed_size=fixed_size)
    text = _Text(scene)
    text.scene = scene
    return _figure(text)


def _to_array(figure: Figure) -> Any:
    outputs = _outputs.get(figure)
    if outputs is None:
        return ORIGINALS["to_array"](figure)
    if "pixels" not in outputs:
        outputs["pixels"] = ORIGINALS["to_array"](figure)
    return outputs["pixels"].copy()


def _save(figure: Figure, path: str | Path) -> None:
    ending = Path(path).suffix.lower()
    if figure not in _outputs:  # not of an architecture
        ORIGINALS["save"](figure, path)
        return
    outputs = _shared_outputs if ending in SLOW_FORMATS else _outputs[figure]
    if ending in outputs:
        write_atomically(path, outputs[ending])
    else:
        ORIGINALS["save"](figure, path)
        outputs[ending] = Path(path).read_bytes()


def reuse_drawings(patch: pytest.MonkeyPatch) -> None:
    """Draw equal scenes once, and only the first PDF and PNG file; test_visualization.py draws all files."""
    for name, function in (("draw", _draw), ("to_array", _to_array), ("save", _save)):
        patch.setattr(visualization, name, function)


def draw_every_time(patch: pytest.MonkeyPatch) -> None:
    """Undo ``reuse_drawings``."""
    for name, function in ORIGINALS.items():
        patch.setattr(visualization, name, function)
