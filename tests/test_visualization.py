"""Drawings and text descriptions of cells."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from nases_env import visualization
from nases_env.cell_layout import short_name
from nases_env.errors import InputError
from nases_env.search_spaces import (
    Architecture,
    EnasMicro,
    EnasMicroSized,
    SearchSpace,
    parse_architecture,
)
from nases_env.search_spaces.graph import Branch, CellGraph
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.visualization.scene import FONT_SIZE, Box, Disk, Line, Point, Scene, Text, make_scene
from tests.commands import ROOT
from tests.drawings import draw_every_time
from tests.embedding.spaces import ListSpace

SPACE = EnasMicro()
NASBENCH201 = NasBench201()
CHAIN = SPACE.architecture([choice for node in range(5) for choice in (node + 1, node % 5, node + 1, 1)] * 2)


@pytest.fixture(scope="module", autouse=True)
def _drawings_are_not_reused() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_every_time(patch)
        yield


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
                assert branch.operator in shown  # in the legend
    assert shown.count("sep 3×3") == 12 + 1
    assert shown.count("sep_conv_3x3") == 1
    assert shown.count("cell k-2") == shown.count("cell k-1") == shown.count("output") == 2
    assert sorted(text for text in shown if text.startswith("+")) == sorted(["+", *[f"+{node}" for node in range(1, 6)] * 2])


@pytest.mark.parametrize(("space", "meaning"), [(SPACE, "concatenated"), (NasBench201(), "output")])
def test_legend_says_what_the_lines_to_the_output_are(space: SearchSpace, meaning: str) -> None:
    scene = visualization.make_scene(space, space.sample(np.random.default_rng(0)))
    *_, last = (shape.text for shape in scene.shapes if isinstance(shape, Text))
    assert last == meaning


def require_separate_boxes(scene: Scene) -> list[Box]:
    """Return the boxes and frames of the cells, which must be inside the page and must not overlap others of their kind."""
    boxes = [shape for shape in scene.shapes if isinstance(shape, Box)]
    for kinds in (("frame", "value", "legend"), ("operator", "legend")):
        spans = [
            (
                box.center.x - box.width / 2,
                box.center.x + box.width / 2,
                box.center.y - box.height / 2,
                box.center.y + box.height / 2,
            )
            for box in boxes
            if box.kind in kinds and box.text != "zero"
        ]
        for index, (left, right, low, high) in enumerate(spans):
            assert 0 <= left < right <= scene.width
            assert 0 <= low < high <= scene.height
            for left2, right2, low2, high2 in spans[:index]:
                assert right <= left2 or right2 <= left or high <= low2 or high2 <= low
    return boxes


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
@example(142, False)  # the five nodes of a cell form a chain
@example(142, True)
def test_boxes_are_inside_the_figure_and_do_not_overlap(seed: int, fixed_size: bool) -> None:
    scene = make_scene(SPACE, SPACE.sample(np.random.default_rng(seed)), fixed_size=fixed_size)
    kinds = [box.kind for box in require_separate_boxes(scene)]
    assert kinds.count("frame") == 10
    assert kinds.count("operator") == 20
    assert kinds.count("value") == 2 * 3


def test_all_nodes_in_one_column_fit_in_a_figure_of_fixed_size() -> None:
    architecture = SPACE.architecture([0, 1, 0, 2] * 10)  # input k-1 is a loose end, so its line passes the five nodes
    require_separate_boxes(make_scene(SPACE, architecture, fixed_size=True))


def test_lines_begin_and_end_at_the_boxes_that_they_connect() -> None:
    scene = make_scene(SPACE, CHAIN)
    starts = {path[0] for line in scene.shapes if isinstance(line, Line) for path in line.paths}
    ends = {path[-1] for line in scene.shapes if isinstance(line, Line) for path in line.paths}
    for shape in scene.shapes:
        if isinstance(shape, Box) and shape.kind == "operator":
            assert Point(shape.center.x - shape.width / 2, shape.center.y) in ends
        elif isinstance(shape, Disk) and shape.text != "+":
            assert any(start == pytest.approx((shape.center.x + shape.radius, shape.center.y)) for start in starts)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_lines_do_not_pass_behind_boxes(seed: int) -> None:
    scene = make_scene(SPACE, SPACE.sample(np.random.default_rng(seed)))
    frames = [shape for shape in scene.shapes if isinstance(shape, Box) and shape.kind in ("frame", "value")]
    for line in scene.shapes:
        if isinstance(line, Line):
            for start, end in (pair for path in line.paths for pair in pairwise(path) if pair[0].y == pair[1].y):
                for frame in frames:
                    is_between = start.x < frame.center.x < end.x
                    assert not (is_between and abs(frame.center.y - start.y) < frame.height / 2)


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
    scene = make_scene(NASBENCH201, cell, "a title")
    boxes = [shape for shape in scene.shapes if isinstance(shape, Box)]
    assert scene.height < 2.5
    assert min(shape.position.y for shape in scene.shapes if isinstance(shape, Text)) < 0.3
    assert scene.width - max(box.center.x + box.width / 2 for box in boxes) < 0.3
    assert make_scene(NASBENCH201, cell, "a title" * 14).width > scene.width


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
    with pytest.raises(InputError, match=r"must end in \.png, \.svg, \.pdf, \.tex"):
        visualization.save_drawing(SPACE, CHAIN, tmp_path / "cell.jpg")
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_shown_above_the_cells() -> None:
    space = EnasMicroSized()
    architecture = space.sample(np.random.default_rng(0))
    summary = space.summary(architecture)
    assert visualization.describe(space, architecture).startswith(f"{summary}\nnormal cell\n")
    scene = make_scene(space, architecture, "a title")
    places = {shape.text: shape.position for shape in scene.shapes if isinstance(shape, Text)}
    assert scene.height > places["a title"].y > places[summary].y > places["normal cell"].y > places["reduction cell"].y
    require_separate_boxes(scene)


def test_describe_cells() -> None:
    text = visualization.describe(SPACE, CHAIN)
    assert text.splitlines()[:3] == [
        "normal cell",
        "  node 1 = identity(cell k-1) + sep conv 3×3(cell k-1)",
        "  node 2 = sep conv 3×3(node 1) + sep conv 3×3(node 1)",
    ]
    assert text.count("  output = cell k-2, node 5") == 2


@settings(max_examples=50)
@given(st.tuples(*[st.integers(0, 4)] * 6))
@example((0, 0, 0, 0, 0, 0))  # no edges
@example((3, 3, 3, 3, 3, 3))
def test_boxes_of_a_cell_with_absent_edges_do_not_overlap(choices: tuple[int, ...]) -> None:
    scene = make_scene(NASBENCH201, NASBENCH201.architecture(choices))
    boxes = require_separate_boxes(scene)
    nodes = (choices[:1], choices[1:3], choices[3:])
    shown = [box.text for box in boxes if box.kind in ("operator", "value")]
    assert len(shown) == 1 + sum(max(1, len(node) - node.count(0)) for node in nodes) + 1
    assert shown.count("zero") == sum(set(node) == {0} for node in nodes)
    assert "none" not in shown
    for choice in set(choices) - {0}:
        assert shown.count(short_name(NASBENCH201.operators[choice])) == choices.count(choice)


def test_describe_a_cell_with_absent_edges() -> None:
    string = "|none~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert visualization.describe(NASBENCH201, NASBENCH201.from_string(string)).splitlines() == [
        "cell",
        "  node 1 = zero",
        "  node 2 = nor conv 3×3(input) + skip connect(node 1)",
        "  node 3 = avg pool 3×3(node 1) + nor conv 1×1(node 2)",
        "  output = node 3",
    ]


@settings(max_examples=20)
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


@pytest.mark.parametrize("fixed_size", [False, True])
@pytest.mark.parametrize(("space", "architecture"), [(SPACE, CHAIN), (Named(), Named().architecture([1, 2]))])
def test_title_that_is_too_long_ends_with_an_ellipsis(
    space: SearchSpace, architecture: Architecture, fixed_size: bool
) -> None:
    title = "best of 1,000 in NASES-CIFAR10-v0, " * 9
    figure = visualization.draw(space, architecture, title, fixed_size=fixed_size)
    text = next(text for text in figure.axes[0].texts if text.get_text().startswith("best of"))
    assert text.get_text().endswith("…")
    assert title.startswith(text.get_text()[:-1])
    extent = text.get_window_extent()
    assert extent.x0 > 0
    assert extent.x1 < figure.bbox.width
    short = title[: len(text.get_text())]
    figure = visualization.draw(space, architecture, short, fixed_size=fixed_size)
    assert short in [text.get_text() for text in figure.axes[0].texts]


def test_scene_of_fixed_size_does_not_depend_on_the_title() -> None:
    space = Named()
    scenes = [make_scene(space, space.architecture([1, 2]), title, fixed_size=True) for title in ("", "a long title" * 4)]
    assert scenes[0].width == scenes[1].width


class Chain(SearchSpace):
    """A cell of ten nodes in a row, with operators of long names."""

    name = "chain"
    decision_sizes = (2,) * 10

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        operators = ("mobile_inverted_conv_3x3", "max_pool_3x3")
        nodes = tuple((Branch(operators[choice], index),) for index, choice in enumerate(architecture.decisions))
        return (CellGraph("cell", ("input",), nodes, (10,)),)


def test_boxes_of_a_long_chain_do_not_overlap() -> None:
    space = Chain()
    require_separate_boxes(make_scene(space, space.architecture([0, 1] * 5)))


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


def test_tikz_document_draws_every_shape(tmp_path: Path) -> None:
    visualization.save_drawing(SPACE, CHAIN, tmp_path / "cell.tex", "50% of a_b & {c}")
    document = (tmp_path / "cell.tex").read_text()
    assert document.startswith(r"\documentclass[tikz,border=2pt]{standalone}")
    assert document.endswith("\\end{tikzpicture}\n\\end{document}\n")
    assert r"{50\% of a\_b \& \{c\}};" in document
    assert document.isascii()
    shapes = [type(shape) for shape in make_scene(SPACE, CHAIN).shapes]
    assert document.count("\\draw[") == shapes.count(Line)
    assert document.count("\\node[") == len(shapes) - shapes.count(Line)
    assert document.count("{") - document.count(r"\{") == document.count("}") - document.count(r"\}")
    for color in re.findall(r"nases[A-Z]+", document):
        assert rf"\definecolor{{{color}}}" in document


@pytest.mark.parametrize("title", ["reward 0.12345", "regret 0.005 < 0.00512 > 0.001"])
def test_numbers_in_the_text_of_an_svg_keep_their_decimals(tmp_path: Path, title: str) -> None:
    visualization.save_drawing(SPACE, CHAIN, tmp_path / "cell.svg", title)
    assert title in texts(tmp_path / "cell.svg")
    assert not re.search(r' d="[^"]*\d\.\d{3}', (tmp_path / "cell.svg").read_text())


def test_frames_of_a_video_are_readable_at_600_pixels() -> None:
    scene = make_scene(SPACE, CHAIN, fixed_size=True)
    pixels_per_point = 600 / scene.width / 72
    assert FONT_SIZE * pixels_per_point > 8


def test_cell_of_the_readme_is_up_to_date(tmp_path: Path) -> None:
    space, architecture = parse_architecture((ROOT / "docs" / "images" / "best_cell.json").read_text())
    title = "NASES-CIFAR10-v0: validation accuracy 39.25%"
    visualization.save_drawing(space, architecture, tmp_path / "cell.svg", title)
    assert texts(tmp_path / "cell.svg") == texts(ROOT / "docs" / "images" / "best_cell.svg")
    assert (ROOT / "docs" / "images" / "best_cell.svg").stat().st_size < 40_000
