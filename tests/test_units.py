"""Numbers with units are parsed exactly, and wrong ones are errors of one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.units import (
    format_bytes,
    format_count,
    format_seconds,
    parse_bytes,
    parse_count,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "number"), [("100k", 100_000), ("5M", 5_000_000), ("1.1M", 1_100_000), ("2e3", 2000), (" 7 ", 7), ("1G", 10**9)]
)
def test_counts(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("256KB", 256_000), ("256KiB", 262_144), ("1.5mib", 1_572_864), ("4096", 4096), ("12B", 12), ("1MB", 10**6)],
)
def test_bytes(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize(("text", "seconds"), [("2ms", 0.002), ("500us", 0.0005), ("0.1s", 0.1), ("1e-05s", 1e-5)])
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@given(st.integers(1, 2**53))
def test_formatted_numbers_are_parsed_again(number: int) -> None:
    assert parse_count(format_count(number)) == parse_bytes(format_bytes(number)) == number


def test_formatted_seconds() -> None:
    assert [format_seconds(seconds) for seconds in (0.002, 1.5, 0.00031)] == ["2ms", "1.5s", "310us"]
    assert [format_seconds(seconds) for seconds in (0.9996, 0.00099961, 1234.5)] == ["1s", "1ms", "1230s"]


@pytest.mark.parametrize("text", ["", "k", "1,000", "-5", "1.2.3", "nan", "inf", "0x10", "1 2", "1e999", "9" * 400, "0"])
def test_wrong_numbers_are_errors_of_one_line(text: str) -> None:
    for parse in (parse_count, parse_bytes, parse_seconds):
        with pytest.raises(InputError) as caught:
            parse(text)
        assert "\n" not in str(caught.value)
