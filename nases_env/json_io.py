"""JSON text from files: parsing that fails in one way, and checks of the types and sizes of the values."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from nases_env.input_files import read_file

MAX_DEPTH = 64
"""Levels of nesting; a few hundred would exceed the recursion limit of functions such as ``repr``."""

MAX_INTEGER = 2**63
"""Integers in files are less than this, because larger ones overflow a float or a column of a store."""


def parse_json(text: str | bytes, *, allow_infinity: bool = False) -> Any:
    """Parse JSON.

    Args:
        text: the text.
        allow_infinity: whether NaN and infinity are allowed, which ``json.dumps`` writes; options may be infinite.

    Raises:
        ValueError: if ``text`` is not valid: also if it is nested in more than ``MAX_DEPTH`` levels, or contains an integer
            of thousands of digits or bytes that are not UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads does
    try:
        value = (_ANY_NUMBER if allow_infinity else _FINITE).decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("{") + text.count("[") > MAX_DEPTH:  # otherwise, it cannot be deeper
        _require_flat(value)
    return value


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_ANY_NUMBER, _FINITE = json.JSONDecoder(), json.JSONDecoder(parse_constant=_reject_constant)


def _require_flat(value: Any) -> None:
    """Raise ``ValueError`` if ``value`` has more than ``MAX_DEPTH`` levels of lists and dictionaries."""
    level = [value]
    for _ in range(MAX_DEPTH):
        children = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list)))
        level = [child for of_node in children for child in of_node if isinstance(child, (dict, list))]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def read_object(path: Path, types: Mapping[str, Any], *, allow_infinity: bool = False) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        types: the required entries and their types, which ``require_type`` checks; there may be other entries.
        allow_infinity: whether numbers may be infinite, such as those of options.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not such an object.
    """
    record = parse_json(read_file(path), allow_infinity=allow_infinity)
    if not isinstance(record, dict):
        raise ValueError(f"it must be a JSON object, not {_shorten(record)}")
    for name, hint in types.items():
        if name not in record:
            raise ValueError(f"{name} is missing")
        require_type(name, record[name], hint, allow_infinity=allow_infinity)
    return record


def require_type(name: str, value: Any, hint: Any, *, allow_infinity: bool = False) -> None:
    """Check the type of a value and of all values in it.

    Also reject bools in place of numbers (``isinstance`` counts them as integers), NaN, integers with a magnitude of 2^63 or
    more, and strings with a NUL or a lone surrogate, which cannot be arguments of a command. If ``hint`` contains ``Any``,
    these additional checks are omitted.

    Args:
        name: name of the value; ``seed`` may be any integer, as on the command line.
        value: the value.
        hint: the type.
        allow_infinity: whether numbers may be infinite.

    Raises:
        ValueError: if it is not a ``hint``, a number is too large, or a text contains such a character.
    """
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        raise ValueError(f"{name} must be {describe_type(hint)}, not {_shorten(value)}") from None
    pending, allows_bool = [] if _contains(hint, Any) else [value], _contains(hint, bool)
    while pending:
        node, is_valid = pending.pop(), True
        if isinstance(node, (dict, list, tuple)):
            pending += node.values() if isinstance(node, dict) else node
        elif isinstance(node, bool) and not allows_bool:
            raise ValueError(f"{name} must be {describe_type(hint)}, not {_shorten(value)}")
        elif isinstance(node, float):
            is_valid = math.isfinite(node) or (allow_infinity and not math.isnan(node))
        elif isinstance(node, int):
            is_valid = abs(node) < MAX_INTEGER or name == "seed"
        elif isinstance(node, str):
            _require_argument(name, node)
        if not is_valid:
            raise ValueError(f"{name} contains {_shorten(node)}, which is too large or not a number")


def _require_argument(name: str, text: str) -> None:
    try:
        is_valid = b"\0" not in text.encode("utf-8", "surrogateescape")  # of a path, in every locale
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise ValueError(f"{name} contains {_shorten(text)}, which has an invalid character")


def _contains(hint: Any, part: Any) -> bool:
    """Return whether ``part`` is the type ``hint``, or one of its arguments."""
    return hint is part or any(_contains(each, part) for each in typing.get_args(hint))


def describe_type(hint: Any) -> str:
    """Return a type as it is written in code."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def require_field_types(args_type: type[Any], values: Mapping[str, Any], *, allow_infinity: bool = False) -> None:
    """Check ``values``, by name of a field of the dataclass ``args_type``, as ``require_type`` does; ignore other entries.

    Raises:
        ValueError: if a value does not have the type of its field.
    """
    hints = typing.get_type_hints(args_type)
    for field in dataclasses.fields(args_type):
        if field.name in values:
            require_type(field.name, values[field.name], hints[field.name], allow_infinity=allow_infinity)


def _shorten(value: Any, length: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
