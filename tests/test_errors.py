"""Error messages are one line and name the input."""

from __future__ import annotations

import math

import pytest

from nases_env.errors import InputError, did_you_mean, one_line, require_minimum, shown


def test_one_line() -> None:
    assert one_line(ValueError("two\n  lines ")) == "two lines"
    assert one_line(TimeoutError()) == "TimeoutError"


def test_message_of_an_input_error_is_one_line() -> None:
    assert str(InputError("no file new\nline\x85.json")) == "no file new line .json"


def test_shown_is_the_type_of_a_value_without_text() -> None:
    assert shown("a") == "'a'"
    assert shown(10**5000) == "<int>"


def test_did_you_mean() -> None:
    assert did_you_mean("cifar", ["cifar10", "digits"]) == " (did you mean 'cifar10'?)"
    assert did_you_mean("xyz", ["cifar10", "digits"]) == ""


def test_require_minimum() -> None:
    require_minimum(1, seeds=1, num_images=None)
    for value in (0.5, math.nan):
        with pytest.raises(InputError, match=f"^lr must be at least 1, not {value}$"):
            require_minimum(1, num_images=2, lr=value)
