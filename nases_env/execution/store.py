"""What is known of children, in one SQLite file that several searches may share; ``docs/store.md`` documents it."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch

from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Status
from nases_env.signals import defer_signals
from nases_env.version import __version__

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x4E415345
"""What tells a store from other SQLite files: ``NASE``."""

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
)
"""The statements that lead from each version of the schema to the next, beginning with an empty file, version 0."""

SCHEMA_VERSION = len(MIGRATIONS)

COLUMNS = (
    "key",
    "digest",
    "seed",
    "status",
    "valid_accuracy",
    "train_accuracy",
    "num_params",
    "num_flops",
    "num_epochs",
    "seconds",
    "device",
    "curve",
    "reason",
    "genotype",
    "created",
    "host",
    "nases_env_version",
    "torch_version",
)
"""The columns of ``evaluations``."""

RESULT_COLUMNS = ("status", "valid_accuracy", "train_accuracy", "num_params", "num_flops", "num_epochs")
"""What two evaluations of the same child have to agree in."""

STALE_SECONDS = 60.0
"""A holder on another host that has not beaten for so long is taken for dead."""

BUSY_SECONDS = 30.0
"""How long a statement waits for another process's transaction."""

_MAGIC = b"SQLite format 3\0"
_OWNER = slice(68, 72)
_HEADER_BYTES = 100  # https://sqlite.org/fileformat.html

_opening = threading.Lock()
"""Held while a store is opened, so that no thread meets a file that another one is making."""

_PAGE = 1000
_RETRY_SECONDS = 0.05

_CHILD = "key = :key AND digest = :digest AND seed = :seed"
_INSERT = (
    f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}) "
    "ON CONFLICT (key, digest, seed) DO NOTHING"
)
_CONFIGURE = "INSERT INTO configurations (digest, description) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"

Row = dict[str, Any]
"""A row by column, as it is in the file: of ``evaluations``, ``curve`` and ``genotype`` are JSON texts."""


class DamagedStore(InputError):  # noqa: N818 - it says what the file is
    """The file is no SQLite database, or a damaged one."""


@dataclass(frozen=True)
class Claim:
    """Says that somebody evaluates a child.

    Attributes:
        key: the architecture's key.
        digest: the evaluator's configuration.
        seed: the child's own seed.
        holder: the ``Store`` that evaluates it, by a random name.
        host: the host that it is on, by a name that is another after each boot and in each container.
        pid: its process.
        process_started: when the process began, in a form that only ``process_started`` understands.
        beat: counts up as long as the holder lives.
        started: when the evaluation began, in UTC; for people only.
    """

    key: str
    digest: str
    seed: int
    holder: str
    host: str
    pid: int
    process_started: str
    beat: int
    started: str

    @property
    def host_name(self) -> str:
        """The host as a person calls it."""
        return self.host.partition("/")[0]


@dataclass
class Merged:
    """What came of copying one store into another.

    Attributes:
        num_added: evaluations that were copied.
        num_known: evaluations that both had, with the same result.
        differing: where the results are not the same, the target's row, which stays, and the source's.
    """

    num_added: int = 0
    num_known: int = 0
    differing: list[tuple[Row, Row]] = field(default_factory=list)


