"""Parsing of JSON from files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.json_io import parse_json, require_field_types, require_type
from tests.mutations import TEXTS

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(JSON_VALUES)
def test_valid_json_is_parsed(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in (b"null", b"[]", b'"\\ud800"')])
def test_invalid_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of the json module
        parse_json(text)


def test_infinity_is_allowed_on_request() -> None:
    assert math.isinf(parse_json("[Infinity]", allow_infinity=True)[0])


def test_all_items_are_checked() -> None:
    require_type("numbers", [1, 2], list[int])
    with pytest.raises(ValueError, match=r"numbers must be list\[int\], not \[1, 'x'\]"):
        require_type("numbers", [1, "x"], list[int])


def test_fields_are_checked_by_their_types() -> None:
    @dataclass
    class Options:
        budget: int
        store: str | None = None

    require_field_types(Options, {"budget": 3, "other": object()})
    with pytest.raises(ValueError, match="budget must be int, not '3'"):
        require_field_types(Options, {"budget": "3"})
