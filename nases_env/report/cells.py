"""Drawings of cells as SVG, in the style of ``nases_env.visualization``: a frame is a node, the sum of its operators."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from markupsafe import Markup

from nases_env.cell_layout import OUTPUT, ZERO, Item, Layout, node_lines, short_name
from nases_env.report.svg import element, join, number
from nases_env.search_spaces.graph import CellGraph

# All lengths are in pixels.
BOX_HEIGHT, BOX_PITCH, MIN_BOX_WIDTH = 22.0, 25.0, 74.0
CHARACTER_WIDTH = 7.4  # of the text in a box, on average
FRAME_PADDING, SUM_RADIUS = 4.0, 12.0  # the sum is on the right side of the frame
WIDTH = 640.0  # of a cell, unless its columns would be too close
MAX_PITCH, LINE_WIDTH = 170.0, 32.0  # largest distance of two columns; smallest distance between two boxes
MAX_HEIGHT, MAX_GAP, MARGIN = 320.0, 26.0, 4.0
MIN_SCALE = 0.85  # a cell that would be smaller is scrolled
NUM_VALUE_COLORS = 7

OPERATOR_CLASSES = {
    "identity": "op-identity",
    "skip_connect": "op-identity",
    "sep_conv_3x3": "op-small",
    "sep_conv_5x5": "op-large",
    "nor_conv_1x1": "op-small",
    "nor_conv_3x3": "op-large",
    "avg_pool_3x3": "op-avg",
    "max_pool_3x3": "op-max",
}
"""Class of the box of each operator; others have no color."""
NO_COLOR = "op-other"


def draw_cell(graph: CellGraph, owner: str) -> tuple[Markup, float]:
    """Return the drawing of a cell of ``owner``, such as "child 7", from left to right, and its smallest width on a page."""
    cell = _Cell(graph)
    return cell.draw(owner), cell.min_width


def legend(graphs: Iterable[CellGraph]) -> list[tuple[str, str, str]]:
    """Return the operators of cells: short name, full name and class of the box."""
    found = {branch.operator for graph in graphs for node in graph.nodes for branch in node}
    ordered = [*(name for name in OPERATOR_CLASSES if name in found), *sorted(found - OPERATOR_CLASSES.keys())]
    return [(short_name(name), name, OPERATOR_CLASSES.get(name, NO_COLOR)) for name in ordered]


class _Cell:
    """A cell and the positions of its items."""

    def __init__(self, graph: CellGraph) -> None:
        self._graph = graph
        operators = {short_name(branch.operator) for node in graph.nodes for branch in node}
        self._box_width = max(MIN_BOX_WIDTH, *(CHARACTER_WIDTH * len(text) + 10 for text in (*operators, *graph.inputs)))
        layout = Layout(graph, box_height=BOX_PITCH, max_height=MAX_HEIGHT, max_gap=MAX_GAP)
        sides = self._box_width + 2 * FRAME_PADDING + SUM_RADIUS + 2 * MARGIN
        num_pitches = len(layout.columns) - 1
        closest = self._box_width + 2 * FRAME_PADDING + SUM_RADIUS + LINE_WIDTH
        pitch = max(closest, min(MAX_PITCH, (WIDTH - sides) / num_pitches))
        self._width = sides + pitch * num_pitches
        items = [
            (item, column, float(y), layout.height(item))
            for column, (items, ys) in enumerate(zip(layout.columns, layout.ys, strict=True))
            for item, y in zip(items, ys, strict=True)
        ]
        top = max(y + height / 2 for _, _, y, height in items) + FRAME_PADDING + MARGIN
        self._height = top - min(y - height / 2 for _, _, y, height in items) + FRAME_PADDING + MARGIN
        left = MARGIN + FRAME_PADDING + self._box_width / 2
        self._centers = {(item, column): (left + pitch * column, top - y) for item, column, y, _ in items}
        self._columns = {item.value: column for item, column in self._centers if item.is_here}

    @property
    def min_width(self) -> float:
        return MIN_SCALE * self._width

    def draw(self, owner: str) -> Markup:
        graph = self._graph
        lines: list[Markup] = []
        boxes: list[Markup] = []
        for value, column in self._columns.items():
            x, y = self._centers[Item(value), column]
            if value == OUTPUT:
                boxes.append(self._box(x, y, "output", "value"))
                lines += [self._line(source, (x, y), column, " output") for source in graph.outputs]
            elif value < len(graph.inputs):
                boxes.append(self._box(x, y, graph.inputs[value], "value"))
            else:
                lines += self._node(value, column, boxes)
        return element(
            "svg",
            join(lines),
            join(boxes),
            viewBox=f"0 0 {number(self._width)} {number(self._height)}",
            width=self._width,
            height=self._height,
            role="img",
            aria_label=f"{graph.name} of {owner}: {'; '.join(node_lines(graph))}",
            class_="cell",
            style=f"min-width:{number(self.min_width)}px",
        )

    def _node(self, value: int, column: int, boxes: list[Markup]) -> list[Markup]:
        """Add the boxes of a node to ``boxes`` and return the lines to them."""
        x, y = self._centers[Item(value), column]
        node = value - len(self._graph.inputs)
        # The operators are in the vertical order of what they read, so that few lines cross.
        rows = {item.value: center[1] for (item, where), center in self._centers.items() if where == column - 1}
        branches = sorted(self._graph.nodes[node], key=lambda branch: rows[branch.source])
        height = (max(1, len(branches)) - 1) * BOX_PITCH + BOX_HEIGHT + 2 * FRAME_PADDING
        left, right = x - self._box_width / 2 - FRAME_PADDING, x + self._box_width / 2 + SUM_RADIUS
        color = _value_class(value)
        boxes.append(element("rect", x=left, y=y - height / 2, width=right - left, height=height, class_=f"frame {color}"))
        lines = []
        for index, branch in enumerate(branches):
            at = y + (index - (len(branches) - 1) / 2) * BOX_PITCH
            css_class = OPERATOR_CLASSES.get(branch.operator, NO_COLOR)
            boxes.append(self._box(x, at, short_name(branch.operator), css_class))
            lines.append(self._line(branch.source, (x, at), column))
        if not branches:
            boxes.append(self._box(x, y, ZERO, "value"))
        boxes.append(element("circle", cx=right, cy=y, r=SUM_RADIUS, class_=f"frame {color}"))
        boxes.append(element("text", f"+{node + 1}", x=right, y=y + 3.5, class_="sum middle"))
        return lines

    def _box(self, x: float, y: float, text: str, css_class: str) -> Markup:
        left, top = x - self._box_width / 2, y - BOX_HEIGHT / 2
        box = element("rect", x=left, y=top, width=self._box_width, height=BOX_HEIGHT, rx=3, class_=f"box {css_class}")
        return box + element("text", text, x=x, y=y + 4, class_=f"name middle on-{css_class}")

    def _line(self, source: int, target: tuple[float, float], last: int, css_class: str = "") -> Markup:
        """Return the line from a value to the left side of the box at ``target``, through the columns between."""
        half = self._box_width / 2
        first = self._columns[source]
        x, y = self._centers[Item(source), first]
        points = [(x + half + (0 if source < len(self._graph.inputs) else 2 * SUM_RADIUS), y)]
        for column in range(first + 1, last):
            x, y = self._centers[Item(source, is_here=False), column]
            points += [(x - half, y), (x + half + 2 * SUM_RADIUS, y)]
        points.append((target[0] - half, target[1]))
        text = f"M{number(points[0][0])} {number(points[0][1])}"
        for (x0, y0), (x1, y1) in pairwise(points):
            middle = number((x0 + x1) / 2)
            text += f"C{middle} {number(y0)} {middle} {number(y1)} {number(x1)} {number(y1)}"
        return element("path", d=text, class_=f"wire {_value_class(source)}{css_class}")


def _value_class(value: int) -> str:
    return f"v{value % NUM_VALUE_COLORS}"
