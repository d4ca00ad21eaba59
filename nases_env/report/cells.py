"""Drawings of cells as SVG: a node is a box with one row per operator; the color of a line identifies its value."""

from __future__ import annotations

from itertools import pairwise

from markupsafe import Markup

from nases_env.cell_layout import OUTPUT, Item, arrange, operator_name
from nases_env.report.svg import element, join, number
from nases_env.search_spaces.graph import CellGraph

BOX_WIDTH, ROW_HEIGHT = 108.0, 20.0  # pixels
COLUMN_PITCH = 154.0  # pixels between the left sides of two columns
GAP = 16.0  # pixels between two items of a column
PADDING = 6.0  # pixels around a cell
LINE_HEIGHT = 6.0  # of a line that passes through a column
NUM_VALUE_COLORS = 7

OPERATOR_CLASSES = {
    "identity": "op-identity",
    "skip_connect": "op-identity",
    "sep_conv_3x3": "op-conv-3",
    "sep_conv_5x5": "op-conv-5",
    "nor_conv_1x1": "op-conv-1",
    "nor_conv_3x3": "op-conv-3",
    "avg_pool_3x3": "op-avg",
    "max_pool_3x3": "op-max",
}


def draw_cell(graph: CellGraph, owner: str) -> Markup:
    """Return the drawing of a cell of ``owner``, such as "child 7", from left to right."""
    columns = arrange(graph)
    heights = [[_height(item, graph) for item in items] for items in columns]
    height = max(sum(each) + GAP * (len(each) - 1) for each in heights) + 2 * PADDING
    places: dict[tuple[Item, int], tuple[float, float, float]] = {}  # left side, top, height
    for column, (items, sizes) in enumerate(zip(columns, heights, strict=True)):
        top = (height - sum(sizes) - GAP * (len(sizes) - 1)) / 2
        for item, size in zip(items, sizes, strict=True):
            places[item, column] = (PADDING + column * COLUMN_PITCH, top, size)
            top += size + GAP
    width = 2 * PADDING + (len(columns) - 1) * COLUMN_PITCH + BOX_WIDTH
    home = {item.value: column for item, column in places if item.is_here}
    lines: list[Markup] = []
    boxes: list[Markup] = []
    for value, column in home.items():
        x, y, size = places[Item(value), column]
        if value == OUTPUT:
            boxes.append(_box(x, y, size, [("output", "")]))
            reads = [(source, y + size / 2) for source in graph.outputs]
        elif value < len(graph.inputs):
            boxes.append(_box(x, y, size, [(graph.inputs[value], "")], value))
            reads = []
        else:
            # The rows are in the vertical order of what they read, so that few lines cross.
            middle = {source: _middle(places, home, source) for source in range(value)}
            node = graph.nodes[value - len(graph.inputs)]
            branches = sorted(node, key=lambda branch: middle[branch.source])
            rows = [(operator_name(each.operator), OPERATOR_CLASSES.get(each.operator, "op-other")) for each in branches]
            boxes.append(_box(x, y, size, rows or [("zero", "")], value))
            reads = [(branch.source, y + (row + 0.5) * ROW_HEIGHT) for row, branch in enumerate(branches)]
        for source, target in reads:
            css_class = f"wire v{source % NUM_VALUE_COLORS}{' output' if value == OUTPUT else ''}"
            lines.append(element("path", d=_route(places, home, source, (x, target), column), class_=css_class))
    return element(
        "svg",
        join(lines),
        join(boxes),
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{graph.name} of {owner}: {_describe(graph)}",
        class_="cell",
        style=f"min-width:{number(0.72 * width)}px",
    )


def _describe(graph: CellGraph) -> str:
    names = [*graph.inputs, *(f"node {index}" for index in range(1, len(graph.nodes) + 1))]
    lines = [
        f"{name} = {' + '.join(f'{operator_name(branch.operator)}({names[branch.source]})' for branch in node) or 'zero'}"
        for name, node in zip(names[len(graph.inputs) :], graph.nodes, strict=True)
    ]
    return "; ".join([*lines, f"output = {', '.join(names[value] for value in graph.outputs)}"])


def _height(item: Item, graph: CellGraph) -> float:
    if not item[1]:
        return LINE_HEIGHT
    index = item[0] - len(graph.inputs)
    return ROW_HEIGHT * (max(1, len(graph.nodes[index])) if index >= 0 and item[0] != OUTPUT else 1)


def _middle(places: dict[tuple[Item, int], tuple[float, float, float]], home: dict[int, int], value: int) -> float:
    _, top, size = places[Item(value), home[value]]
    return top + size / 2


def _route(
    places: dict[tuple[Item, int], tuple[float, float, float]],
    home: dict[int, int],
    source: int,
    target: tuple[float, float],
    last: int,
) -> str:
    """Return the path from a value to ``target`` through its places in the columns between."""
    first = home[source]
    points = [(places[Item(source), first][0] + BOX_WIDTH, _middle(places, home, source))]
    for column in range(first + 1, last):
        x, y, size = places[Item(source, is_here=False), column]
        points += [(x, y + size / 2), (x + BOX_WIDTH, y + size / 2)]
    points.append(target)
    text = f"M{number(points[0][0])} {number(points[0][1])}"
    for index, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        middle = (x0 + x1) / 2
        bend = f"C{number(middle)} {number(y0)} {number(middle)} {number(y1)} {number(x1)} {number(y1)}"
        text += bend if index % 2 == 0 else f"L{number(x1)} {number(y1)}"
    return text


def _box(x: float, y: float, height: float, rows: list[tuple[str, str]], value: int | None = None) -> Markup:
    """Return a box with ``rows`` of a text and a class for its swatch; ``value`` colors the side where the line begins."""
    parts = [element("rect", x=x, y=y, width=BOX_WIDTH, height=height, rx=3, class_="box")]
    for row, (text, swatch) in enumerate(rows):
        top = y + row * ROW_HEIGHT
        if row:
            parts.append(element("path", d=f"M{number(x)} {number(top)}h{number(BOX_WIDTH)}", class_="rule"))
        if swatch:
            parts.append(element("rect", x=x + 5, y=top + 5, width=10, height=10, rx=2, class_=f"swatch {swatch}"))
        left = x + (20 if swatch else 8)
        parts.append(element("text", text, x=left, y=top + 14, class_="name"))
    if value is not None:
        end = f"M{number(x + BOX_WIDTH)} {number(y + 2)}v{number(height - 4)}"
        parts.append(element("path", d=end, class_=f"port v{value % NUM_VALUE_COLORS}"))
    return join(parts)
