"""Numbers and durations as a report shows them."""

from __future__ import annotations

import pytest

from nases_env.report.text import compact, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1.234, "1.23 s"),
        (9.999, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (119.7, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (86399.7, "1 d 0 h"),
        (90000.0, "1 d 1 h"),
        (1e9, "11,574 d 1 h"),
    ],
)
def test_duration_is_rounded_before_it_is_split_into_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (999, "999"), (1234, "1.23k"), (999_499, "999k"), (999_700, "1M"), (1_500_000, "1.5M"), (999_600_000, "1G")],
)
def test_count_is_rounded_before_its_prefix_is_chosen(value: float, text: str) -> None:
    assert compact(value) == text
