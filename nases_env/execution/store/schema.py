"""The schema of the store: tables, migrations, and the mapping of old configurations to current names."""

from __future__ import annotations

import json
import sqlite3
from types import UnionType
from typing import Any

from nases_env.evaluation.limits import without_limit
from nases_env.evaluation.presets import rename_settings
from nases_env.hashing import sha256_hex
from nases_env.json_io import parse_json

APPLICATION_ID = 0x4E415345
"""The SQLite application id of a store: ``NASE``."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE configurations (
            digest TEXT NOT NULL PRIMARY KEY,
            description TEXT NOT NULL
        )""",
        """CREATE TABLE evaluations (
            key TEXT NOT NULL,
            digest TEXT NOT NULL,
            seed INTEGER NOT NULL,
            status TEXT NOT NULL,
            valid_accuracy REAL NOT NULL,
            train_accuracy REAL NOT NULL,
            num_params INTEGER NOT NULL,
            num_flops INTEGER NOT NULL,
            num_epochs INTEGER NOT NULL,
            seconds REAL NOT NULL,
            device TEXT NOT NULL,
            curve TEXT NOT NULL,
            reason TEXT NOT NULL,
            genotype TEXT NOT NULL,
            created TEXT NOT NULL,
            host TEXT NOT NULL,
            nases_env_version TEXT NOT NULL,
            torch_version TEXT NOT NULL,
            PRIMARY KEY (key, digest, seed)
        )""",
    ),
    (
        """CREATE TABLE claims (
            key TEXT NOT NULL,
            digest TEXT NOT NULL,
            seed INTEGER NOT NULL,
            holder TEXT NOT NULL,
            host TEXT NOT NULL,
            pid INTEGER NOT NULL,
            process_started TEXT NOT NULL,
            beat INTEGER NOT NULL,
            started TEXT NOT NULL,
            PRIMARY KEY (key, digest, seed)
        )""",
    ),
    (
        "ALTER TABLE claims RENAME TO leases",
        "ALTER TABLE leases RENAME COLUMN holder TO owner",
        "ALTER TABLE leases RENAME COLUMN process_started TO process_start_time",
        "ALTER TABLE leases RENAME COLUMN beat TO heartbeat",
    ),
    (
        "ALTER TABLE evaluations ADD COLUMN activation_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE evaluations ADD COLUMN file_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE evaluations ADD COLUMN score REAL",
        """CREATE TABLE latencies (
            key TEXT NOT NULL,
            digest TEXT NOT NULL,
            seconds REAL NOT NULL,
            PRIMARY KEY (key, digest)
        )""",
    ),
)
"""The statements that migrate each version of the schema to the next, starting with an empty file, version 0."""

SCHEMA_VERSION = len(MIGRATIONS)

TABLES: dict[str, dict[str, type | UnionType]] = {
    "configurations": {"digest": str, "description": str},
    "evaluations": {
        "key": str,
        "digest": str,
        "seed": int,
        "status": str,
        "valid_accuracy": float,
        "train_accuracy": float,
        "num_params": int,
        "num_flops": int,
        "activation_bytes": int,
        "file_bytes": int,
        "score": float | None,
        "num_epochs": int,
        "seconds": float,
        "device": str,
        "curve": str,
        "reason": str,
        "genotype": str,
        "created": str,
        "host": str,
        "nases_env_version": str,
        "torch_version": str,
    },
    "latencies": {"key": str, "digest": str, "seconds": float},
    "leases": {
        "key": str,
        "digest": str,
        "seed": int,
        "owner": str,
        "host": str,
        "pid": int,
        "process_start_time": str,
        "heartbeat": int,
        "started": str,
    },
}
"""The Python types of the columns of each table of the current version. SQLite does not enforce them."""

COLUMNS = tuple(TABLES["evaluations"])
"""The columns of the table ``evaluations``."""

RENAMED_EVALUATORS = {
    "AnalyticEvaluator": "OperatorShareEvaluator",
    "InteractionEvaluator": "RandomLandscapeEvaluator",
    "LookUpEvaluator": "QueryEvaluator",
}
"""Evaluators by their names in schema version 2."""


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Migrate the tables and the configurations from ``version`` to ``SCHEMA_VERSION``; the caller owns the transaction."""
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            db.execute(statement)
    if version < 3:
        _migrate_configurations(db)
    if version < 4:
        _migrate_limits(db)
    if version < SCHEMA_VERSION:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def migrate_description(description: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields of a configuration of schema version 2, as returned by ``Evaluator.describe``."""
    description = dict(description)
    evaluator = description.get("evaluator")
    if isinstance(evaluator, str):
        description["evaluator"] = RENAMED_EVALUATORS.get(evaluator, evaluator)
    if evaluator == "InteractionEvaluator":
        description["landscape_seed"] = description.pop("landscape", 0)
    if isinstance(description.get("settings"), dict):
        description["settings"] = rename_settings(description["settings"])
    return description


def _migrate_configurations(db: sqlite3.Connection) -> None:
    """Rewrite all configurations with current names, and the digests that refer to them."""
    for digest, text in db.execute("SELECT digest, description FROM configurations").fetchall():
        migrated = _migrate_text(text)
        if migrated == text:
            continue
        new_digest = sha256_hex(migrated)
        values = (new_digest, digest)
        db.execute("UPDATE configurations SET description = ? WHERE digest = ?", (migrated, digest))
        for table in ("configurations", "evaluations", "leases"):
            db.execute(f"UPDATE {table} SET digest = ? WHERE digest = ?", values)


def _migrate_limits(db: sqlite3.Connection) -> None:
    """Move results from configurations with a limit to those without, which a limit does not change.

    Infeasible children stay, because they have no result without the limit. Of two results of a child, the first is kept.
    """
    for digest, text in db.execute("SELECT digest, description FROM configurations").fetchall():
        try:
            description = parse_json(text, allow_infinity=True)
        except (TypeError, ValueError):
            continue  # ``nases store verify`` reports it
        if without_limit(description) == description:
            continue
        unlimited = json.dumps(without_limit(description), sort_keys=True)
        new_digest = sha256_hex(unlimited)
        db.execute("INSERT OR IGNORE INTO configurations (digest, description) VALUES (?, ?)", (new_digest, unlimited))
        db.execute(
            "UPDATE OR IGNORE evaluations SET digest = ? WHERE digest = ? AND status != 'too_large'", (new_digest, digest)
        )


def _migrate_text(text: Any) -> Any:
    try:
        description = parse_json(text, allow_infinity=True)
    except (TypeError, ValueError):
        return text  # ``nases store verify`` reports it
    return json.dumps(migrate_description(description), sort_keys=True) if isinstance(description, dict) else text
