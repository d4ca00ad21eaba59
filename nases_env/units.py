"""Numbers with units on the command line: counts such as 100k, bytes such as 256KB, and seconds such as 2ms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import tyro

from nases_env.errors import InputError, shown

COUNT_UNITS: dict[str, int] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
BYTE_UNITS: dict[str, int] = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
TIME_UNITS: dict[str, Decimal] = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}

NO_LIMIT = "none"
MAX_NUMBER = 2**53

_NUMBER = re.compile(r"\s*(\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,2})?\s*([a-z]*)\s*", flags=re.IGNORECASE)


def parse_count(text: str) -> int:
    """Parse a count such as 100k, 5M, 1.5G or 2000.

    Raises:
        InputError: if it is not a number of at least 1, or the unit is unknown.
    """
    return int(_parse(text, COUNT_UNITS, "a number such as 100k, 5M or 2000", minimum=1))


def parse_bytes(text: str) -> int:
    """Parse a number of bytes such as 256KB, 1.5MiB or 4096. KB and MB are powers of 1000; KiB and MiB are powers of 1024.

    Raises:
        InputError: if it is not a number of at least 1, or the unit is unknown.
    """
    return int(_parse(text, BYTE_UNITS, "a number of bytes such as 256KB, 1.5MiB or 4096", minimum=1))


def parse_seconds(text: str) -> float:
    """Parse a duration such as 2ms, 500us or 0.1s into seconds; it must have a unit.

    Raises:
        InputError: if it is not a positive number with a unit.
    """
    return float(_parse(text, TIME_UNITS, "a time with a unit such as 2ms, 500us or 0.1s"))


def _parse(text: str, units: Mapping[str, int | Decimal], expected: str, minimum: int = 0) -> Decimal:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InputError(f"{shown(text)} is not {expected}")
    number, exponent, unit = match.groups(default="")
    known = {name.lower(): size for name, size in units.items()}
    if unit.lower() not in known:
        names = ", ".join(filter(None, units))
        problem = f"the unit {unit!r} is unknown" if unit else "the unit is missing"
        raise InputError(f"{shown(text)} is not {expected}: {problem}; known: {names}")
    value = Decimal(number + exponent) * known[unit.lower()]
    if not value > 0 or value < minimum:
        raise InputError(f"{shown(text)} is too small; it must be {f'at least {minimum}' if minimum else 'more than 0'}")
    if value > MAX_NUMBER:
        raise InputError(f"{shown(text)} is too large; it must be at most 2^53")
    return value


def format_count(number: float) -> str:
    """Format a count as ``parse_count`` reads it, with the largest unit that divides it."""
    return _format_exactly(int(number), ("G", "M", "k"), COUNT_UNITS, "")


def format_bytes(number: float) -> str:
    """Format a number of bytes as ``parse_bytes`` reads it, with the largest unit that divides it; decimal units first."""
    return _format_exactly(int(number), ("GB", "MB", "KB", "GiB", "MiB", "KiB"), BYTE_UNITS, "B")


def format_seconds(seconds: float) -> str:
    """Format a time as ``parse_seconds`` reads it, with three significant digits."""
    rounded = float(f"{seconds:.3g}")
    unit = next((name for name in ("s", "ms") if rounded >= float(TIME_UNITS[name])), "us")
    number = rounded / float(TIME_UNITS[unit])
    return f"{number:.0f}{unit}" if number >= 1000 else f"{number:.3g}{unit}"


def _format_exactly(number: int, names: Sequence[str], units: Mapping[str, int], smallest: str) -> str:
    unit = next((name for name in names if number % units[name] == 0), smallest) if number else smallest
    return f"{number // units[unit]}{unit}"


def option(metavar: str, parse: Any, form: Any) -> Any:
    """Return the specification of an option for tyro; the word "none" means None."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: None if texts[0].strip().lower() == NO_LIMIT else parse(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, (int, float)),
        str_from_instance=lambda value: [NO_LIMIT if value is None else form(value)],
    )


Count = Annotated[int | None, option("NUMBER", parse_count, format_count)]
"""Type of an option such as ``--max-params 100k``; None: no limit."""

Bytes = Annotated[int | None, option("BYTES", parse_bytes, format_bytes)]
"""Type of an option such as ``--max-memory 256KB``; None: no limit."""

Seconds = Annotated[float | None, option("TIME", parse_seconds, format_seconds)]
"""Type of an option such as ``--max-latency 2ms``, in seconds; None: no limit."""
