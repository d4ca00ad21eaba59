"""Elements are escaped; scales and ticks fit their range."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.report.svg import decimal_format, element, make_scale, spread, step_path

FRACTIONS = st.floats(0, 1)
SIZES = st.floats(1e-300, 9e18)


def test_text_and_attributes_are_escaped() -> None:
    drawn = ElementTree.fromstring(element("text", "<b>&\u202e", aria_label="\"'<>", x=1.26))
    assert drawn.text == "<b>&\\u202e"
    assert drawn.attrib == {"aria-label": "\"'<>", "x": "1.3"}


@given(FRACTIONS, FRACTIONS)
def test_ticks_of_a_linear_scale_are_in_its_range_and_apart(a: float, b: float) -> None:
    scale = make_scale(min(a, b), max(a, b), 0, 300)
    ticks = scale.ticks(50)
    assert 2 <= len(ticks) <= 8
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)
    assert ticks == sorted(set(ticks))
    labels = list(map(decimal_format(scale, 50), ticks))
    assert len(set(labels)) == len(labels)


@given(SIZES, SIZES)
def test_ticks_of_a_logarithmic_scale_are_in_its_range(a: float, b: float) -> None:
    scale = make_scale(min(a, b), max(a, b), 0, 300, is_log=True)
    ticks = scale.ticks(60)
    assert 1 <= len(ticks) <= 7
    assert all(0 <= scale(tick) <= 300 for tick in ticks)


def test_round_numbers_are_the_ticks() -> None:
    assert make_scale(1_000, 2_000_000, 0, 300, is_log=True).ticks(70) == [1_000, 10_000, 100_000, 1_000_000]
    assert make_scale(0.7, 1.0, 0, 300).ticks(70) == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_values_outside_a_scale_are_at_its_ends() -> None:
    scale = make_scale(0, 1, 100, 0)
    assert (scale(-5), scale(0.25), scale(5)) == (100, 75, 0)


def test_step_path_holds_each_value_until_the_next() -> None:
    assert step_path([(0, 9), (5, 4)], 8) == "M0 9H5V4H8"


@given(st.lists(st.floats(0, 100), max_size=8))
def test_labels_are_moved_apart_in_their_order(ys: list[float]) -> None:
    placed = spread(ys, 0, 100, distance=12)
    order = sorted(range(len(ys)), key=ys.__getitem__)
    gaps = [placed[after] - placed[before] for before, after in pairwise(order)]
    assert all(gap >= 12 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= y <= 100 + 1e-9 for y in placed)
