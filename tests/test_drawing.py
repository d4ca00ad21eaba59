"""Pictures and texts of cells."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch

from nases_env import drawing
from nases_env.errors import InputError
from nases_env.search_spaces import EnasMicro

SPACE = EnasMicro()
CHAIN = SPACE.architecture([choice for node in range(5) for choice in (node + 1, node % 5, node + 1, 1)] * 2)


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_svg_names_every_operator_input_node_and_output(tmp_path: Path) -> None:
    drawing.save(drawing.draw(SPACE, CHAIN, "a title"), tmp_path / "cell.svg")
    shown = texts(tmp_path / "cell.svg")
    assert "a title" in shown
    for name in ("normal cell", "reduction cell"):
        assert name in shown
    for graph in SPACE.graphs(CHAIN):
        for node in graph.nodes:
            for branch in node:
                assert drawing.operator_name(branch.operator) in shown
    assert shown.count("sep conv 3×3") == 12
    assert shown.count("cell k-2") == shown.count("cell k-1") == shown.count("output") == 2
    assert sorted(text for text in shown if text.startswith("+")) == sorted([f"+{node}" for node in range(1, 6)] * 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(142)  # all five nodes of a cell below each other
def test_boxes_lie_inside_the_picture_and_apart(seed: int) -> None:
    architecture = SPACE.sample(np.random.default_rng(seed))
    for axes in drawing.draw(SPACE, architecture).axes:
        boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        assert len(boxes) == 2 + 10 + 1
        for index, box in enumerate(boxes):
            assert axes.get_xlim()[0] <= box.x0 < box.x1 <= axes.get_xlim()[1]
            assert axes.get_ylim()[0] <= box.y0 < box.y1 <= axes.get_ylim()[1]
            for other in boxes[:index]:
                assert box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0


def test_array_is_a_picture_of_one_size_for_all() -> None:
    arrays = [drawing.to_array(drawing.draw(SPACE, SPACE.sample(np.random.default_rng(seed)))) for seed in (0, 1)]
    assert arrays[0].dtype == np.uint8
    assert arrays[0].shape == arrays[1].shape
    assert arrays[0].shape[2] == 3
    assert (arrays[0] != arrays[1]).any()
    assert arrays[0].min() < 100
    assert arrays[0].max() == 255


def test_the_same_architecture_gives_the_same_files(tmp_path: Path) -> None:
    for ending in ("png", "svg"):
        for name in ("a", "b"):
            drawing.save(drawing.draw(SPACE, CHAIN), tmp_path / f"{name}.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", header[16:])) > 100


def test_another_format_is_an_error_that_names_the_two(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        drawing.save(drawing.draw(SPACE, CHAIN), tmp_path / "cell.jpg")
    assert list(tmp_path.iterdir()) == []


def test_text() -> None:
    text = drawing.describe(SPACE, CHAIN)
    assert text.splitlines()[:3] == [
        "normal cell",
        "  node 1 = identity(cell k-1) + sep conv 3×3(cell k-1)",
        "  node 2 = sep conv 3×3(node 1) + sep conv 3×3(node 1)",
    ]
    assert text.count("  output = cell k-2, node 5") == 2
