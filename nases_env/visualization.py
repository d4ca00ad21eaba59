"""Drawings and text descriptions of cells, for ``render``, TensorBoard and files."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path as FilePath

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from nases_env.atomic_io import write_atomically
from nases_env.cell_layout import OUTPUT, Item, arrange, drawn_graphs, operator_name
from nases_env.errors import InputError
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph

# The palette of Okabe and Ito, which color-blind readers can distinguish.
OPERATOR_COLORS = {
    "identity": "#dddddd",
    "sep_conv_3x3": "#9ad3f5",
    "sep_conv_5x5": "#4ea3d8",
    "avg_pool_3x3": "#f5e97a",
    "max_pool_3x3": "#f0b345",
    "skip_connect": "#dddddd",
    "nor_conv_1x1": "#9ad3f5",
    "nor_conv_3x3": "#4ea3d8",
}
ZERO = "zero"  # label of a node without branches
OTHER_OPERATOR_COLOR = "#ffffff"
VALUE_COLORS = ("#333333", "#8c4b99", "#0072b2", "#009e73", "#d55e00", "#a06a2c", "#cc4488")
INPUT_COLOR = "#e8f5e9"
OUTPUT_COLOR = "#fdeaea"

WIDTH, CELL_HEIGHT, TITLE_HEIGHT = 12.0, 4.8, 0.5  # largest sizes in inches; a data unit is an inch
COLUMN_PITCH = 2.2  # largest distance of two columns
MAX_GAP = 0.4  # between two items of a column
NAME_HEIGHT = 0.45  # of the name of a cell, above its inputs
PADDING = 0.2  # above and below a cell
METADATA: dict[str, dict[str, None] | None] = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata of each file format, without times, so that equal figures give equal files."""

TITLE_FONT_SIZE = 11
TITLE_CHARACTER_WIDTH = 0.095  # inches, on average
DOTS_PER_INCH = 80
BOX_WIDTH, BOX_HEIGHT = 1.05, 0.3
BOX_PITCH = 1.15 * BOX_HEIGHT  # so that ten boxes fit in a column
MARGIN = 0.75
SUM_RADIUS = 0.17
FONT_SIZE = 8.5
MIN_DECISION_WIDTH = 1.33  # of the box of a decision, if there are no cells to draw: eight in a row
CHARACTER_WIDTH = 0.078  # inches, on average, in the font of the boxes
ROW_HEIGHT, ROW_GAP, MARK_HEIGHT = 0.6, 0.15, 0.1
CHOICE_COLOR = "#4ea3d8"


def draw(search_space: SearchSpace, architecture: Architecture, title: str = "", *, fixed_size: bool = False) -> Figure:
    """Draw the cells of an architecture, stacked vertically, each drawn left to right.

    Green boxes are the inputs of a cell. A node is the sum (+) of its operators, or zero without operators; the output
    concatenates the loose ends (dashed lines). The color of a line identifies its value. Branches with "none" are omitted.

    If the search space has no cell graphs, the figure shows one box per decision with its name, its choice, and a mark at
    the position of the choice in its range.

    Args:
        search_space: the search space of the architecture.
        architecture: the architecture.
        title: printed above the cells.
        fixed_size: whether the figure has the same size for all architectures, such as for the frames of a video.
    """
    graphs = drawn_graphs(search_space, architecture)
    if not graphs:
        return _draw_decisions(search_space, architecture, title)
    layouts = [_Layout(graph, fixed_size) for graph in graphs]
    width = max(*(layout.width for layout in layouts), min(WIDTH, TITLE_CHARACTER_WIDTH * len(title)))
    height = TITLE_HEIGHT + sum(layout.top - layout.bottom for layout in layouts)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    figure.text(
        0.5, 1 - TITLE_HEIGHT / 2 / height, title, ha="center", va="center", fontsize=TITLE_FONT_SIZE, parse_math=False
    )
    top = height - TITLE_HEIGHT
    for layout in layouts:
        cell_height = layout.top - layout.bottom
        top -= cell_height
        _draw_cell(figure.add_axes((0.0, top / height, 1.0, cell_height / height)), layout, width)
    return figure


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
    with mpl.rc_context({"svg.hashsalt": "nases", "svg.fonttype": "none", "pdf.fonttype": 42}):  # text remains text
        figure.savefig(content, format=ending[1:], metadata=METADATA[ending])
    write_atomically(path, content.getvalue())


