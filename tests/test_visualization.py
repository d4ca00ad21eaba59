"""Drawings and text descriptions of cells."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch, Rectangle

from nases_env import visualization
from nases_env.cell_layout import operator_name
from nases_env.errors import InputError
from nases_env.search_spaces import EnasMicro, SearchSpace
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.embedding.spaces import ListSpace

SPACE = EnasMicro()
NASBENCH201 = NasBench201()
CHAIN = SPACE.architecture([choice for node in range(5) for choice in (node + 1, node % 5, node + 1, 1)] * 2)


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_svg_names_every_operator_input_node_and_output(tmp_path: Path) -> None:
    visualization.save(visualization.draw(SPACE, CHAIN, "a title"), tmp_path / "cell.svg")
    shown = texts(tmp_path / "cell.svg")
    assert "a title" in shown
    for name in ("normal cell", "reduction cell"):
        assert name in shown
    for graph in SPACE.cell_graphs(CHAIN):
        for node in graph.nodes:
            for branch in node:
                assert operator_name(branch.operator) in shown
    assert shown.count("sep conv 3×3") == 12
    assert shown.count("cell k-2") == shown.count("cell k-1") == shown.count("output") == 2
    assert sorted(text for text in shown if text.startswith("+")) == sorted([f"+{node}" for node in range(1, 6)] * 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(142)  # the five nodes of a cell form a chain
def test_boxes_are_inside_the_figure_and_do_not_overlap(seed: int) -> None:
    architecture = SPACE.sample(np.random.default_rng(seed))
    for axes in visualization.draw(SPACE, architecture).axes:
        boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        assert len(boxes) == 2 + 10 + 1
        for index, box in enumerate(boxes):
            assert axes.get_xlim()[0] <= box.x0 < box.x1 <= axes.get_xlim()[1]
            assert axes.get_ylim()[0] <= box.y0 < box.y1 <= axes.get_ylim()[1]
            for other in boxes[:index]:
                assert box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0


def test_figures_of_fixed_size_are_large_enough_for_every_cell() -> None:
    arrays = [
        visualization.to_array(visualization.draw(SPACE, SPACE.sample(np.random.default_rng(seed)), fixed_size=True))
        for seed in (0, 1)
    ]
    assert arrays[0].dtype == np.uint8
    assert arrays[0].shape == arrays[1].shape
    assert arrays[0].shape[2] == 3
    assert (arrays[0] != arrays[1]).any()
    assert arrays[0].min() < 100
    assert arrays[0].max() == 255


def test_figure_is_no_larger_than_the_cell_and_its_title() -> None:
    cell = NASBENCH201.from_string("|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|nor_conv_3x3~2|")
    figure = visualization.draw(NASBENCH201, cell, "a title")
    (axes,) = figure.axes
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert figure.get_figheight() < 2.5
    assert min(box.y0 for box in boxes) - axes.get_ylim()[0] < 0.3
    assert figure.get_figwidth() - max(box.x1 for box in boxes) < 0.3
    assert visualization.draw(NASBENCH201, cell, "a title" * 14).get_figwidth() > figure.get_figwidth()


def test_same_architecture_is_drawn_to_identical_files(tmp_path: Path) -> None:
    for ending in ("png", "svg", "pdf"):
        for name in ("a", "b"):
            visualization.save(visualization.draw(SPACE, CHAIN), tmp_path / f"{name}.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", header[16:])) > 100
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_other_file_formats_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.png, \.svg, \.pdf"):
        visualization.save(visualization.draw(SPACE, CHAIN), tmp_path / "cell.jpg")
    assert list(tmp_path.iterdir()) == []


def test_describe_cells() -> None:
    text = visualization.describe(SPACE, CHAIN)
    assert text.splitlines()[:3] == [
        "normal cell",
        "  node 1 = identity(cell k-1) + sep conv 3×3(cell k-1)",
        "  node 2 = sep conv 3×3(node 1) + sep conv 3×3(node 1)",
    ]
    assert text.count("  output = cell k-2, node 5") == 2


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 4)] * 6))
@example((0, 0, 0, 0, 0, 0))  # no edges
@example((3, 3, 3, 3, 3, 3))
def test_boxes_of_a_cell_with_absent_edges_do_not_overlap(choices: tuple[int, ...]) -> None:
    architecture = NASBENCH201.architecture(choices)
    (axes,) = visualization.draw(NASBENCH201, architecture).axes
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    nodes = (choices[:1], choices[1:3], choices[3:])
    assert len(boxes) == 1 + sum(max(1, len(node) - node.count(0)) for node in nodes) + 1
    for index, box in enumerate(boxes):
        assert axes.get_xlim()[0] <= box.x0 < box.x1 <= axes.get_xlim()[1]
        assert axes.get_ylim()[0] <= box.y0 < box.y1 <= axes.get_ylim()[1]
        for other in boxes[:index]:
            assert box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
    shown = [text.get_text() for text in axes.texts]
    assert shown.count("zero") == sum(set(node) == {0} for node in nodes)
    assert "none" not in shown
    for choice in set(choices) - {0}:
        name = operator_name(NASBENCH201.operators[choice])
        assert shown.count(name) == choices.count(choice)


def test_describe_a_cell_with_absent_edges() -> None:
    string = "|none~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert visualization.describe(NASBENCH201, NASBENCH201.from_string(string)).splitlines() == [
        "cell",
        "  node 1 = zero",
        "  node 2 = nor conv 3×3(input) + skip connect(node 1)",
        "  node 3 = avg pool 3×3(node 1) + nor conv 1×1(node 2)",
        "  output = node 3",
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 7, 100]), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_search_space_without_cells_is_drawn_as_decisions(sizes: list[int], seed: int) -> None:
    space = ListSpace(tuple(sizes))
    architecture = space.sample(np.random.default_rng(seed))
    (axes,) = visualization.draw(space, architecture, "a title").axes
    shown = [
        f"{index}: {choice} of 0..{size - 1}"
        for index, (choice, size) in enumerate(zip(architecture.decisions, sizes, strict=True))
    ]
    assert [text.get_text() for text in axes.texts] == ["a title", *shown]
    assert visualization.describe(space, architecture).splitlines() == [f"decision {line}" for line in shown]

    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    boxes = [(patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()) for patch in patches]
    for index, (x, y, width, height) in enumerate(boxes[::2]):
        assert axes.get_xlim()[0] < x < x + width < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < y < y + height < axes.get_ylim()[1]
        assert all(x + width < x2 or x2 + width < x or y2 + height < y for x2, y2, _, _ in boxes[2 * index + 2 :: 2])
    marks = [(mark[0] - box[0]) / box[2] for box, mark in zip(boxes[::2], boxes[1::2], strict=True)]
    np.testing.assert_allclose(marks, np.array(architecture.decisions) / sizes, atol=1e-6)


class Named(SearchSpace):
    name = "named"
    decision_sizes = (2, 3)
    decision_names: ClassVar[tuple[str, ...]] = ("width of the first layer", "activation")
    choice_names: ClassVar[tuple[tuple[str | int | float, ...], ...]] = ((16, 32), ("relu", "tanh", "swish"))


def test_named_decisions_and_choices_are_shown() -> None:
    space = Named()
    architecture = space.architecture([1, 2])
    shown = ["width of the first layer: 32", "activation: swish"]
    assert visualization.describe(space, architecture).splitlines() == shown
    figures = [visualization.draw(space, space.architecture(decisions), "a title") for decisions in ([1, 2], [0, 0])]
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["a title", *shown]
    assert list(figures[0].get_size_inches()) == list(figures[1].get_size_inches())
    (axes,) = figures[0].axes
    visualization.to_array(figures[0])
    box, text = axes.patches[0], axes.texts[1]
    assert text.get_window_extent().width < box.get_window_extent().width


def test_decisions_or_choices_alone_can_be_named() -> None:
    class Choices(Named):
        decision_names = ()

    class Decisions(Named):
        choice_names = ()

    architecture = Named().architecture([1, 2])
    assert visualization.describe(Choices(), architecture) == "decision 0: 32\ndecision 1: swish"
    assert visualization.describe(Decisions(), architecture) == "width of the first layer: 1 of 0..1\nactivation: 2 of 0..2"


def test_decisions_are_saved_as_images(tmp_path: Path) -> None:
    space = ListSpace((2, 50, 1) * 9)
    figure = visualization.draw(space, space.architecture([1, 30, 0] * 9), "a title")
    visualization.save(figure, tmp_path / "decisions.svg")
    visualization.save(figure, tmp_path / "decisions.png")
    assert "26: 0 of 0..0" in texts(tmp_path / "decisions.svg")
    assert "a title" in texts(tmp_path / "decisions.svg")
    pixels = visualization.to_array(figure)
    assert pixels.shape[1] <= 960
    assert pixels.min() < 100