class Store:
    """The evaluations that are known, in a SQLite file: committed one by one, and shared by any number of processes.

    What ``put`` returned from survives a crash of the process or of the machine. Threads may share a store. All methods
    raise ``InputError`` where a person has to mend something: the disk is full, the file is damaged, locked or gone.

    Args:
        path: the file; it and its folder are made if they do not exist. A file of an older version is brought up to date.
        read_only: for looking at it only: nothing is made, and an older version is left as it is.
        stale_seconds: a claim from another host is taken over when its holder has not beaten for so long.
        busy_seconds: how long to wait for another process's transaction.

    Raises:
        DamagedStore: if the file is no SQLite database, or a damaged one.
        InputError: if it cannot be opened or made, is of another program, or of a newer version than this one knows. In
            these cases nothing in the file has changed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        read_only: bool = False,
        stale_seconds: float = STALE_SECONDS,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._file = Path(os.path.realpath(path))  # SQLite puts its other files beside what a link points to
        self._stale_seconds = stale_seconds
        self._busy_seconds = busy_seconds
        self._holder = uuid.uuid4().hex
        self._watched: dict[tuple[str, str, int], tuple[str, int, float]] = {}
        self._lock = threading.RLock()
        self._is_closed = False
        self._identity: tuple[tuple[int, int] | None, ...] | None = None
        with _opening, self._errors_translated():
            version = self._inspect()
            self._db = self._open_to_read(version) if read_only else self._open_to_write()
        if not read_only:
            self._identity = self._identify()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases all claims of this store and closes the file. To call it twice does no harm."""
        with self._lock:
            if self._is_closed:
                return
            try:
                if not self.read_only:
                    self.release_all()
            except InputError as error:
                logger.warning("claims were not released, others will wait until this process has ended: %s", error)
            finally:
                self._is_closed = True
                self._db.close()

    def configure(self, digest: str, description: Mapping[str, Any]) -> None:
        """Notes what the configuration ``digest`` is, as ``Evaluator.describe`` says it."""
        text = json.dumps(description, sort_keys=True, default=str)  # the very text that the digest is of
        with self._transaction():
            self._db.execute(_CONFIGURE, (digest, text))

    def configurations(self) -> dict[str, str]:
        """All configurations: the JSON text of the description by the digest."""
        return {row["digest"]: row["description"] for row in self._query("SELECT digest, description FROM configurations")}

    def get(self, key: str, digest: str, seed: int) -> Evaluation | None:
        """What is known of a child; None if nothing is."""
        found = self._query(f"SELECT * FROM evaluations WHERE {_CHILD}", {"key": key, "digest": digest, "seed": seed})
        return self._evaluation(found[0]) if found else None

    def put(self, evaluation: Evaluation, digest: str, genotype: str) -> Evaluation:
        """Keeps an evaluation and releases this store's claim on the child; both are on the disk when it returns.

        The first result of a child stays.

        Args:
            evaluation: of any status but ``FAILED``.
            digest: the evaluator's configuration.
            genotype: the architecture in words, as ``SearchSpace.to_json`` gives it.

        Returns:
            The child's evaluation in the store.

        Raises:
            ValueError: if the evaluation failed: that is no result.
        """
        if evaluation.status is Status.FAILED:
            raise ValueError(f"the evaluation of {evaluation.key} failed; a store keeps results only")
        row = {
            "key": evaluation.key,
            "digest": digest,
            "seed": int(evaluation.seed),
            "status": Status(evaluation.status).value,
            "valid_accuracy": float(evaluation.valid_accuracy),
            "train_accuracy": float(evaluation.train_accuracy),
            "num_params": int(evaluation.num_params),
            "num_flops": int(evaluation.num_flops),
            "num_epochs": int(evaluation.num_epochs),
            "seconds": float(evaluation.seconds),
            "device": evaluation.device,
            "curve": json.dumps([asdict(epoch) for epoch in evaluation.curve]),
            "reason": evaluation.reason,
            "genotype": genotype,
            "created": _now(),
            "host": socket.gethostname(),
            "nases_env_version": __version__,
            "torch_version": str(torch.__version__),
        }
        with self._transaction():
            self._db.execute(_INSERT, row)
            self._db.execute(f"DELETE FROM claims WHERE {_CHILD} AND holder = :holder", {**row, "holder": self._holder})
            kept = self._query(f"SELECT * FROM evaluations WHERE {_CHILD}", row)[0]
        return self._evaluation(kept)

    def claim(self, key: str, digest: str, seed: int) -> bool:
        """Claims a child, so that nobody else evaluates it until it is ``put`` or released.

        The claim of a holder that died is taken over: at once where its process ran on this host, else when it has not
        beaten for ``stale_seconds`` between calls of this method.

        Returns:
            Whether the child is this store's to evaluate: False if it is known or another's.
        """
        child: Row = {"key": key, "digest": digest, "seed": seed}
        found = self._query(f"SELECT * FROM claims WHERE {_CHILD}", child)
        other = Claim(**found[0]) if found else None
        if other is not None and other.holder == self._holder:
            return True
        if other is not None and not self.is_dead(other):
            return False
        mine = Claim(
            **child,
            holder=self._holder,
            host=host_identity(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()) or "",
            beat=0,
            started=_now(),
        )
        with self._transaction(durable=False):
            if self._query(f"SELECT 1 FROM evaluations WHERE {_CHILD}", child):
                return False
            if other is None:
                columns = tuple(asdict(mine))
                cursor = self._db.execute(
                    f"INSERT INTO claims ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)}) "
                    "ON CONFLICT (key, digest, seed) DO NOTHING",
                    asdict(mine),
                )
            else:
                cursor = self._db.execute(
                    "UPDATE claims SET holder = :holder, host = :host, pid = :pid, process_started = :process_started, "
                    f"beat = :beat, started = :started WHERE {_CHILD} AND holder = :other_holder AND beat = :other_beat",
                    {**asdict(mine), "other_holder": other.holder, "other_beat": other.beat},
                )
        if cursor.rowcount != 1:
            return False
        self._watched.pop((key, digest, seed), None)
        if other is not None:
            logger.warning("took over %s, seed %d, from process %d on %s, which died", key, seed, other.pid, other.host_name)
        return True

    def release(self, key: str, digest: str, seed: int) -> None:
        """Gives this store's claim on a child up, without a result. A closed store has none."""
        if self._is_closed:
            return
        child = {"key": key, "digest": digest, "seed": seed, "holder": self._holder}
        with self._transaction(durable=False):
            self._db.execute(f"DELETE FROM claims WHERE {_CHILD} AND holder = :holder", child)

    def release_all(self) -> None:
        """Gives all claims of this store up."""
        with self._transaction(durable=False):
            self._db.execute("DELETE FROM claims WHERE holder = ?", (self._holder,))

    def beat(self) -> None:
        """Shows the watchers on other hosts that this store still evaluates what it claims."""
        with self._transaction(durable=False):
            self._db.execute("UPDATE claims SET beat = beat + 1 WHERE holder = ?", (self._holder,))

    def claims(self) -> list[Claim]:
        """All children that are under evaluation, the longest first."""
        return [Claim(**row) for row in self._query("SELECT * FROM claims ORDER BY rowid")]

    def count(self) -> int:
        """The number of evaluations."""
        return int(self._query("SELECT count(*) AS number FROM evaluations")[0]["number"])

    def rows(self, key_prefix: str = "") -> Iterator[Row]:
        """The evaluations whose key begins with ``key_prefix``, in the order in which they came in."""
        last = 0
        prefix = key_prefix.encode()  # compared as bytes: as texts, SQLite's functions stop at a NUL
        while page := self._query(
            "SELECT rowid AS number, * FROM evaluations WHERE rowid > ? AND substr(CAST(key AS BLOB), 1, ?) = ? "
            "ORDER BY rowid LIMIT ?",
            (last, len(prefix), prefix, _PAGE),
        ):
            for row in page:
                last = row.pop("number")
                yield row

    def merge(self, source: Store) -> Merged:
        """Copies from ``source`` the evaluations and configurations that this store lacks: all of them, or on error none."""
        merged = Merged()
        with self._transaction():
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
        return merged

    def damages(self) -> list[str]:
        """What SQLite's full check of the file finds wrong; nothing if it is whole."""
        found = [row["integrity_check"] for row in self._query("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def _evaluation(self, row: Row) -> Evaluation:
        try:
            return Evaluation.from_dict({**row, "curve": json.loads(row["curve"])})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the store {self.path} has an entry for {row['key']} that is no evaluation ({error}); "
                "nases store verify lists what is wrong with it"
            ) from None

    def is_dead(self, claim: Claim) -> bool:
        """Whether a claim's holder has died, by what its host knows, or else by this process's own clock."""
        if claim.host == host_identity():
            return process_started(claim.pid) != claim.process_started
        name = claim.key, claim.digest, claim.seed
        now = time.monotonic()
        holder, beat, since = self._watched.get(name, ("", -1, now))
        if (holder, beat) != (claim.holder, claim.beat):
            self._watched[name] = claim.holder, claim.beat, now
            return False
        return now - since >= self._stale_seconds

    def _query(self, statement: str, values: Any = ()) -> list[Row]:
        with self._lock, self._errors_translated():
            cursor = self._db.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Writes all that is inside or nothing, into the file that has the store's name.

        At the end it is there for all processes, and if ``durable``, also after the machine has lost its power.
        """
        with defer_signals(), self._lock, self._errors_translated():
            self._check_in_place()
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._check_in_place()

    def _check_in_place(self) -> None:
        """SQLite itself goes on writing to a file that was deleted, without an error."""
        if self._identity is not None and self._identify() != self._identity:
            raise InputError(
                f"the store {self.path} was moved, replaced or deleted while it was in use; "
                "put it back or name another, and start again"
            )

    def _identify(self) -> tuple[tuple[int, int] | None, ...]:
        """What tells the file and its write-ahead log from others that have their names later."""
        return _inode(self._file), _inode(self._beside("-wal"))

    def _beside(self, suffix: str) -> Path:
        return self._file.with_name(self._file.name + suffix)

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Turns what SQLite raises where a person has to mend something into ``InputError``."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise  # a mistake in this program
            self._check_in_place()
            text = str(error)
            if type(error) is sqlite3.DatabaseError:
                raise DamagedStore(
                    f"{self.path} is no store, or a damaged one ({text}); restore a copy of it or name another file"
                ) from error
            advice = next((advice for word, advice in _ADVICE.items() if word in text), "check it with nases store verify")
            raise InputError(f"cannot use the store {self.path} ({text}); {advice}") from error

    def _connect(self, options: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._file.as_uri()}?{options}",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )

    def _inspect(self) -> int | None:
        """The version of the schema, found out without a change to any file; None where there is no file, or an empty one.

        Only SQLite opens a whole store: to close it otherwise would drop the locks that this process has on it.
        """
        while True:
            before = self._stat()
            if before is None or before.st_size == 0:
                if self.read_only:
                    raise InputError(f"there is no store {self.path}; name the file of one")
                return None
            try:
                return self._look()
            except sqlite3.DatabaseError:
                now = self._stat()
                if now is not None and (now.st_mtime_ns, now.st_size) == (before.st_mtime_ns, before.st_size):
                    raise  # it is not another process's writing that was in the way

    def _look(self) -> int:
        if self._beside("-journal").exists() and self._is_being_made():
            return 0
        with closing(self._connect("mode=ro&immutable=1")) as db:
            self._check_owner(db)
            if not self._beside("-wal").exists():
                return self._check_content(db)
        with closing(self._connect("mode=ro")) as db:
            return self._check_content(db)

    def _is_being_made(self) -> bool:
        """Whether another process is making the store, or was killed over it, which SQLite clears up.

        The file is then not whole, so that its header has to be read without SQLite.
        """
        try:
            with self._file.open("rb") as file:
                header = file.read(_HEADER_BYTES)
        except OSError:
            return False  # SQLite will say why
        return header.startswith(_MAGIC) and header[_OWNER] == APPLICATION_ID.to_bytes(4, "big")

    def _check_owner(self, db: sqlite3.Connection) -> None:
        if _pragma(db, "application_id") != APPLICATION_ID:
            raise InputError(f"{self.path} is the SQLite file of another program; name another file")

    def _check_version(self, version: int) -> None:
        if version > SCHEMA_VERSION:
            raise InputError(
                f"the store {self.path} is of version {version}, and this nases_env knows versions up to {SCHEMA_VERSION}; "
                "update nases_env or name another file"
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
            raise InputError(f"cannot open the store {self.path} ({error.strerror}); name another file") from None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"cannot open the store {self.path}: it is no file; name a file")
        return found

    def _open_to_read(self, version: int | None) -> sqlite3.Connection:
        writable = os.access(self._file, os.W_OK) and os.access(self._file.parent, os.W_OK)
        # One that may write clears up after itself. Where nobody may, nobody does.
        alone = not writable and not self._beside("-wal").exists()
        db = self._connect("mode=ro&immutable=1" if alone else "mode=rw")
        try:
            if version is not None and version < SCHEMA_VERSION:
                with closing(db) as old:
                    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    old.backup(db)
                self._migrate(db)
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
                f"cannot make the folder {self.path.parent} ({error.strerror}); name another file for the store"
            ) from None
        db = self._connect("mode=rwc")
        try:
            self._migrate(db)  # before it is a WAL file, so that the file itself says from the first whose it is
            self._keep_log(db)
            db.execute("BEGIN IMMEDIATE")  # makes the log
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Brings the schema up to date, in one transaction."""
        db.execute("BEGIN IMMEDIATE")
        try:
            version = int(_pragma(db, "user_version"))
            is_empty = version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            if not is_empty:
                self._check_owner(db)
                self._check_version(version)
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    db.execute(statement)
            if version < SCHEMA_VERSION:
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _keep_log(self, db: sqlite3.Connection) -> None:
        """Has SQLite write ahead to a log, so that readers and a writer do not wait for each other."""
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                mode = _pragma(db, "journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait here
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)
        if mode != "wal":
            raise InputError(f"the store {self.path} cannot lie on this file system; name a file on a local disk")


_ADVICE = {
    "full": "free some space there or name another file",
    "I/O": "free some space there, check the disk, or name another file",
    "readonly": "make the file and its folder writable or name another file",
    "unable to open": "make the file and its folder readable and writable or name another file",
    "locked": "another program keeps it busy: close that and start again",
}
"""What to do next, by a word of what SQLite says."""


@lru_cache
def host_identity() -> str:
    """This host by its name and by what is another after each boot and in each container."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{name}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{name}/{uuid.getnode():x}"


def process_started(pid: int) -> str | None:
    """When a process of this host began, the same text whenever it is asked for; None if it runs no more.

    On Linux it is counted from the boot, since the system's clock may be set while the process runs.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None


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
