"""JSON text from files: parsing that fails in one way, and checks of the types of the values."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type


def parse_json(text: str | bytes, *, allow_infinity: bool = False) -> Any:
    """Parse JSON.

    Args:
        text: the text.
        allow_infinity: whether NaN and infinity are allowed, which ``json.dumps`` writes.

    Raises:
        ValueError: if ``text`` is not valid: also if it is nested too deeply, or contains an integer of thousands of digits
            or bytes that are not UTF-8.
    """
    try:
        return json.loads(text, parse_constant=None if allow_infinity else _reject_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def require_type(name: str, value: Any, hint: Any) -> None:
    """Check the type of a value and of all values in it.

    Raises:
        ValueError: if it is not a ``hint``.
    """
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        raise ValueError(f"{name} must be {describe_type(hint)}, not {_shorten(value)}") from None


def describe_type(hint: Any) -> str:
    """Return a type as it is written in code."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def require_field_types(args_type: type[Any], values: Mapping[str, Any]) -> None:
    """Check ``values``, by name of a field of the dataclass ``args_type``; other entries are ignored.

    Raises:
        ValueError: if a value does not have the type of its field.
    """
    hints = typing.get_type_hints(args_type)
    for field in dataclasses.fields(args_type):
        if field.name in values:
            require_type(field.name, values[field.name], hints[field.name])


def _shorten(value: Any, length: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