def describe(search_space: SearchSpace, architecture: Architecture) -> str:
    """Describe the cells of an architecture, one line per node, or its decisions if the search space has no cell graphs."""
    lines = []
    for graph in drawn_graphs(search_space, architecture):
        names = [*graph.inputs, *(f"node {index}" for index in range(1, len(graph.nodes) + 1))]
        lines.append(graph.name)
        for name, branches in zip(names[len(graph.inputs) :], graph.nodes, strict=True):
            terms = [f"{operator_name(branch.operator)}({names[branch.source]})" for branch in branches]
            lines.append(f"  {name} = {' + '.join(terms) or ZERO}")
        lines.append(f"  output = {', '.join(names[value] for value in graph.outputs)}")
    prefix = "" if search_space.decision_names else "decision "
    return "\n".join(lines or [prefix + text for text in _decisions(search_space, architecture)])


def _decisions(search_space: SearchSpace, architecture: Architecture) -> list[str]:
    return [_decision(search_space, index, choice) for index, choice in enumerate(architecture.decisions)]


def _decision(search_space: SearchSpace, index: int, choice: int) -> str:
    names, choices = search_space.decision_names, search_space.choice_names
    described = choices[index][choice] if choices else f"{choice} of 0..{search_space.decision_sizes[index] - 1}"
    return f"{names[index] if names else index}: {described}"


def _longest_decision(search_space: SearchSpace) -> int:
    """Return the number of characters in the longest description of a decision, over all architectures."""
    return max(
        len(_decision(search_space, index, choice))
        for index, size in enumerate(search_space.decision_sizes)
        for choice in range(size)
    )


def _draw_decisions(search_space: SearchSpace, architecture: Architecture, title: str) -> Figure:
    box_width = max(MIN_DECISION_WIDTH, CHARACTER_WIDTH * _longest_decision(search_space) + ROW_GAP)
    max_columns = max(1, int((WIDTH - ROW_GAP) / (box_width + ROW_GAP)))
    num_rows = math.ceil(search_space.num_decisions / max_columns)
    num_columns = math.ceil(search_space.num_decisions / num_rows)  # so that the rows have about the same length
    width = max(ROW_GAP + num_columns * (box_width + ROW_GAP), min(WIDTH, TITLE_CHARACTER_WIDTH * len(title)))
    height = TITLE_HEIGHT + ROW_HEIGHT * num_rows + ROW_GAP
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    axes.text(
        width / 2, height - TITLE_HEIGHT / 2, title, ha="center", va="center", fontsize=TITLE_FONT_SIZE, parse_math=False
    )
    bins = zip(search_space.encode(architecture), search_space.decision_sizes, strict=True)
    for index, (text, (middle, size)) in enumerate(zip(_decisions(search_space, architecture), bins, strict=True)):
        row, column = divmod(index, num_columns)
        left = ROW_GAP + column * (box_width + ROW_GAP)
        bottom = height - TITLE_HEIGHT - (row + 1) * ROW_HEIGHT + ROW_GAP
        axes.add_artist(Rectangle((left, bottom), box_width, ROW_HEIGHT - ROW_GAP, facecolor="white", edgecolor="#444444"))
        mark = left + box_width * (middle - 0.5 / size)
        axes.add_artist(Rectangle((mark, bottom), box_width / size, MARK_HEIGHT, facecolor=CHOICE_COLOR))
        middle_of_text = bottom + (MARK_HEIGHT + ROW_HEIGHT - ROW_GAP) / 2
        axes.text(left + box_width / 2, middle_of_text, text, ha="center", va="center", fontsize=FONT_SIZE)
    return figure


class _Layout:
    """The columns of a cell from left to right, and the y coordinate of each item."""

    def __init__(self, graph: CellGraph, fixed_size: bool) -> None:
        self.graph = graph
        self.columns = arrange(graph)
        self.ys = [_heights(items, graph) for items in self.columns]
        if fixed_size:
            self.width, self.bottom, self.top = WIDTH, -CELL_HEIGHT / 2, CELL_HEIGHT / 2
            return
        self.width = min(WIDTH, 2 * MARGIN + COLUMN_PITCH * (len(self.columns) - 1))
        spans = [
            (y - _size(item, graph) / 2, y + _size(item, graph) / 2)
            for items, ys in zip(self.columns, self.ys, strict=True)
            for item, y in zip(items, ys, strict=True)
        ]
        self.bottom = min(low for low, _ in spans) - PADDING
        self.top = max(spans[0][1] + NAME_HEIGHT, *(high for _, high in spans)) + PADDING


