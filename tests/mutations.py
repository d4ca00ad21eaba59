"""Damaged files: JSON with a value replaced or removed at a random place, and truncated or modified bytes."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (None, True, -1, 0, 1.5, 10**30, "", "x", "é\0", [], [1], {}, {"a": None})
"""Values that replace others."""

TEXTS: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'"\\ud800"',
)
"""Whole files."""


def mutate_json(value: Any, rng: np.random.Generator) -> Any:
    """Return a copy of a JSON value in which one value at any depth is replaced by another one or removed."""
    mutated = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    pending = [mutated]
    while pending:
        node = pending.pop()
        children = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        places += [(node, name) for name, _ in children]
        pending += [child for _, child in children if isinstance(child, (dict, list))]
    node, name = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del node[name]
    else:
        node[name] = VALUES[rng.integers(len(VALUES))]
    return mutated


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Return ``content`` truncated, or with some bytes replaced."""
    if rng.random() < 0.3:
        return content[: rng.integers(len(content))]
    changed = bytearray(content)
    for position in rng.integers(len(content), size=rng.integers(1, 5)):
        changed[position] = rng.integers(256)
    return bytes(changed)


def mutate_file(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged version of a file with JSON, one value per line or one in all."""
    kind = rng.random()
    if kind < 0.1:
        return TEXTS[rng.integers(len(TEXTS))]
    if kind < 0.25:
        return mutate_bytes(content, rng)
    try:
        return json.dumps(mutate_json(json.loads(content), rng)).encode()
    except ValueError:  # several lines
        lines = content.splitlines()
        index = rng.integers(len(lines))
        lines[index] = json.dumps(mutate_json(json.loads(lines[index]), rng)).encode()
        return b"\n".join(lines) + b"\n"
