"""Parsing of JSON from files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fault_injection.fuzzing.mutations import TEXTS, mutate_file
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.json_io import MAX_DEPTH, parse_json, read_object, require_field_types, require_type

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(JSON_VALUES)
def test_valid_json_is_parsed(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in (b"null", b"[]", b"{}", b'"\\ud800"')])
def test_invalid_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of the json module
        parse_json(text)


def test_infinity_is_allowed_on_request() -> None:
    assert math.isinf(parse_json("[Infinity]", allow_infinity=True)[0])
    require_type("interval", math.inf, float, allow_infinity=True)
    for value, options in ((math.inf, {}), (math.nan, {}), (math.nan, {"allow_infinity": True})):
        with pytest.raises(ValueError, match="too large or not a number"):
            require_type("interval", value, float, **options)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_limited_far_below_the_recursion_limit(opening: str, closing: str) -> None:
    value = parse_json(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH)
    assert repr(value).count("1") == 1
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(opening * depth + "1" + closing * depth)
    flat = "[" + ", ".join([opening + "1" + closing] * 1000) + "]"
    assert len(parse_json(flat)) == 1000


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
def test_integers_that_overflow_are_rejected_unless_they_are_seeds(value: int) -> None:
    for of_type in (int, float):
        with pytest.raises(ValueError, match=f"budget contains {str(value)[:30]}"):
            require_type("budget", value, of_type)
    with pytest.raises(ValueError, match="budgets contains"):
        require_type("budgets", [1, value], list[int])
    require_type("seed", value, int)
    require_type("configuration", {"split_seed": value}, dict[str, Any])


def test_object_has_the_required_entries(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"loss": 0.5, "other": [1]}')
    assert read_object(path, {"loss": float}) == {"loss": 0.5, "other": [1]}
    for text, problem in (("{}", "loss is missing"), ("[1]", "must be a JSON object"), ('{"loss": "x"}', "must be float")):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            read_object(path, {"loss": float})


@given(JSON_VALUES, st.integers(0, 2**32))
def test_damaged_json_is_parsed_or_a_value_error(value: Any, seed: int) -> None:
    text = mutate_file(json.dumps({"a": value}).encode(), np.random.default_rng(seed))
    with contextlib.suppress(ValueError):
        repr(parse_json(text))


def test_all_items_are_checked() -> None:
    require_type("numbers", [1, 2], list[int])
    with pytest.raises(ValueError, match=r"numbers must be list\[int\], not \[1, 'x'\]"):
        require_type("numbers", [1, "x"], list[int])


@pytest.mark.parametrize(
    ("value", "hint"), [(True, int), (False, float), ([16, True], list[int]), ({"x": [True]}, dict[str, list[int]])]
)
def test_bool_counts_as_a_number_only_where_it_may_be_a_bool(value: Any, hint: Any) -> None:
    with pytest.raises(ValueError, match=r"size must be .*, not "):
        require_type("size", value, hint)
    require_type("size", value, hint | bool | list[bool | int] | dict[str, list[bool | int]])


def test_fields_are_checked_by_their_types() -> None:
    @dataclass
    class Options:
        budget: int
        store: str | None = None

    require_field_types(Options, {"budget": 3, "other": object()})
    with pytest.raises(ValueError, match="budget must be int, not '3'"):
        require_field_types(Options, {"budget": "3"})


def test_text_is_valid_in_every_locale() -> None:
    """The name of a class need not be a path in the locale of the reader."""
    code = "from nases_env.json_io import require_type; require_type('class_names', ('\\u65e5',), tuple[str, ...])"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("text", ["a\0", "\ud800"])
def test_text_that_cannot_be_a_path_is_rejected(text: str) -> None:
    for value, hint in ((text, str), ({"store": text}, dict[str, str]), (text, str | None)):
        with pytest.raises(ValueError, match=r"store contains .* has an invalid character"):
            require_type("store", value, hint)
    require_type("store", "\udcff.sqlite", str)  # a name that is not UTF-8
    with pytest.raises(InputError, match="cannot open the store"):
        Store(text)
