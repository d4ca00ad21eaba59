"""Numbers, durations and texts from files, as a report shows them."""

from __future__ import annotations

from datetime import datetime

from nases_env.escaping import printable

MINUTE, HOUR, DAY = 60, 3600, 86400


def printable_lines(text: str) -> str:
    """Return ``text`` with escapes in place of characters without a glyph, except for line breaks."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def percent(fraction: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * fraction:.2f}%"


def capitalize(text: str) -> str:
    """Return ``text`` with an upper-case first letter; the others remain as they are."""
    return text[:1].upper() + text[1:]


def compact(value: float) -> str:
    """Format a count with a prefix, such as 1.5M."""
    for power, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * power:  # such values are rounded to three digits
            return f"{value / power:.3g}{prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Format a duration with two units at most."""
    if seconds < 10:
        return f"{seconds:.3g} s"
    seconds = round(seconds)
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min {seconds % MINUTE} s"
    if seconds < DAY:
        return f"{seconds // HOUR} h {seconds % HOUR // MINUTE} min"
    return f"{seconds // DAY:,} d {seconds % DAY // HOUR} h"


def milliseconds(seconds: float) -> str:
    """Format a short duration in milliseconds."""
    value = 1000 * seconds
    return f"{value:,.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def count(number: int, singular: str, plural: str = "") -> str:
    """Format a number of things."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def date(iso: str) -> str:
    """Format a date and a time."""
    moment = datetime.fromisoformat(iso)
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def elapsed(start: str, end: str) -> float:
    """Return the seconds between two times; negative if their order is wrong."""
    first, second = datetime.fromisoformat(start), datetime.fromisoformat(end)
    if (first.tzinfo is None) != (second.tzinfo is None):
        return -1.0
    return (second - first).total_seconds()
