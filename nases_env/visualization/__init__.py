"""Drawings and text descriptions of architectures, for ``render``, TensorBoard and files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.visualization.description import describe
from nases_env.visualization.figure import METADATA, save, to_array, to_figure
from nases_env.visualization.scene import make_scene
from nases_env.visualization.tikz import to_tikz

__all__ = ["FORMATS", "describe", "draw", "make_scene", "save", "save_drawing", "to_array", "to_tikz"]

TIKZ = ".tex"
FORMATS = (*METADATA, TIKZ)
"""File extensions of ``save_drawing``."""


def draw(search_space: SearchSpace, architecture: Architecture, title: str = "", *, fixed_size: bool = False) -> Figure:
    """Draw an architecture as a figure; see ``make_scene`` for the arguments."""
    return to_figure(make_scene(search_space, architecture, title, fixed_size=fixed_size))


def save_drawing(search_space: SearchSpace, architecture: Architecture, path: Path, title: str = "") -> None:
    """Draw an architecture to a file: an image, or a LaTeX document with TikZ if its extension is .tex.

    Raises:
        InputError: if the extension is not supported, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"cannot draw to {path}: the name must end in {', '.join(FORMATS)}")
    if path.suffix.lower() == TIKZ:
        write_atomically(path, to_tikz(make_scene(search_space, architecture, title)).encode())
    else:
        save(draw(search_space, architecture, title), path)
