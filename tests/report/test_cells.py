"""A drawing of a cell shows each of its operators and lines."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from nases_env.cell_layout import drawn_graphs, short_name
from nases_env.report.cells import draw_cell, legend
from nases_env.search_spaces import EnasMicro, SearchSpace
from nases_env.search_spaces.graph import Branch, CellGraph
from nases_env.search_spaces.nasbench201 import NasBench201


@pytest.mark.parametrize("space", [EnasMicro(), NasBench201()], ids=lambda space: space.name)
def test_cell_shows_its_operators_and_lines(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        for graph in drawn_graphs(space, space.sample(rng)):
            drawing = ElementTree.fromstring(draw_cell(graph, "child 1")[0])
            branches = [branch for node in graph.nodes for branch in node]
            num_zero = sum(not node for node in graph.nodes)
            texts = [text.text for text in drawing.iter("text")]
            assert sorted(map(str, texts)) == sorted(
                [
                    *graph.inputs,
                    "output",
                    *(short_name(branch.operator) for branch in branches),
                    *(f"+{index}" for index in range(1, len(graph.nodes) + 1)),
                    *num_zero * ["zero"],
                ]
            )
            wires = [path for path in drawing.iter("path") if "wire" in str(path.get("class"))]
            assert len(wires) == len(branches) + len(graph.outputs)
            width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
            for box in drawing.iter("rect"):
                assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
                assert 0 <= float(box.attrib["y"]) <= height - float(box.attrib["height"])
            for disk in drawing.iter("circle"):
                assert float(disk.attrib["cx"]) + float(disk.attrib["r"]) <= width


def test_description_names_each_node() -> None:
    space = NasBench201()
    (graph,) = drawn_graphs(space, space.architecture([2, 0, 3, 1, 0, 4]))
    label = str(ElementTree.fromstring(draw_cell(graph, "child 5")[0]).get("aria-label"))
    assert label.startswith("cell of child 5: node 1 = ")
    assert label.endswith("output = node 3")


def test_legend_has_each_operator_once() -> None:
    branches = tuple(Branch(name, 0) for name in ("max_pool_3x3", "skip_connect", "other_3x3", "skip_connect"))
    graph = CellGraph("cell", ("input",), (branches,), (1,))
    assert legend([graph, graph]) == [
        ("skip", "skip_connect", "op-identity"),
        ("max 3×3", "max_pool_3x3", "op-max"),
        ("other 3×3", "other_3x3", "op-other"),
    ]
