"""Checks of a store: of its file, and of the values of every entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from nases_env.errors import InputError
from nases_env.evaluation import Status
from nases_env.evaluation.result import read_curve
from nases_env.execution.store.schema import TABLES
from nases_env.execution.store.store import Row, Store
from nases_env.hashing import sha256_hex
from nases_env.json_io import MAX_INTEGER, parse_json
from nases_env.search_spaces import SEARCH_SPACES, get_search_space

_DIGEST_WIDTH = 8
_STATUSES = tuple(status.value for status in Status if status is not Status.FAILED)

_UNRESTRICTED = {
    name: TABLES["evaluations"][name]
    for name in (
        *("key", "digest", "seed", "seconds", "device", "reason"),
        *("created", "host", "nases_env_version", "torch_version"),
    )
}
"""Types of the columns for which each value of the type is valid, except for seconds."""


def check_store(store: Store) -> Iterator[tuple[str, list[str]]]:
    """Check the file of a store and the values of every entry, and yield the name and the errors of each check."""
    yield "file integrity", store.integrity_errors()
    configurations = store.configurations()
    yield (
        f"{len(configurations)} configurations: digests match the descriptions",
        [
            f"configuration {digest}: the digest of its description is {actual}"
            for digest, text in configurations.items()
            if (actual := sha256_hex(text)) != digest
        ],
    )
    num_rows, num_genotypes = 0, 0
    invalid_values: list[str] = []
    unknown_digests: list[str] = []
    invalid_genotypes: list[str] = []
    for row in store.rows(check_types=False):
        child = f"{row['key']}, configuration {row['digest'][:_DIGEST_WIDTH]}, seed {row['seed']}"
        num_rows += 1
        invalid_values += [f"{child}: {error}" for error in _invalid_values(row)]
        if row["digest"] not in configurations:
            unknown_digests.append(f"{child}: its configuration is missing")
        is_built_in, error = _genotype_error(row)
        num_genotypes += is_built_in
        if error:
            invalid_genotypes.append(f"{child}: {error}")
    yield f"{num_rows} evaluations: all values are in range", invalid_values
    yield f"{num_rows} evaluations: configurations exist", unknown_digests
    yield f"{num_genotypes} genotypes of built-in search spaces: keys match", invalid_genotypes
    for table in ("latencies", "leases"):
        rows = store.rows_of(table, check_types=False)
        invalid = ((row, (*_invalid_types(row, TABLES[table]), *_invalid_seconds(row), *_invalid_time(row))) for row in rows)
        yield (
            f"{len(rows)} {table}: all values are valid",
            [f"{row['key']}: {error}" for row, errors in invalid for error in errors],
        )


def _invalid_types(row: Row, types: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in types.items():
        if not isinstance(row[name], expected):
            yield f"{name} is {row[name]!r}, not of the type {getattr(expected, '__name__', expected)}"


def _invalid_time(row: Row) -> Iterator[str]:
    """Yield an error if the start of a lease is not a time with a time zone, as ``ls`` reads it."""
    try:
        if "started" in row and datetime.fromisoformat(row["started"]).tzinfo is None:
            yield f"started is {row['started']!r}, without a time zone"
    except (TypeError, ValueError):
        yield f"started is {row['started']!r}, not a time"


def _invalid_seconds(row: Row) -> Iterator[str]:
    if "seconds" in row and isinstance(row["seconds"], float) and not 0 <= row["seconds"] < MAX_INTEGER:
        yield f"seconds is {row['seconds']!r}, not a duration"


def _invalid_values(row: Row) -> Iterator[str]:
    yield from _invalid_types(row, _UNRESTRICTED)
    yield from _invalid_seconds(row)
    if row["status"] not in _STATUSES:
        yield f"status is {row['status']!r}, not one of {', '.join(_STATUSES)}"
    for name in ("valid_accuracy", "train_accuracy"):
        if not isinstance(row[name], float) or not 0 <= row[name] <= 1:
            yield f"{name} is {row[name]!r}, not a number in [0, 1]"
    if row["score"] is not None and (not isinstance(row["score"], float) or not 0 <= row["score"] <= 1):
        yield f"score is {row['score']!r}, not a number in [0, 1]"
    for name in ("num_params", "num_flops", "activation_bytes", "file_bytes", "num_epochs"):
        if not isinstance(row[name], int) or row[name] < 0:
            yield f"{name} is {row[name]!r}, not a non-negative integer"
    try:
        read_curve(parse_json(row["curve"], allow_infinity=True))
    except (TypeError, ValueError) as error:
        yield f"invalid curve ({error})"


def _genotype_error(row: Row) -> tuple[bool, str]:
    """Return whether the genotype belongs to a built-in search space, and its error or an empty string."""
    try:
        genotype = parse_json(row["genotype"])
    except (TypeError, ValueError) as error:
        return False, f"the genotype is not valid JSON ({error})"
    name = genotype.get("search_space") if isinstance(genotype, dict) else None
    if name is not None and not isinstance(name, str):
        return False, f"the search space of the genotype is {name!r}, not a name"
    if name not in SEARCH_SPACES:  # a custom search space: never import a module named in a file
        return False, ""
    try:
        key = get_search_space(name).from_json(row["genotype"]).key
    except InputError as error:
        return True, str(error)
    return True, "" if key == row["key"] else f"the genotype has the key {key}"