def _draw_cell(axes: Axes, layout: _Layout, width: float) -> None:
    graph = layout.graph
    axes.set_xlim(0, width)
    axes.set_ylim(layout.bottom, layout.top)
    axes.axis("off")
    axes.text(0.15, layout.top - 0.2, graph.name, fontsize=11, va="center")
    xs = np.linspace(MARGIN, width - MARGIN, len(layout.columns))
    centers = {
        (item, column): (float(xs[column]), y)
        for column, (items, ys) in enumerate(zip(layout.columns, layout.ys, strict=True))
        for item, y in zip(items, ys, strict=True)
    }
    places = {item[0]: (column, *centers[item, column]) for item, column in centers if item[1]}

    for value, (column, x, y) in places.items():
        if value == OUTPUT:
            _draw_box(axes, x, y, "output", OUTPUT_COLOR)
            for source in graph.outputs:
                _draw_line(axes, source, (column, x - BOX_WIDTH / 2, y), places, centers, graph, dashed=True)
        elif value < len(graph.inputs):
            _draw_box(axes, x, y, graph.inputs[value], INPUT_COLOR)
        else:
            branches = sorted(graph.nodes[value - len(graph.inputs)], key=lambda branch: -places[branch.source][2])
            exit_x = x + BOX_WIDTH / 2 + SUM_RADIUS
            if not branches:
                _draw_box(axes, x - SUM_RADIUS, y, ZERO, OTHER_OPERATOR_COLOR)
                axes.plot([x - SUM_RADIUS + BOX_WIDTH / 2, exit_x], [y, y], color="#777777", linewidth=1, zorder=2)
            for index, branch in enumerate(branches):
                box_y = y + (len(branches) / 2 - index - 0.5) * BOX_PITCH
                color = OPERATOR_COLORS.get(branch.operator, OTHER_OPERATOR_COLOR)
                _draw_box(axes, x - SUM_RADIUS, box_y, operator_name(branch.operator), color)
                axes.plot([x - SUM_RADIUS + BOX_WIDTH / 2, exit_x], [box_y, y], color="#777777", linewidth=1, zorder=2)
                _draw_line(axes, branch.source, (column, x - SUM_RADIUS - BOX_WIDTH / 2, box_y), places, centers, graph)
            axes.add_artist(
                Circle((exit_x, y), SUM_RADIUS, facecolor="white", edgecolor=_color(value), linewidth=1.5, zorder=4)
            )
            axes.text(exit_x, y, f"+{value - len(graph.inputs) + 1}", ha="center", va="center", fontsize=7.5, zorder=5)


def _heights(items: list[Item], graph: CellGraph) -> list[float]:
    """Return the y coordinate of each item of a column, from top to bottom, centered at 0."""
    sizes = [_size(item, graph) for item in items]
    gap = min(MAX_GAP, (CELL_HEIGHT - 0.7 - sum(sizes)) / (len(items) + 1))
    top = (sum(sizes) + gap * (len(items) - 1)) / 2
    ys = []
    for size in sizes:
        ys.append(top - size / 2)
        top -= size + gap
    return ys


def _size(item: Item, graph: CellGraph) -> float:
    return BOX_PITCH * _num_boxes(item, graph) if item[1] else 0.1


def _num_boxes(item: Item, graph: CellGraph) -> int:
    return max(1, len(graph.nodes[item[0] - len(graph.inputs)])) if item[0] >= len(graph.inputs) else 1


def _draw_box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    corner = (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_artist(FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, style, facecolor=color, edgecolor="#444444", zorder=3))
    axes.text(x, y, text, ha="center", va="center", fontsize=FONT_SIZE, zorder=5)


def _draw_line(
    axes: Axes,
    source: int,
    target: tuple[int, float, float],
    places: dict[int, tuple[int, float, float]],
    centers: dict[tuple[Item, int], tuple[float, float]],
    graph: CellGraph,
    dashed: bool = False,
) -> None:
    """Draw the line from a value to ``target`` (column, x, y) through its positions in the columns between."""
    column, x, y = places[source]
    start = x + BOX_WIDTH / 2 + (0.0 if source < len(graph.inputs) else 2 * SUM_RADIUS)
    points = [(start, y)]
    for between in range(column + 1, target[0]):
        pass_x, pass_y = centers[(source, False), between]
        points += [(pass_x - BOX_WIDTH / 2, pass_y), (pass_x + BOX_WIDTH / 2, pass_y)]
    points.append(target[1:])
    vertices, codes = [points[0]], [int(Path.MOVETO)]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [int(Path.CURVE4)] * 3
    style = "dashed" if dashed else "solid"
    axes.add_artist(
        PathPatch(Path(vertices, codes), fill=False, edgecolor=_color(source), linewidth=1.3, linestyle=style, zorder=1)
    )


def _color(value: int) -> str:
    return VALUE_COLORS[value % len(VALUE_COLORS)]
