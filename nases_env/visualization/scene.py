"""Drawings of architectures as lists of shapes, which do not depend on the file format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nases_env.cell_layout import OUTPUT, ZERO, Item, Layout, drawn_graphs, short_name
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph
from nases_env.visualization.description import describe_decisions, longest_description

# The palette of Okabe and Ito, which color-blind readers can distinguish. Each box also has the name of its operator.
COLORS = {
    "identity": "#dddddd",
    "skip_connect": "#dddddd",
    "sep_conv_3x3": "#9ad3f5",
    "sep_conv_5x5": "#4ea3d8",
    "nor_conv_1x1": "#9ad3f5",
    "nor_conv_3x3": "#4ea3d8",
    "avg_pool_3x3": "#f5e97a",
    "max_pool_3x3": "#f0b345",
}
"""Color of the box of each operator; others have no color."""
NO_COLOR = "#ffffff"
VALUE_COLORS = ("#333333", "#8c4b99", "#0072b2", "#009e73", "#d55e00", "#a06a2c", "#cc4488")
INPUT_COLOR, OUTPUT_COLOR, CHOICE_COLOR = "#e8f5e9", "#fdeaea", "#4ea3d8"

# All lengths are in inches.
MAX_WIDTH, MAX_CELL_HEIGHT = 8.4, 3.4
TITLE_HEIGHT, NAME_HEIGHT, PADDING, MARGIN = 0.4, 0.3, 0.12, 0.12
FONT_SIZE, TITLE_FONT_SIZE = 9.0, 11.0  # points
CHARACTER_WIDTH = 0.078  # of the font of the boxes, on average
TITLE_CHARACTER_WIDTH, LEGEND_CHARACTER_WIDTH = 0.095, 0.083
BOX_HEIGHT, BOX_PITCH, MIN_BOX_WIDTH = 0.25, 0.28, 0.74
FRAME_PADDING, SUM_RADIUS = 0.04, 0.13  # the sum is on the right side of the frame
COLUMN_PITCH = 1.9  # largest distance of two columns
MAX_GAP = 0.26  # between two items of a column
MIN_COLUMN_GAP = 0.3  # between the boxes of two columns
LEGEND_ROW_HEIGHT, LEGEND_GAP, LEGEND_ROWS = 0.3, 0.15, 2  # LEGEND_ROWS: if the size is fixed
MIN_DECISION_WIDTH = 1.1
ROW_HEIGHT, ROW_GAP, MARK_HEIGHT = 0.55, 0.13, 0.09


class Point(NamedTuple):
    """A position on the page, whose origin is its lower left corner."""

    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """A rectangle around a text."""

    center: Point
    width: float
    height: float
    fill: str
    text: str = ""
    edge: str = "#444444"
    is_rounded: bool = True
    kind: str = "operator"
    """operator, value (an input, the output or zero), frame (of a node), legend, decision or mark."""


@dataclass(frozen=True)
class Disk:
    """The sum of a node, with its number."""

    center: Point
    radius: float
    edge: str
    text: str


@dataclass(frozen=True)
class Line:
    """Smooth lines that begin at the same value; each is horizontal at all of its points."""

    paths: tuple[tuple[Point, ...], ...]
    color: str
    is_dashed: bool = False


@dataclass(frozen=True)
class Text:
    """A text without a box."""

    position: Point
    text: str
    size: float = FONT_SIZE
    is_centered: bool = False


@dataclass
class Scene:
    """The shapes of a drawing, from back to front."""

    width: float
    height: float
    shapes: list[Box | Disk | Line | Text] = field(default_factory=list)


def make_scene(search_space: SearchSpace, architecture: Architecture, title: str = "", *, fixed_size: bool = False) -> Scene:
    """Draw the cells of an architecture, stacked vertically, each from left to right, above a legend.

    A frame with a number is a node, the sum of the operators in it, or zero without operators. The output concatenates the
    loose ends (dashed lines). The color of a line identifies its value. Branches with
    ``zero_operators`` of the search space are omitted.

    Above the cells is the summary of the architecture, if the search space has one.

    If the search space has no cell graphs, the drawing shows one box per decision with its name, its choice, and a mark at
    the position of the choice in its range.

    Args:
        search_space: the search space of the architecture.
        architecture: the architecture.
        title: printed above the cells; if it is wider than the drawing can be, an ellipsis replaces its end.
        fixed_size: whether the drawing has the same size for all architectures, such as for the frames of a video.
    """
    graphs = drawn_graphs(search_space, architecture)
    if not graphs:
        return _decision_scene(search_space, architecture, title, fixed_size)
    box_width = max(MIN_BOX_WIDTH, *(CHARACTER_WIDTH * len(label) + 0.1 for graph in graphs for label in _labels(graph)))
    cells = [_Cell(graph, box_width, fixed_size) for graph in graphs]
    summary = search_space.summary(architecture)
    width = max(*(cell.width for cell in cells), min(MAX_WIDTH, TITLE_CHARACTER_WIDTH * len(title) + 2 * MARGIN))
    width = max(width, min(MAX_WIDTH, LEGEND_CHARACTER_WIDTH * len(summary) + 2 * MARGIN))
    rows = _legend_rows(_legend(graphs), width, box_width)
    if fixed_size:
        rows = rows[:LEGEND_ROWS]
    num_rows = LEGEND_ROWS if fixed_size else len(rows)
    legend_height = num_rows * LEGEND_ROW_HEIGHT + PADDING
    summary_height = NAME_HEIGHT if summary else 0.0
    scene = Scene(width, TITLE_HEIGHT + summary_height + sum(cell.height for cell in cells) + legend_height)
    scene.shapes.append(_title(title, scene))
    top = scene.height - TITLE_HEIGHT
    if summary:
        scene.shapes.append(Text(Point(MARGIN, top - NAME_HEIGHT / 2), summary))
        top -= summary_height
    for cell in cells:
        cell.draw(scene, top)
        top -= cell.height
    for index, row in enumerate(rows):
        _draw_legend_row(scene, row, legend_height - (index + 0.5) * LEGEND_ROW_HEIGHT, box_width)
    return scene


def _title(title: str, scene: Scene) -> Text:
    if TITLE_CHARACTER_WIDTH * len(title) > scene.width:
        title = f"{title[: int(scene.width / TITLE_CHARACTER_WIDTH) - 1]}…"
    return Text(Point(scene.width / 2, scene.height - TITLE_HEIGHT / 2), title, TITLE_FONT_SIZE, is_centered=True)


def _fill(operator: str) -> str:
    return COLORS.get(operator, NO_COLOR)


def _operators(graphs: Iterable[CellGraph]) -> list[str]:
    found = {branch.operator for graph in graphs for node in graph.nodes for branch in node}
    return [*(name for name in COLORS if name in found), *sorted(found - COLORS.keys())]


def _labels(graph: CellGraph) -> list[str]:
    return [*graph.inputs, "output", ZERO, *map(short_name, _operators([graph]))]


def value_color(value: int) -> str:
    """Return the color of the lines of a value."""
    return VALUE_COLORS[value % len(VALUE_COLORS)]


class _Cell:
    """A cell and its place on the page."""

    def __init__(self, graph: CellGraph, box_width: float, fixed_size: bool) -> None:
        self.graph = graph
        self.box_width = box_width
        self.layout = Layout(graph, box_height=BOX_PITCH, max_height=MAX_CELL_HEIGHT, max_gap=MAX_GAP)
        sides = 2 * MARGIN + box_width + 2 * FRAME_PADDING
        num_pitches = len(self.layout.columns) - 1
        closest = box_width + 2 * FRAME_PADDING + 2 * SUM_RADIUS + MIN_COLUMN_GAP
        pitch = max(closest, min(COLUMN_PITCH, (MAX_WIDTH - sides) / max(1, num_pitches)))
        self.width = MAX_WIDTH if fixed_size else sides + pitch * num_pitches
        left, right = sides / 2, self.width - sides / 2
        self.xs = np.linspace(left, right, num_pitches + 1)
        spans = [
            (y - self.layout.height(item) / 2, y + self.layout.height(item) / 2)
            for items, ys in zip(self.layout.columns, self.layout.ys, strict=True)
            for item, y in zip(items, ys, strict=True)
        ]
        low, high = min(low for low, _ in spans), max(high for _, high in spans)
        if fixed_size:
            low, high = (low + high - MAX_CELL_HEIGHT) / 2, (low + high + MAX_CELL_HEIGHT) / 2
        self._top = high + NAME_HEIGHT + PADDING
        self.height = self._top - low + PADDING

    def draw(self, scene: Scene, top: float) -> None:
        """Add the shapes of the cell, whose upper edge is at ``top``."""
        shift = top - self._top
        self.centers = {
            (item, column): Point(float(self.xs[column]), float(y) + shift)
            for column, (items, ys) in enumerate(zip(self.layout.columns, self.layout.ys, strict=True))
            for item, y in zip(items, ys, strict=True)
        }
        self.columns = {item.value: column for item, column in self.centers if item.is_here}
        scene.shapes.append(Text(Point(MARGIN, top - NAME_HEIGHT / 2 - PADDING / 2), self.graph.name, TITLE_FONT_SIZE))
        targets: dict[int, list[tuple[int, Point]]] = {value: [] for value in self.columns}
        front: list[Box | Disk | Line | Text] = []
        for value, column in self.columns.items():
            center = self.centers[Item(value), column]
            if value == OUTPUT or value < len(self.graph.inputs):
                text, fill = ("output", OUTPUT_COLOR) if value == OUTPUT else (self.graph.inputs[value], INPUT_COLOR)
                front.append(Box(center, self.box_width, BOX_HEIGHT, fill, text, kind="value"))
            else:
                front += self._node(value, center, column, targets)
        lines = [
            # Lines of a value that run together are drawn once.
            Line(
                tuple(dict.fromkeys(pair for column, end in ends for pair in pairwise(self._path(value, column, end)))),
                value_color(value),
            )
            for value, ends in targets.items()
            if ends
        ]
        column, end = self.columns[OUTPUT], self._left_of(self.centers[Item(OUTPUT), self.columns[OUTPUT]])
        loose = [Line((self._path(value, column, end),), value_color(value), is_dashed=True) for value in self.graph.outputs]
        scene.shapes += [*loose, *lines, *front]

    def _node(
        self, value: int, center: Point, column: int, targets: dict[int, list[tuple[int, Point]]]
    ) -> list[Box | Disk | Line | Text]:
        """Return the shapes of a node and add the ends of the lines that it reads to ``targets``."""
        number = value - len(self.graph.inputs)
        previous = {item.value: point.y for (item, where), point in self.centers.items() if where == column - 1}
        branches = sorted(self.graph.nodes[number], key=lambda branch: -previous[branch.source])
        color = value_color(value)
        height = max(1, len(branches)) * BOX_PITCH - (BOX_PITCH - BOX_HEIGHT) + 2 * FRAME_PADDING
        left, right = center.x - self.box_width / 2 - FRAME_PADDING, center.x + self.box_width / 2 + SUM_RADIUS
        shapes: list[Box | Disk | Line | Text] = [
            Box(
                Point((left + right) / 2, center.y),
                right - left,
                height,
                NO_COLOR,
                edge=color,
                is_rounded=False,
                kind="frame",
            )
        ]
        if not branches:
            shapes.append(Box(center, self.box_width, BOX_HEIGHT, NO_COLOR, ZERO, kind="value"))
        for index, branch in enumerate(branches):
            place = Point(center.x, center.y + (len(branches) / 2 - index - 0.5) * BOX_PITCH)
            label, fill = short_name(branch.operator), _fill(branch.operator)
            shapes.append(Box(place, self.box_width, BOX_HEIGHT, fill, label))
            targets[branch.source].append((column, self._left_of(place)))
        return [*shapes, Disk(Point(right, center.y), SUM_RADIUS, color, f"+{number + 1}")]

    def _left_of(self, center: Point) -> Point:
        return Point(center.x - self.box_width / 2, center.y)

    def _right_of(self, center: Point) -> Point:
        return Point(center.x + self.box_width / 2 + 2 * SUM_RADIUS, center.y)

    def _path(self, value: int, column: int, end: Point) -> tuple[Point, ...]:
        """Return the points of the line from ``value`` to ``end`` in ``column``, through the columns between."""
        start = self.columns[value]
        center = self.centers[Item(value), start]
        is_input = value < len(self.graph.inputs)
        points = [Point(center.x + self.box_width / 2, center.y) if is_input else self._right_of(center)]
        for between in range(start + 1, column):
            passing = self.centers[Item(value, is_here=False), between]
            points += [self._left_of(passing), self._right_of(passing)]
        return (*points, end)


def control_points(path: tuple[Point, ...]) -> list[tuple[Point, Point, Point]]:
    """Return the Bezier curves of a path: two control points and the end of each."""
    curves = []
    for start, end in pairwise(path):
        middle = (start.x + end.x) / 2
        curves.append((Point(middle, start.y), Point(middle, end.y), end))
    return curves


def _legend(graphs: Sequence[CellGraph]) -> list[tuple[str, str]]:
    """Return the entries of the legend: what is drawn, as the name of an operator, "+" or "dashed"; and its meaning."""
    operators = [(name, name) for name in _operators(graphs)]
    is_concatenated = any(len(graph.outputs) > 1 for graph in graphs)
    return [*operators, ("+", "sum of a frame"), ("dashed", "concatenated" if is_concatenated else "output")]


def _entry_width(entry: tuple[str, str], box_width: float) -> float:
    symbol = 2 * SUM_RADIUS if entry[0] == "+" else box_width
    return symbol + 0.08 + LEGEND_CHARACTER_WIDTH * len(entry[1]) + LEGEND_GAP


def _legend_rows(entries: list[tuple[str, str]], width: float, box_width: float) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = [[]]
    for entry in entries:
        used = sum(_entry_width(each, box_width) for each in rows[-1])
        if rows[-1] and used + _entry_width(entry, box_width) > width - 2 * MARGIN + LEGEND_GAP:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _draw_legend_row(scene: Scene, row: list[tuple[str, str]], y: float, box_width: float) -> None:
    x = MARGIN
    for symbol, meaning in row:
        width = 2 * SUM_RADIUS if symbol == "+" else box_width
        center = Point(x + width / 2, y)
        if symbol == "+":
            scene.shapes.append(Disk(center, SUM_RADIUS, "#444444", "+"))
        elif symbol == "dashed":
            scene.shapes.append(Line(((Point(x, y), Point(x + width, y)),), "#444444", is_dashed=True))
        else:
            scene.shapes.append(Box(center, width, BOX_HEIGHT, _fill(symbol), short_name(symbol), kind="legend"))
        scene.shapes.append(Text(Point(x + width + 0.08, y), meaning))
        x += _entry_width((symbol, meaning), box_width)


def _decision_scene(search_space: SearchSpace, architecture: Architecture, title: str, fixed_size: bool) -> Scene:
    box_width = max(MIN_DECISION_WIDTH, CHARACTER_WIDTH * longest_description(search_space) + ROW_GAP)
    max_columns = max(1, int((MAX_WIDTH - ROW_GAP) / (box_width + ROW_GAP)))
    num_rows = math.ceil(search_space.num_decisions / max_columns)
    num_columns = math.ceil(search_space.num_decisions / num_rows)  # so that the rows have about the same length
    title_width = MAX_WIDTH if fixed_size else min(MAX_WIDTH, TITLE_CHARACTER_WIDTH * len(title))
    width = max(ROW_GAP + num_columns * (box_width + ROW_GAP), title_width)
    scene = Scene(width, TITLE_HEIGHT + ROW_HEIGHT * num_rows + ROW_GAP)
    scene.shapes.append(_title(title, scene))
    bins = zip(search_space.encode(architecture), search_space.decision_sizes, strict=True)
    height = ROW_HEIGHT - ROW_GAP
    for index, (text, (middle, size)) in enumerate(zip(describe_decisions(search_space, architecture), bins, strict=True)):
        row, column = divmod(index, num_columns)
        left = ROW_GAP + column * (box_width + ROW_GAP)
        bottom = scene.height - TITLE_HEIGHT - (row + 1) * ROW_HEIGHT + ROW_GAP
        center = Point(left + box_width / 2, bottom + height / 2)
        scene.shapes.append(Box(center, box_width, height, NO_COLOR, is_rounded=False, kind="decision"))
        mark = Point(left + box_width * float(middle), bottom + MARK_HEIGHT / 2)
        scene.shapes.append(
            Box(mark, box_width / size, MARK_HEIGHT, CHOICE_COLOR, edge=CHOICE_COLOR, is_rounded=False, kind="mark")
        )
        scene.shapes.append(Text(Point(center.x, center.y + MARK_HEIGHT / 2), text, is_centered=True))
    return scene
