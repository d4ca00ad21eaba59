"""Damaged files: a value replaced or removed at a random place of JSON, a store or tensors, and modified bytes."""

from __future__ import annotations

import copy
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from nases_env.hashing import tensor_digest

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**63, 10**30, -(10**30), 10**400),
    *(0.5, 1.0, 1.5, -0.5, 1e-320, 1e308, -1e308),
    *("", "x", "ok", "cpu", "é\0", "\ud800", "\x1b[31m\n", "../x", "2026-01-01"),
    *([], [1], [[]], ["x"], {}, {"a": None}),
)
"""Values that replace others."""

LITERALS: tuple[str, ...] = (
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100_000),
    *("[" * 600 + "]" * 600, '{"a":' * 300 + "1" + "}" * 300, "[" * 50_000 + "]" * 50_000),
)
"""Texts that replace a value, some of them not valid JSON."""

TEXTS: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'"\\ud800"',
)
"""Whole files."""

SQL_VALUES: tuple[Any, ...] = (
    *(None, -1, 0, 1, 2**63 - 1, -(2**63), 0.5, 1.5, 1e308, float("inf"), "", "x", "ok", "é\0", "\x1b[31m\n"),
    *("[]", "{}", "null", "[null]", '[{"epoch": 1}]', *(text[:5000] for text in LITERALS), b"", b"\xff", b"ok"),
)
"""Values that replace others in a store. SQLite stores infinity, but not NaN."""

_PLACEHOLDER = "replaced by a literal"


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
    kind = rng.random()
    if kind < 0.15:
        del node[name]
    elif kind < 0.2 and isinstance(node, dict):
        node[f"{name}x"] = node.pop(name)
    elif kind < 0.3 and isinstance(node[name], (int, float)):
        node[name] = -node[name] if rng.random() < 0.5 else node[name] + 1
    else:
        node[name] = VALUES[rng.integers(len(VALUES))]
    return mutated


def mutate_text(text: str, rng: np.random.Generator) -> str:
    """Return JSON with one value replaced or removed; the result may be invalid JSON."""
    value = json.loads(text)
    if rng.random() < 0.8:
        return json.dumps(mutate_json(value, rng))
    placeholder = json.dumps(_PLACEHOLDER)
    while placeholder not in (mutated := json.dumps(_with_placeholder(value, rng))):
        pass
    return mutated.replace(placeholder, LITERALS[rng.integers(len(LITERALS))])


def _with_placeholder(value: Any, rng: np.random.Generator) -> Any:
    mutated = node = copy.deepcopy(value)
    while True:
        names = list(node) if isinstance(node, dict) else list(range(len(node)))
        name = names[rng.integers(len(names))]
        if not isinstance(node[name], (dict, list)) or not node[name] or rng.random() < 0.3:
            node[name] = _PLACEHOLDER
            return mutated
        node = node[name]


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
        return mutate_text(content.decode(), rng).encode()
    except ValueError:  # several lines
        lines = content.splitlines()
        index = rng.integers(len(lines))
        lines[index] = mutate_text(lines[index].decode(), rng).encode()
        return b"\n".join(lines) + b"\n"


def mutate_record(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return a file of ``save_tensors`` with a damaged record or without a tensor, but with a valid digest."""
    tensors = safetensors.torch.load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    record = json.loads(header["__metadata__"][kind])
    del record["sha256"]
    if rng.random() < 0.2:
        name = list(tensors)[rng.integers(len(tensors))]
        if rng.random() < 0.5:
            del tensors[name]
        else:
            tensors[name] = tensors[name].flatten()[:1].clone()
    else:
        record = mutate_json(record, rng)
    try:
        digest = tensor_digest(record, tensors)
    except ValueError:  # a lone surrogate cannot be encoded
        digest = ""
    text = json.dumps({**record, "sha256": digest})
    if rng.random() < 0.1:
        text = mutate_text(text, rng)
    return safetensors.torch.save(tensors, {kind: text})


def mutate_store(path: Path, rng: np.random.Generator) -> None:
    """Damage the SQLite file at ``path``: replace a value in any table, or modify bytes of the file."""
    if rng.random() < 0.3:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return
    database = sqlite3.connect(path)
    try:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = tables[rng.integers(len(tables))]
        columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
        column = columns[rng.integers(len(columns))]
        value = SQL_VALUES[rng.integers(len(SQL_VALUES))]
        kind = rng.random()
        try:
            if kind < 0.04:
                database.execute(f"DROP TABLE {table}")
            elif kind < 0.08:
                database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
            elif kind < 0.12:
                database.execute(f"PRAGMA user_version = {rng.integers(-1, 5)}")
            else:
                if not database.execute(f"SELECT 1 FROM {table}").fetchone():
                    database.execute(f"INSERT INTO {table} VALUES ({', '.join('1' for _ in columns)})")
                rows = [number for (number,) in database.execute(f"SELECT rowid FROM {table}")]
                number = rows[rng.integers(len(rows))]
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, number))
        except sqlite3.DatabaseError:  # such as the key of another row
            pass
        database.commit()
    finally:
        database.close()
