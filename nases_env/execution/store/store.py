"""SQLite-backed result cache that several searches can share; ``docs/reference/store.md`` documents it."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from nases_env.errors import InputError, one_line
from nases_env.escaping import quoted
from nases_env.evaluation import Evaluation, Status
from nases_env.execution.store.liveness import ExpiryDetector, Lease, host_identity, process_start_time
from nases_env.execution.store.schema import (
    APPLICATION_ID,
    COLUMNS,
    SCHEMA_VERSION,
    TABLES,
    migrate,
)
from nases_env.json_io import parse_json
from nases_env.signals import defer_signals
from nases_env.version import __version__

logger = logging.getLogger(__name__)

RESULT_COLUMNS = ("status", "valid_accuracy", "train_accuracy", "score", "num_params", "num_flops", "num_epochs")
"""Columns in which two evaluations of the same child must agree."""

HEARTBEAT_TIMEOUT = 60.0
"""Seconds without a heartbeat after which the owner of a lease on another host is considered dead."""

BUSY_TIMEOUT = 30.0
"""Seconds that a statement waits for the transaction of another process."""

_MAGIC = b"SQLite format 3\0"
_OWNER = slice(68, 72)
_HEADER_BYTES = 100  # https://sqlite.org/fileformat.html

_opening = threading.Lock()
"""Held while a store is opened, so that no thread opens a file that another thread is creating."""

_PAGE = 1000
_RETRY_SECONDS = 0.05

_CHILD = "key = :key AND digest = :digest AND seed = :seed"
_INSERT = (
    f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}) "
    "ON CONFLICT (key, digest, seed) DO NOTHING"
)
_PUT_LATENCY = "INSERT OR IGNORE INTO latencies (key, digest, seconds) VALUES (:key, :digest, :seconds)"
_CONFIGURE = "INSERT INTO configurations (digest, description) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"

Row = dict[str, Any]
"""A row of a table by column name; ``curve`` and ``genotype`` are JSON texts."""


class CorruptStoreError(InputError):
    """The file is not a SQLite database, or it is corrupt."""


@dataclass
class MergeResult:
    """The result of copying one store into another.

    Attributes:
        num_added: number of copied evaluations.
        num_known: number of evaluations that both stores had, with the same result.
        differing: pairs of rows (target, source) with different results; the target's row is kept.
    """

    num_added: int = 0
    num_known: int = 0
    differing: list[tuple[Row, Row]] = field(default_factory=list)


class Store:
    """A SQLite file of evaluations, committed one by one and shared by any number of processes.

    A result is on disk when ``put`` returns, and survives a crash of the process or the machine. Threads may share a store.
    All methods raise ``InputError`` if the user has to act: the disk is full, or the file is corrupt, locked or missing.

    Args:
        path: the file; it and its directory are created if they do not exist. A file of an older version is migrated.
        read_only: open an existing file without modifying it; an older version is migrated in memory.
        heartbeat_timeout: seconds without a heartbeat after which a lease of another host is taken over.
        busy_timeout: seconds to wait for the transaction of another process.

    Raises:
        CorruptStoreError: if the file is not a SQLite database, or is corrupt.
        InputError: if it cannot be opened or created, belongs to another program, or has a newer schema. The file is not
            modified in these cases.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        read_only: bool = False,
        heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        try:
            self._file = Path(os.path.realpath(path))  # SQLite creates its other files next to the target of a link
        except ValueError as error:  # a NUL or a lone surrogate
            raise InputError(f"cannot open the store {path} ({one_line(error)}); choose another file") from None
        self._busy_timeout = busy_timeout
        self._owner = uuid.uuid4().hex
        self._expiry = ExpiryDetector(heartbeat_timeout)
        self._lock = threading.RLock()
        self._is_closed = False
        self._identity: tuple[tuple[int, int] | None, ...] | None = None
        with _opening, self._translate_errors():
            version = self._probe_schema_version()
            self._db = self._open_to_read(version) if read_only else self._open_to_write()
        if not read_only:
            self._identity = self._identify()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release all leases of this store and close the file. Can be called repeatedly."""
        with self._lock:
            if self._is_closed:
                return
            try:
                if not self.read_only:
                    self.release_all()
            except InputError as error:
                logger.warning(
                    "cannot release the leases; other searches wait for them until this process has ended: %s", error
                )
            finally:
                self._is_closed = True
                self._db.close()

    def register_config(self, digest: str, description: Mapping[str, Any]) -> None:
        """Store the description of the configuration ``digest``, as returned by ``Evaluator.describe``."""
        text = json.dumps(description, sort_keys=True, default=str)  # exactly the text that is hashed
        with self._transaction():
            self._db.execute(_CONFIGURE, (digest, text))

    def configurations(self) -> dict[str, str]:
        """Return all configurations: JSON text of the description by digest."""
        return {row["digest"]: row["description"] for row in self._query("SELECT digest, description FROM configurations")}

    def get(self, key: str, digest: str, seed: int) -> Evaluation | None:
        """Return the evaluation of a child, or None."""
        found = self._query(f"SELECT * FROM evaluations WHERE {_CHILD}", {"key": key, "digest": digest, "seed": seed})
        return self._evaluation(found[0]) if found else None

    def contains(self, key: str, digest: str, seed: int) -> bool:
        """Return whether the store has the evaluation of a child; faster than ``get``."""
        child = {"key": key, "digest": digest, "seed": seed}
        return bool(self._query(f"SELECT 1 FROM evaluations WHERE {_CHILD}", child))

    def put(self, evaluation: Evaluation, digest: str, genotype: str) -> Evaluation:
        """Store an evaluation and release the lease of the child in one transaction; it is on disk when this returns.

        An existing result of the child is kept.

        Args:
            evaluation: of any status except ``FAILED``.
            digest: digest of the evaluator's configuration.
            genotype: the genotype as JSON text, as returned by ``SearchSpace.to_json``.

        Returns:
            The evaluation of the child in the store.

        Raises:
            ValueError: if the status is ``FAILED``, which is not a result, or a value of the evaluation is out of its range.
                Nothing is stored then.
        """
        if evaluation.status is Status.FAILED:
            raise ValueError(f"the evaluation of {evaluation.key} failed; a store holds results only")
        curve = [asdict(epoch) for epoch in evaluation.curve]
        row = {
            "key": evaluation.key,
            "digest": digest,
            "seed": int(evaluation.seed),
            "status": Status(evaluation.status).value,
            "valid_accuracy": float(evaluation.valid_accuracy),
            "train_accuracy": float(evaluation.train_accuracy),
            "num_params": int(evaluation.num_params),
            "num_flops": int(evaluation.num_flops),
            "activation_bytes": int(evaluation.activation_bytes),
            "file_bytes": int(evaluation.file_bytes),
            "score": None if evaluation.score is None else float(evaluation.score),
            "num_epochs": int(evaluation.num_epochs),
            "seconds": float(evaluation.seconds),
            "device": evaluation.device,
            "curve": json.dumps(curve),
            "reason": evaluation.reason,
            "genotype": genotype,
            "created": _now(),
            "host": socket.gethostname(),
            "nases_env_version": __version__,
            "torch_version": str(torch.__version__),
        }
        Evaluation.check({**row, "curve": curve})
        with self._transaction():
            self._db.execute(_INSERT, row)
            self._db.execute(f"DELETE FROM leases WHERE {_CHILD} AND owner = :owner", {**row, "owner": self._owner})
            kept = self._query(f"SELECT * FROM evaluations WHERE {_CHILD}", row)[0]
        return self._evaluation(kept)

    def get_latency(self, key: str, digest: str) -> float | None:
        """Return the measured latency of an architecture in seconds, or None."""
        found = self._query("SELECT seconds FROM latencies WHERE key = ? AND digest = ?", (key, digest))
        return float(found[0]["seconds"]) if found else None

    def put_latency(self, key: str, digest: str, seconds: float) -> float:
        """Store the latency of an architecture, unless it has one, and return the one in the store."""
        with self._transaction():
            self._db.execute(_PUT_LATENCY, {"key": key, "digest": digest, "seconds": seconds})
            kept = self.get_latency(key, digest)
        assert kept is not None
        return kept

    def acquire(self, key: str, digest: str, seed: int) -> bool:
        """Acquire the lease of a child, so that no other store evaluates it until ``put`` or ``release``.

        The lease of a dead owner is taken over: immediately if its process ran on this host, else after
        ``heartbeat_timeout`` seconds without a heartbeat, measured between calls of this method.

        Args:
            key: the key of the architecture.
            digest: digest of the evaluator's configuration.
            seed: the seed of the child.

        Returns:
            Whether this store holds the lease now; False if the child has a result or another owner.
        """
        child: Row = {"key": key, "digest": digest, "seed": seed}
        found = self._query(f"SELECT * FROM leases WHERE {_CHILD}", child)
        other = Lease(**found[0]) if found else None
        if other is not None and other.owner == self._owner:
            return True
        if other is not None and not self.is_expired(other):
            return False
        mine = Lease(
            **child,
            owner=self._owner,
            host=host_identity(),
            pid=os.getpid(),
            process_start_time=process_start_time(os.getpid()) or "",
            heartbeat=0,
            started=_now(),
        )
        with self._transaction(durable=False):
            if self._query(f"SELECT 1 FROM evaluations WHERE {_CHILD}", child):
                return False
            if other is None:
                columns = tuple(asdict(mine))
                cursor = self._db.execute(
                    f"INSERT INTO leases ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)}) "
                    "ON CONFLICT (key, digest, seed) DO NOTHING",
                    asdict(mine),
                )
            else:
                cursor = self._db.execute(
                    "UPDATE leases SET owner = :owner, host = :host, pid = :pid, process_start_time = :process_start_time, "
                    f"heartbeat = :heartbeat, started = :started WHERE {_CHILD} AND owner = :other_owner "
                    "AND heartbeat = :other_heartbeat",
                    {**asdict(mine), "other_owner": other.owner, "other_heartbeat": other.heartbeat},
                )
        if cursor.rowcount != 1:
            return False
        self._expiry.forget(key, digest, seed)
        if other is not None:
            logger.warning("took over %s, seed %d, from process %d on %s, which died", key, seed, other.pid, other.host_name)
        return True

    def release(self, key: str, digest: str, seed: int) -> None:
        """Release this store's lease of a child without a result. Does nothing if the store is closed."""
        if self._is_closed:
            return
        child = {"key": key, "digest": digest, "seed": seed, "owner": self._owner}
        with self._transaction(durable=False):
            self._db.execute(f"DELETE FROM leases WHERE {_CHILD} AND owner = :owner", child)

    def release_all(self) -> None:
        """Release all leases of this store."""
        with self._transaction(durable=False):
            self._db.execute("DELETE FROM leases WHERE owner = ?", (self._owner,))

    def heartbeat(self) -> None:
        """Increment the heartbeat of all leases of this store, which shows other hosts that it is alive."""
        with self._transaction(durable=False):
            self._db.execute("UPDATE leases SET heartbeat = heartbeat + 1 WHERE owner = ?", (self._owner,))

    def leases(self) -> list[Lease]:
        """Return all leases, the oldest first."""
        return [Lease(**row) for row in self.rows_of("leases")]

    def rows_of(self, table: str, *, check_types: bool = True) -> list[Row]:
        """Return the rows of ``latencies`` or ``leases``, the oldest first.

        Args:
            table: the name of the table.
            check_types: raise ``InputError`` if a value has the wrong type.
        """
        rows = self._query(f"SELECT * FROM {table} ORDER BY rowid")
        for row in rows if check_types else ():
            self._check_types(row, table)
        return rows

    def count(self) -> int:
        """Return the number of evaluations."""
        return int(self._query("SELECT count(*) AS number FROM evaluations")[0]["number"])

    def rows(self, key_prefix: str = "", *, check_types: bool = True) -> Iterator[Row]:
        """Iterate over the evaluations whose key starts with ``key_prefix``, in the order of insertion.

        Raises:
            InputError: if the store cannot be read, or ``check_types`` is set and a value has another type than its column.
        """
        last = 0
        prefix = key_prefix.encode()  # compared as bytes, because SQLite's text functions stop at a NUL
        while page := self._query(
            "SELECT rowid AS number, * FROM evaluations WHERE rowid > ? AND substr(CAST(key AS BLOB), 1, ?) = ? "
            "ORDER BY rowid LIMIT ?",
            (last, len(prefix), prefix, _PAGE),
        ):
            for row in page:
                last = row.pop("number")
                if check_types:
                    self._check_types(row, "evaluations")
                yield row

    def _check_types(self, row: Row, table: str) -> None:
        for name, expected in TABLES[table].items():
            if not isinstance(row[name], expected):
                raise InputError(
                    f"the store {self.path} has an invalid entry for {row['key']!r} ({name} is {row[name]!r}); "
                    f"run: nases store verify {quoted(self.path)}"
                )

    def merge(self, source: Store) -> MergeResult:
        """Copy the evaluations, configurations and latencies that this store lacks from ``source``, in one transaction."""
        merged = MergeResult()
        with source.snapshot(), self._transaction():
            self._db.executemany(_CONFIGURE, source.configurations().items())
            for row in source.rows():
                if self._db.execute(_INSERT, row).rowcount == 1:
                    merged.num_added += 1
                    continue
                kept = self._query(f"SELECT * FROM evaluations WHERE {_CHILD}", row)[0]
                if all(kept[name] == row[name] for name in RESULT_COLUMNS):
                    merged.num_known += 1
                else:
                    merged.differing.append((kept, row))
            self._db.executemany(_PUT_LATENCY, source.rows_of("latencies"))
        return merged

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the same state of the store in the whole context, while other processes write; this store must not write."""
        with self._lock, self._translate_errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def integrity_errors(self) -> list[str]:
        """Return the errors found by SQLite's integrity check; empty if the file is intact."""
        found = [row["integrity_check"] for row in self._query("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def _evaluation(self, row: Row) -> Evaluation:
        try:
            return Evaluation.from_dict({**row, "curve": parse_json(row["curve"], allow_infinity=True)})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the store {self.path} has an invalid entry for {row['key']} ({error}); "
                f"run: nases store verify {quoted(self.path)}"
            ) from None

    def is_expired(self, lease: Lease) -> bool:
        """Return whether the owner of ``lease`` has died."""
        return self._expiry.is_expired(lease)

    def _query(self, statement: str, values: Any = ()) -> list[Row]:
        with self._lock, self._translate_errors():
            cursor = self._db.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Run the body as one transaction on the file at ``path``.

        When it ends, all processes see the changes; if ``durable``, they also survive a power failure.
        """
        with defer_signals(), self._lock, self._translate_errors():
            self._check_file_unchanged()
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._check_file_unchanged()

    def _check_file_unchanged(self) -> None:
        """Raise an error if the file was replaced: SQLite continues to write to a deleted file without an error."""
        if self._identity is not None and self._identify() != self._identity:
            raise InputError(
                f"the store {self.path} was moved, replaced or deleted while it was in use; "
                "restore it or choose another file, and start again"
            )

    def _identify(self) -> tuple[tuple[int, int] | None, ...]:
        """Return the inodes of the file and its write-ahead log."""
        return _inode(self._file), _inode(self._auxiliary_file("-wal"))

    def _auxiliary_file(self, suffix: str) -> Path:
        return self._file.with_name(self._file.name + suffix)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn errors of SQLite that the user can fix into ``InputError``."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise  # a bug
            self._check_file_unchanged()
            if type(error) is sqlite3.DatabaseError:
                raise self._corrupt(error) from error
            text = str(error)
            advice = next((advice for word, advice in _ADVICE.items() if word in text), "run nases store verify")
            raise InputError(f"cannot use the store {self.path} ({text}); {advice}") from error
        except UnicodeDecodeError as error:  # of a column's name
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> CorruptStoreError:
        return CorruptStoreError(f"{self.path} is not a valid store ({error}); restore a copy of it or choose another file")

    def _connect(self, options: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._file.as_uri()}?{options}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def _probe_schema_version(self) -> int | None:
        """Read the schema version without modifying any file; None if the file is missing or empty.

        Only SQLite opens a complete store: closing the file in another way would drop the locks of this process.
        """
        while True:
            before = self._stat()
            if before is None or before.st_size == 0:
                if not self.read_only:
                    return None
                if before is None:
                    raise InputError(f"there is no store {self.path}; choose an existing file")
                raise InputError(f"{self.path} is an empty file, not a store; choose the file of a store")
            try:
                return self._read_schema_version()
            except sqlite3.DatabaseError:
                now = self._stat()
                if now is not None and (now.st_mtime_ns, now.st_size) == (before.st_mtime_ns, before.st_size):
                    raise  # the file did not change, so another process is not the cause

    def _read_schema_version(self) -> int:
        if self._auxiliary_file("-journal").exists() and self._is_being_created():
            return 0
        log = self._auxiliary_file("-wal")
        with closing(self._connect("mode=ro&immutable=1")) as db:
            try:
                self._check_owner(db)
                if not log.exists():
                    return self._check_content(db)
            except sqlite3.DatabaseError:
                if not log.exists():
                    raise
                # A process was killed, or the disk was full, while the log was copied: the file is valid only with its log.
        with closing(self._connect("mode=ro")) as db:
            self._check_owner(db)
            return self._check_content(db)

    def _is_being_created(self) -> bool:
        """Return whether another process is creating the store, or was killed while creating it, which SQLite repairs.

        The file is then incomplete, so its header must be read without SQLite.
        """
        try:
            with self._file.open("rb") as file:
                header = file.read(_HEADER_BYTES)
        except OSError:
            return False  # SQLite will report the reason
        return header.startswith(_MAGIC) and header[_OWNER] == APPLICATION_ID.to_bytes(4, "big")

    def _check_owner(self, db: sqlite3.Connection) -> None:
        if _pragma(db, "application_id") != APPLICATION_ID:
            raise InputError(f"{self.path} is a SQLite file of another program; choose another file")

    def _check_version(self, version: int) -> None:
        if version > SCHEMA_VERSION:
            raise InputError(
                f"the store {self.path} has schema version {version}, and this nases_env supports up to {SCHEMA_VERSION}; "
                "update nases_env or choose another file"
            )

    def _check_content(self, db: sqlite3.Connection) -> int:
        version = int(_pragma(db, "user_version"))
        self._check_version(version)
        found = _pragma(db, "quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(one_line(found))
        return version

    def _stat(self) -> os.stat_result | None:
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot open the store {self.path} ({error.strerror}); choose another file") from None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"cannot open the store {self.path}: it is not a regular file; choose a file")
        return found

    def _open_to_read(self, version: int | None) -> sqlite3.Connection:
        writable = os.access(self._file, os.W_OK) and os.access(self._file.parent, os.W_OK)
        # A writable file is opened for writing, so that SQLite can remove its auxiliary files.
        alone = not writable and not self._auxiliary_file("-wal").exists()
        db = self._connect("mode=ro&immutable=1" if alone else "mode=rw")
        try:
            if version is not None and version < SCHEMA_VERSION:
                with closing(db) as old:
                    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    old.backup(db)
                self._migrate(db)
            else:
                self._check_columns(db)
            db.execute("PRAGMA query_only = 1")
        except BaseException:
            db.close()
            raise
        return db

    def _open_to_write(self) -> sqlite3.Connection:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create the directory {self.path.parent} ({error.strerror}); choose another file for the store"
            ) from None
        with suppress(OSError):  # SQLite will report the reason; it would create a file that the group cannot write
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        db = self._connect("mode=rwc")
        try:
            self._migrate(db)  # before WAL mode, so that the main file contains the application id from the start
            self._enable_wal(db)
            db.execute("BEGIN IMMEDIATE")  # creates the log
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Migrate the schema to the current version in one transaction."""
        db.execute("BEGIN IMMEDIATE")
        try:
            version = int(_pragma(db, "user_version"))
            is_empty = version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            if not is_empty:
                self._check_owner(db)
                self._check_version(version)
            migrate(db, version)
            self._check_columns(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _check_columns(self, db: sqlite3.Connection) -> None:
        """Raise ``CorruptStoreError`` if a table is missing or its columns have other names."""
        for table, columns in TABLES.items():
            if {row[1] for row in db.execute(f"PRAGMA table_info({table})")} != set(columns):
                raise CorruptStoreError(
                    f"{self.path} is not a valid store (its table {table} is missing or has other columns); restore a copy "
                    "of it or choose another file"
                )

    def _enable_wal(self, db: sqlite3.Connection) -> None:
        """Enable write-ahead logging, so that readers and a writer do not block each other."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                mode = _pragma(db, "journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait here
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)
        if mode != "wal":
            raise InputError(f"the store {self.path} cannot be on this file system; choose a file on a local disk")


_ADVICE = {
    "full": "free some space there or choose another file",
    "I/O": "free some space there, check the disk, or choose another file",
    "readonly": "make the file and its directory writable or choose another file",
    "unable to open": "make the file and its directory readable and writable or choose another file",
    "locked": "another program is using it: close that program and start again",
}
"""Advice by a word in the message of SQLite."""


def _pragma(db: sqlite3.Connection, pragma: str) -> Any:
    return db.execute(f"PRAGMA {pragma}").fetchone()[0]


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
