"""Drawings as matplotlib figures, and their files."""

from __future__ import annotations

import io
import re
from pathlib import Path as FilePath
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.visualization.scene import FONT_SIZE, Box, Disk, Line, Point, Scene, Text, control_points

METADATA: dict[str, dict[str, None] | None] = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata of each file format, without times, so that equal figures give equal files."""

DOTS_PER_INCH = 100
CORNER_RADIUS = 0.06  # inches
LINE_WIDTH, HALO_WIDTH = 1.4, 4.0  # points; a white halo separates a solid line from those that it crosses
SAVING: Any = {
    "svg.hashsalt": "nases",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.sans-serif": ["DejaVu Sans", "Arial"],
}
"""Text remains text, and an SVG file names few fonts."""

TAG, LONG_DECIMALS = re.compile(r"<[^>]*>"), re.compile(r"(\d\.\d\d)\d+")
NO_ROTATION = re.compile(r' transform="rotate\(-?0 [^"]*"')


def to_figure(scene: Scene) -> Figure:
    """Draw ``scene`` as a figure with one axes, whose data unit is an inch."""
    figure = Figure(figsize=(scene.width, scene.height), dpi=DOTS_PER_INCH)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(0, scene.height)
    axes.axis("off")
    for order, shape in enumerate(scene.shapes):
        match shape:
            case Box():
                _add_box(axes, shape, order)
            case Disk():
                circle = Circle(shape.center, shape.radius, facecolor="white", edgecolor=shape.edge, linewidth=LINE_WIDTH)
                axes.add_artist(circle).set(zorder=order, clip_on=False)
                _add_text(axes, shape.center, shape.text, FONT_SIZE - 1, "center", order)
            case Line():
                _add_line(axes, shape, order)
            case Text():
                _add_text(axes, shape.position, shape.text, shape.size, "center" if shape.is_centered else "left", order)
    return figure


def _add_box(axes: Axes, box: Box, order: int) -> None:
    left, bottom = box.center.x - box.width / 2, box.center.y - box.height / 2
    patch = (
        FancyBboxPatch((left, bottom), box.width, box.height, f"round,pad=0,rounding_size={CORNER_RADIUS}")
        if box.is_rounded
        else Rectangle((left, bottom), box.width, box.height)
    )
    patch.set(facecolor=box.fill, edgecolor=box.edge, linewidth=1.0, zorder=order, clip_on=False)
    axes.add_artist(patch)
    if box.text:
        _add_text(axes, box.center, box.text, FONT_SIZE, "center", order)


def _add_text(axes: Axes, position: Point, text: str, size: float, alignment: str, order: int) -> None:
    axes.text(*position, text, fontsize=size, ha=alignment, va="center_baseline", zorder=order, parse_math=False)


def _add_line(axes: Axes, line: Line, order: int) -> None:
    vertices: list[Point] = []
    codes: list[int] = []
    for path in line.paths:
        vertices.append(path[0])
        codes.append(int(Path.MOVETO))
        for curve in control_points(path):
            vertices += curve
            codes += [int(Path.CURVE4)] * 3
    patch = PathPatch(Path(vertices, codes), fill=False, edgecolor=line.color, linewidth=LINE_WIDTH)
    patch.set(linestyle="dashed" if line.is_dashed else "solid", zorder=order, clip_on=False)
    if not line.is_dashed:
        patch.set_path_effects([patheffects.withStroke(linewidth=HALO_WIDTH, foreground="white")])
    axes.add_artist(patch)


def to_array(figure: Figure) -> NDArray[np.uint8]:
    """Render the figure as pixels, shape (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    rgb: NDArray[np.uint8] = pixels[..., :3].copy()
    return rgb


def save(figure: Figure, path: str | FilePath) -> None:
    """Save the figure in the format of the file extension, .png, .svg or .pdf; equal figures give equal bytes.

    Raises:
        InputError: if the extension is not supported, or the file cannot be written.
    """
    ending = FilePath(path).suffix.lower()
    if ending not in METADATA:
        raise InputError(f"cannot draw to {path}: the name must end in {', '.join(METADATA)}")
    content = io.BytesIO()
    with mpl.rc_context(SAVING):
        figure.savefig(content, format=ending[1:], metadata=METADATA[ending])
    data = content.getvalue()
    if ending == ".svg":
        data = TAG.sub(_shorten_tag, data.decode()).encode()
    write_atomically(path, data)


def _shorten_tag(match: re.Match[str]) -> str:
    """Shorten the decimals of a tag of an SVG file and remove empty rotations, which leaves a third of its size."""
    return NO_ROTATION.sub("", LONG_DECIMALS.sub(r"\1", match[0]))
