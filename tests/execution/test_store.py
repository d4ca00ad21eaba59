"""The store: durability, leases, migrations, and files that are not stores."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution.store import (
    APPLICATION_ID,
    MIGRATIONS,
    SCHEMA_VERSION,
    CorruptStoreError,
    Lease,
    Store,
    liveness,
    migrate_description,
    process_start_time,
    schema,
)
from nases_env.execution.store import store as store_module
from nases_env.hashing import sha256_hex
from nases_env.training import EpochRecord
from tests.processes import processes

DIGEST = "d" * 64
GENOTYPE = '{"decisions": [0]}'

counts = st.integers(0, 2**63 - 1)
shares = st.floats(0, 1)
evaluations = st.builds(
    Evaluation,
    key=st.text(min_size=1),
    seed=counts,
    status=st.sampled_from([status for status in Status if status is not Status.FAILED]),
    valid_accuracy=shares,
    train_accuracy=shares,
    num_params=counts,
    num_flops=counts,
    num_epochs=counts,
    seconds=st.floats(0, 2.0**62),
    device=st.text(),
    curve=st.lists(st.builds(EpochRecord, counts, st.floats(0, 1), st.floats(0, allow_nan=False), shares), max_size=3).map(
        tuple
    ),
    reason=st.text(),
)


def child(seed: int, accuracy: float = 0.5) -> Evaluation:
    return Evaluation("space:0", seed, Status.OK, valid_accuracy=accuracy)


def seeds(path: Path) -> set[int]:
    """Return the seeds of all evaluations in a store."""
    with Store(path, read_only=True) as store:
        assert store.integrity_errors() == []
        return {row["seed"] for row in store.rows()}


def raw(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def pragma(path: Path, name: str) -> Any:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"PRAGMA {name}").fetchone()[0]


def folder_content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class ChildProcess:
    """A process that runs ``function(connection, path, ...)``, and the messages that it sends."""

    def __init__(self, function: Callable[..., None], path: Path, *args: Any) -> None:
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=function, args=(theirs, path, *args), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        assert self.connection.poll(60), "timed out waiting for a message"
        return self.connection.recv()

    def receive_all(self) -> list[Any]:
        received = []
        try:
            while True:
                received.append(self.receive())
        except EOFError:
            return received

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


@pytest.fixture
def start() -> Iterator[Callable[..., ChildProcess]]:
    children: list[ChildProcess] = []

    def start(function: Callable[..., None], path: Path, *args: Any) -> ChildProcess:
        children.append(ChildProcess(function, path, *args))
        return children[-1]

    yield start
    for started in children:
        started.end()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("shared") / "results.sqlite") as store:
        yield store


class TestResults:
    @given(evaluation=evaluations, genotype=st.text())
    @example(evaluation=Evaluation("\0", 0, Status.OK), genotype="\0")
    @settings(max_examples=60)
    def test_get_returns_what_was_put(self, shared_store: Store, evaluation: Evaluation, genotype: str) -> None:
        digest = hashlib.sha256(repr((evaluation, genotype)).encode()).hexdigest()
        assert shared_store.put(evaluation, digest, genotype) == evaluation
        assert shared_store.get(evaluation.key, digest, evaluation.seed) == evaluation
        assert shared_store.get(evaluation.key, "another", evaluation.seed) is None
        row = next(row for row in shared_store.rows(evaluation.key) if row["digest"] == digest)
        assert row["genotype"] == genotype

    def test_new_store_is_one_file_in_a_new_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "what? 100% #1.sqlite"
        with Store(path) as store:
            store.put(child(1), DIGEST, GENOTYPE)
        assert [found.name for found in path.parent.iterdir()] == [path.name]
        assert pragma(path, "user_version") == SCHEMA_VERSION
        assert pragma(path, "application_id") == APPLICATION_ID
        assert pragma(path, "journal_mode") == "wal"
        with Store(path) as store:
            assert store.get("space:0", DIGEST, 1) == child(1)

    def test_first_result_is_kept(self, path: Path) -> None:
        with Store(path) as store:
            assert store.put(child(1, 0.5), DIGEST, GENOTYPE) == child(1, 0.5)
            assert store.put(child(1, 0.6), DIGEST, GENOTYPE) == child(1, 0.5)
            assert store.count() == 1

    def test_failed_evaluation_is_not_stored(self, path: Path) -> None:
        with Store(path) as store:
            assert store.acquire("space:0", DIGEST, 1)
            with pytest.raises(ValueError, match="failed"):
                store.put(replace(child(1), status=Status.FAILED), DIGEST, GENOTYPE)
            assert store.count() == 0
            assert len(store.leases()) == 1

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"valid_accuracy": 93.0}, "valid_accuracy"),
            ({"valid_accuracy": float("nan")}, "valid_accuracy"),
            ({"score": -0.1}, "score"),
            ({"num_params": -1}, "num_params"),
            ({"curve": (EpochRecord(1, 0.1, "low", 0.5),)}, "a value is not a number"),  # type: ignore[arg-type]
        ],
    )
    def test_invalid_evaluation_is_not_stored(self, changes: dict[str, Any], name: str, path: Path) -> None:
        with Store(path) as store:
            assert store.acquire("space:0", DIGEST, 1)
            with pytest.raises(ValueError, match=name):
                store.put(replace(child(1), **changes), DIGEST, GENOTYPE)
            assert store.count() == 0
            assert len(store.leases()) == 1

    def test_digest_is_the_hash_of_the_description(self, path: Path) -> None:
        description = {"b": 1, "a": {"path": Path("x"), "é": None}}
        digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()
        with Store(path) as store:
            store.register_config(digest, description)
            store.register_config(digest, {})
            (text,) = store.configurations().values()
        assert hashlib.sha256(text.encode()).hexdigest() == digest

    def test_rows_are_ordered_and_filtered_by_prefix(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "_PAGE", 3)
        with Store(path) as store:
            for seed in range(10, 0, -1):
                store.put(replace(child(seed), key=f"space:{seed}"), DIGEST, GENOTYPE)
            assert [row["seed"] for row in store.rows()] == list(range(10, 0, -1))
            assert [row["seed"] for row in store.rows("space:1")] == [10, 1]
            assert list(store.rows("space:%")) == []

    def test_threads_share_a_store(self, path: Path) -> None:
        with Store(path) as store:
            threads = [
                threading.Thread(target=lambda first=first: [store.put(child(first + i), DIGEST, "{}") for i in range(10)])
                for first in range(0, 60, 10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert seeds(path) == set(range(60))

    def test_invalid_row_is_an_input_error(self, path: Path) -> None:
        with Store(path) as store:
            store.put(child(1), DIGEST, GENOTYPE)
            raw(path, "UPDATE evaluations SET curve = 'x'")
            with pytest.raises(InputError, match=f"; run: nases store verify {path}$"):
                store.get("space:0", DIGEST, 1)


def write(connection: Connection, path: Path, numbers: range) -> None:
    connection.send("ready")
    connection.recv()
    with Store(path) as store:
        for number in numbers:
            store.put(child(number), DIGEST, GENOTYPE)
    connection.close()


def write_forever(connection: Connection, path: Path) -> None:
    with Store(path) as store:
        number = 0
        while True:
            store.put(child(number), DIGEST, GENOTYPE)
            connection.send(number)
            number += 1


def write_until_the_disk_is_full(connection: Connection, path: Path) -> None:
    """Limit files to 120,000 bytes; beyond that, writing fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
    with Store(path) as store:
        number = 0
        try:
            while True:
                store.put(child(number), DIGEST, GENOTYPE)
                number += 1
        except InputError as error:
            connection.send((number, str(error)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        store.put(child(number), DIGEST, GENOTYPE)
    connection.close()


def die_while_creating_a_store(connection: Connection, path: Path) -> None:
    """Create a store with a file size limit of one page, at which the kernel kills this process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    Store(path)


class TestCrashes:
    def test_two_processes_create_and_fill_a_store_concurrently(
        self, path: Path, start: Callable[..., ChildProcess]
    ) -> None:
        writers = [start(write, path, range(40)), start(write, path, range(20, 60)), start(write, path, range(60, 70))]
        for writer in writers:
            assert writer.receive() == "ready"
        for writer in writers:
            writer.connection.send("go")
        for writer in writers:
            assert writer.receive_all() == []
            writer.process.join()
            assert writer.process.exitcode == 0
        assert seeds(path) == set(range(70))

    def test_killed_writer_loses_no_reported_result(self, path: Path, start: Callable[..., ChildProcess]) -> None:
        writer = start(write_forever, path)
        reported = [writer.receive() for _ in range(20)]
        writer.process.kill()
        reported += writer.receive_all()
        assert set(reported) <= seeds(path)
        with Store(path) as store:
            store.put(child(len(reported) + 1), DIGEST, GENOTYPE)

    def test_full_disk_is_an_input_error_and_loses_nothing(self, path: Path, start: Callable[..., ChildProcess]) -> None:
        ((number, message),) = start(write_until_the_disk_is_full, path).receive_all()
        assert number > 5
        assert str(path) in message
        assert "free some space" in message
        assert "\n" not in message
        assert seeds(path) == set(range(number + 1))

    def test_store_whose_creation_crashed_is_created_again(self, path: Path, start: Callable[..., ChildProcess]) -> None:
        creator = start(die_while_creating_a_store, path)
        creator.process.join()
        assert creator.process.exitcode == -signal.SIGXFSZ
        assert path.stat().st_size > 0
        assert path.with_name(path.name + "-journal").exists()
        with Store(path) as store:
            assert store.count() == 0
            store.put(child(1), DIGEST, GENOTYPE)
        assert seeds(path) == {1}


def acquire_all(connection: Connection, path: Path, number: int) -> None:
    with Store(path) as store:
        connection.send("ready")
        connection.recv()
        connection.send([seed for seed in range(number) if store.acquire("space:0", DIGEST, seed)])
        connection.recv()


def acquire_and_wait(connection: Connection, path: Path, number: int) -> None:
    store = Store(path)
    for seed in range(number):
        assert store.acquire("space:0", DIGEST, seed)
    connection.send("leased")
    connection.recv()


class Clock:
    """Replaces the module ``time``; only the test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class TestLeases:
    def test_lease_is_held_until_release_or_put(self, path: Path) -> None:
        with Store(path) as first, Store(path) as second:
            assert first.acquire("space:0", DIGEST, 1)
            assert first.acquire("space:0", DIGEST, 1)
            assert not second.acquire("space:0", DIGEST, 1)
            assert second.acquire("space:0", DIGEST, 2)
            assert second.acquire("space:0", "another", 1)
            (lease, *_) = first.leases()
            assert (lease.key, lease.digest, lease.seed, lease.pid) == ("space:0", DIGEST, 1, os.getpid())
            second.release("space:0", DIGEST, 1)
            assert not second.acquire("space:0", DIGEST, 1)
            first.release("space:0", DIGEST, 1)
            assert second.acquire("space:0", DIGEST, 1)
            second.put(child(1), DIGEST, GENOTYPE)
            assert {lease.seed for lease in first.leases() if lease.digest == DIGEST} == {2}
            assert not first.acquire("space:0", DIGEST, 1), "the child has a result"
            second.release_all()
            assert first.leases() == []

    def test_close_releases_the_leases(self, path: Path) -> None:
        with Store(path) as first:
            second = Store(path)
            assert second.acquire("space:0", DIGEST, 1)
            second.close()
            second.close()
            second.release("space:0", DIGEST, 1)
            assert first.acquire("space:0", DIGEST, 1)

    def test_exactly_one_of_two_processes_acquires_a_lease(self, path: Path, start: Callable[..., ChildProcess]) -> None:
        number = 40
        dead = start(acquire_and_wait, path, number // 2)
        assert dead.receive() == "leased"
        dead.process.kill()
        dead.process.join()
        racers = [start(acquire_all, path, number) for _ in range(2)]
        for racer in racers:
            assert racer.receive() == "ready"
        for racer in racers:
            racer.connection.send("go")
        won = [racer.receive() for racer in racers]
        for racer in racers:
            racer.connection.send("end")
        assert sorted(won[0] + won[1]) == list(range(number))

    def test_lease_of_a_dead_process_is_taken_over_immediately(
        self, path: Path, start: Callable[..., ChildProcess], caplog: pytest.LogCaptureFixture
    ) -> None:
        owner = start(acquire_and_wait, path, 1)
        assert owner.receive() == "leased"
        with Store(path, heartbeat_timeout=float("inf")) as store:
            assert not store.acquire("space:0", DIGEST, 0)
            owner.process.kill()
            while process_start_time(owner.process.pid or 0) is not None:
                time.sleep(0.01)
            with caplog.at_level(logging.WARNING):
                assert store.acquire("space:0", DIGEST, 0)
        assert f"took over space:0, seed 0, from process {owner.process.pid}" in caplog.text

    def test_reused_process_id_does_not_own_the_lease(self, path: Path) -> None:
        with Store(path) as first, Store(path, heartbeat_timeout=float("inf")) as second:
            assert first.acquire("space:0", DIGEST, 1)
            raw(path, "UPDATE leases SET process_start_time = 'earlier'")
            assert second.acquire("space:0", DIGEST, 1)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
    def test_hidden_process_of_another_user_expires_without_heartbeats(
        self, error: type[OSError], path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if /proc was mounted with the option hidepid."""
        clock = Clock()

        def refuse(*arguments: object) -> None:
            raise error

        def forbid(*arguments: object) -> None:
            raise PermissionError

        with Store(path) as first, Store(path, heartbeat_timeout=60) as second:
            assert first.acquire("space:0", DIGEST, 1)
            monkeypatch.setattr(liveness, "time", clock)
            monkeypatch.setattr(Path, "read_bytes", refuse)
            monkeypatch.setattr(os, "kill", forbid)
            assert not second.acquire("space:0", DIGEST, 1)
            clock.now += 61
            assert second.acquire("space:0", DIGEST, 1)

    def test_owner_on_another_host_expires_without_heartbeats(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        with Store(path) as far, Store(path, heartbeat_timeout=60) as near, Store(path, heartbeat_timeout=60) as late:
            for module in (store_module, liveness):
                monkeypatch.setattr(module, "host_identity", lambda: "far/boot/1")
            assert far.acquire("space:0", DIGEST, 1)
            for module in (store_module, liveness):
                monkeypatch.setattr(module, "host_identity", lambda: "near/boot/1")
            monkeypatch.setattr(liveness, "time", clock)
            assert not near.acquire("space:0", DIGEST, 1)
            clock.now += 59
            assert not near.acquire("space:0", DIGEST, 1)
            far.heartbeat()
            clock.now += 2
            assert not near.acquire("space:0", DIGEST, 1), "it has sent a heartbeat"
            clock.now += 59
            assert not near.acquire("space:0", DIGEST, 1)
            clock.now += 1
            assert not late.acquire("space:0", DIGEST, 1), "this is its first observation of the lease"
            assert near.acquire("space:0", DIGEST, 1)
            (lease,) = near.leases()
            assert lease.host == "near/boot/1"
            far.release("space:0", DIGEST, 1)
            far.heartbeat()
            assert near.leases() == [lease], "the other store has lost the lease"
            far.put(child(1, 0.25), DIGEST, GENOTYPE)
            assert near.put(child(1, 0.75), DIGEST, GENOTYPE) == child(1, 0.25)
            assert near.leases() == []

    def test_setting_the_clock_back_has_no_effect(
        self, path: Path, start: Callable[..., ChildProcess], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = start(acquire_and_wait, path, 1)
        assert owner.receive() == "leased"
        with Store(path, heartbeat_timeout=60) as store:
            seen: list[float] = []

            def now(zone: Any) -> Any:
                seen.append(0.0)
                return SimpleNamespace(isoformat=lambda timespec: f"{1999 - len(seen)}-01-01T00:00:00+00:00")

            monkeypatch.setattr("time.time", lambda: -1e9)
            monkeypatch.setattr("psutil.boot_time", lambda: -1e9)
            monkeypatch.setattr(store_module, "datetime", SimpleNamespace(now=now))
            assert not store.acquire("space:0", DIGEST, 0), "its owner is alive"
            assert store.acquire("space:0", DIGEST, 1)
            assert store.put(child(1), DIGEST, GENOTYPE) == child(1)
            assert store.put(child(2), DIGEST, GENOTYPE) == child(2)
            assert [row["created"][:4] for row in store.rows()] == ["1997", "1996"]
            owner.process.kill()
            owner.process.join()
            assert store.acquire("space:0", DIGEST, 0)


def make_version_1(path: Path) -> None:
    raw(
        path,
        *MIGRATIONS[0],
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1",
        "INSERT INTO evaluations VALUES ('space:0', 'dig', 7, 'ok', 0.5, 0.5, 1, 2, 3, 4.5, 'cpu', '[]', '', '{}', "
        "'2025-01-01T00:00:00+00:00', 'host', '0.1.0', '2.8.0')",
    )


class TestVersions:
    def test_version_1_is_migrated_with_its_rows(self, path: Path) -> None:
        make_version_1(path)
        before = path.read_bytes()
        with Store(path, read_only=True) as store:
            assert (store.count(), store.leases()) == (1, [])
        assert path.read_bytes() == before
        with Store(path) as store:
            known = Evaluation("space:0", 7, Status.OK, 0.5, 0.5, 1, 2, 3, 4.5)
            assert store.get("space:0", "dig", 7) == known
            assert store.acquire("space:0", "dig", 8)
        assert pragma(path, "user_version") == SCHEMA_VERSION

    def test_version_2_is_migrated_with_its_leases_and_digests(self, path: Path) -> None:
        old = {"evaluator": "training", "settings": {"cutout": 16, "drop_path_keep": 0.6, "num_epochs": 2}}
        new = {"evaluator": "training", "settings": {"cutout_length": 16, "drop_path_prob": 0.4, "num_epochs": 2}}
        texts = [json.dumps(description, sort_keys=True) for description in (old, new)]
        old_digest, new_digest = (hashlib.sha256(text.encode()).hexdigest() for text in texts)
        make_version_1(path)
        raw(
            path,
            *MIGRATIONS[1],
            "PRAGMA user_version = 2",
            f"INSERT INTO configurations VALUES ('{old_digest}', '{texts[0]}')",
            f"UPDATE evaluations SET digest = '{old_digest}'",
            f"INSERT INTO claims VALUES ('space:0', '{old_digest}', 8, 'someone', 'far/boot/1', 1, 'then', 5, 'now')",
        )
        for read_only in (True, False):
            with Store(path, read_only=read_only) as store:
                assert store.configurations() == {new_digest: texts[1]}
                assert store.get("space:0", new_digest, 7) is not None
                assert store.leases() == [Lease("space:0", new_digest, 8, "someone", "far/boot/1", 1, "then", 5, "now")]
        assert pragma(path, "user_version") == SCHEMA_VERSION

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (
                {"evaluator": "InteractionEvaluator", "landscape": 3},
                {"evaluator": "RandomLandscapeEvaluator", "landscape_seed": 3},
            ),
            ({"evaluator": "AnalyticEvaluator"}, {"evaluator": "OperatorShareEvaluator"}),
            ({"evaluator": "LookUpEvaluator"}, {"evaluator": "QueryEvaluator"}),
            ({"evaluator": "nasbench201 table", "table": "x"}, {"evaluator": "nasbench201 table", "table": "x"}),
            ({"settings": {"drop_path_keep": 0.75}}, {"settings": {"drop_path_prob": 0.25}}),
            ({"settings": {"drop_path_keep": "high"}}, {"settings": {"drop_path_keep": "high"}}),  # damaged
            ({"evaluator": ["training"]}, {"evaluator": ["training"]}),
        ],
    )
    def test_old_descriptions_are_mapped_to_current_names(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        assert migrate_description(old) == new
        assert migrate_description(new) == new

    def test_failed_migration_changes_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_version_1(path)
        broken = (*MIGRATIONS, ("CREATE TABLE more (x)", "INSERT INTO absent VALUES (1)"))
        monkeypatch.setattr(schema, "MIGRATIONS", broken)
        for module in (schema, store_module):
            monkeypatch.setattr(module, "SCHEMA_VERSION", len(broken))
        with pytest.raises(InputError, match="absent"):
            Store(path)
        monkeypatch.undo()
        assert pragma(path, "user_version") == 1
        assert seeds(path) == {7}

    @pytest.mark.parametrize("read_only", [False, True])
    def test_newer_version_is_not_modified(self, path: Path, read_only: bool) -> None:
        Store(path).close()
        raw(path, "PRAGMA user_version = 99")
        before = folder_content(path.parent)
        with pytest.raises(InputError, match=rf"has schema version 99, .* up to {SCHEMA_VERSION}; update"):
            Store(path, read_only=read_only)
        assert folder_content(path.parent) == before

    def test_newer_version_in_use_is_not_modified(self, path: Path) -> None:
        Store(path).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA user_version = 99")  # only in the write-ahead log
            before = folder_content(path.parent)
            with pytest.raises(InputError, match="version 99"):
                Store(path)
            after = folder_content(path.parent)
        assert {name: content for name, content in after.items() if not name.endswith("-shm")} == {
            name: content for name, content in before.items() if not name.endswith("-shm")
        }


def filled(path: Path) -> bytes:
    with Store(path) as store:
        for seed in range(60):
            store.put(replace(child(seed), reason="x" * 500), DIGEST, GENOTYPE)
    return path.read_bytes()


def foreign(path: Path, mode: str) -> bytes:
    raw(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE evaluations (key)", "INSERT INTO evaluations VALUES (1)")
    return path.read_bytes()


BROKEN: dict[str, Callable[[Path], bytes]] = {
    "text": lambda path: b"key,accuracy\n" * 300,
    "short text": lambda path: b"hello",
    "zeros": lambda path: bytes(8192),
    "only a header": lambda path: filled(path)[:100],
    "damaged header": lambda path: b"x" + filled(path)[1:],
    "damaged schema": lambda path: (whole := filled(path))[:100] + b"\xff" * 3996 + whole[4096:],
    "damaged pages": lambda path: (whole := filled(path))[:12288] + b"\xa5" * 8192 + whole[20480:],
    "first half": lambda path: (whole := filled(path))[: len(whole) // 2],
    "file of another program": lambda path: foreign(path, "DELETE"),
    "file of another program with a log": lambda path: foreign(path, "WAL"),
}


class TestFiles:
    @pytest.mark.parametrize("read_only", [False, True])
    @pytest.mark.parametrize("what", BROKEN)
    def test_other_files_are_not_modified(self, path: Path, what: str, read_only: bool) -> None:
        content = BROKEN[what](path)
        path.write_bytes(content)
        with pytest.raises(
            InputError, match="of another program" if "another" in what else "is not a valid store"
        ) as raised:
            Store(path, read_only=read_only)
        assert str(path) in str(raised.value)
        assert isinstance(raised.value, CorruptStoreError) == ("another" not in what)
        assert folder_content(path.parent) == {path.name: content}

    @pytest.mark.parametrize("read_only", [False, True])
    def test_checkpoint_of_a_killed_process_is_completed(self, path: Path, read_only: bool) -> None:
        log = path.with_name(path.name + "-wal")
        with Store(path) as store:
            for seed in range(60):
                store.put(replace(child(seed), reason="x" * 500), DIGEST, GENOTYPE)
            before, content_of_log = path.read_bytes(), log.read_bytes()
        after, page_size = path.read_bytes(), pragma(path, "page_size")
        assert len(before) < len(after)
        path.write_bytes(after[:page_size] + before[page_size:])  # only the first page was copied
        log.write_bytes(content_of_log)
        with Store(path, read_only=read_only) as store:
            assert store.count() == 60
            assert store.integrity_errors() == []

    def test_corruption_while_open_is_an_input_error(self, path: Path) -> None:
        whole = filled(path)
        with Store(path) as store:
            with path.open("r+b") as file:
                file.seek(8192)
                file.write(b"\xa5" * (len(whole) - 8192))
            with pytest.raises(CorruptStoreError, match="malformed"):
                list(store.rows())
            with pytest.raises(CorruptStoreError, match="malformed"):
                store.get("space:0", DIGEST, 30)

    @pytest.mark.parametrize("name", ["file/results.sqlite", "folder", "/proc/nases/results.sqlite", "/dev/null", "x" * 300])
    @pytest.mark.parametrize("read_only", [False, True])
    def test_invalid_path_is_an_input_error(self, tmp_path: Path, name: str, read_only: bool) -> None:
        (tmp_path / "file").write_text("in the way")
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match="choose") as raised:
            Store(tmp_path / name, read_only=read_only)
        assert "\n" not in str(raised.value)
        assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]

    def test_read_only_store_does_not_create_a_file(self, path: Path) -> None:
        with pytest.raises(InputError, match="there is no store"):
            Store(path, read_only=True)
        assert list(path.parent.iterdir()) == []

    def test_empty_file_is_not_a_store_to_read(self, path: Path) -> None:
        path.touch()
        with pytest.raises(InputError, match=r"is an empty file, not a store; choose the file of a store$"):
            Store(path, read_only=True)
        assert path.stat().st_size == 0

    @pytest.mark.parametrize("loss", ["folder", "file", "replaced", "log"])
    def test_file_removed_while_open_is_an_input_error(
        self, path: Path, tmp_path_factory: pytest.TempPathFactory, loss: str
    ) -> None:
        store = Store(path)
        store.put(child(1), DIGEST, GENOTYPE)
        if loss == "folder":
            shutil.rmtree(path.parent)
        elif loss == "file":
            path.unlink()
        elif loss == "log":
            path.with_name(path.name + "-wal").unlink()
        else:
            other = tmp_path_factory.mktemp("other") / "results.sqlite"
            Store(other).close()
            os.replace(other, path)
        for change in (
            lambda: store.put(child(2), DIGEST, GENOTYPE),
            lambda: store.acquire("space:0", DIGEST, 3),
            lambda: store.register_config(DIGEST, {}),
        ):
            with pytest.raises(InputError, match="was moved, replaced or deleted") as raised:
                change()
            assert str(path) in str(raised.value)
        store.close()

    def test_link_is_followed(self, path: Path) -> None:
        link = path.with_name("link")
        link.symlink_to(path)
        with Store(link) as store:
            store.put(child(1), DIGEST, GENOTYPE)
        assert seeds(path) == {1}

    def test_file_locked_for_too_long_is_an_input_error(self, path: Path) -> None:
        with Store(path, busy_timeout=0.05) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(InputError, match="another program is using it"):
                store.put(child(1), DIGEST, GENOTYPE)
            with pytest.raises(InputError, match="another program is using it"):
                Store(path, busy_timeout=0.05)
            other.execute("ROLLBACK")
            store.put(child(1), DIGEST, GENOTYPE)

    def test_reading_works_while_a_search_writes(self, path: Path) -> None:
        with Store(path) as writer, Store(path, read_only=True) as reader:
            assert reader.count() == 0
            writer.put(child(1), DIGEST, GENOTYPE)
            assert writer.acquire("space:0", DIGEST, 2)
            assert reader.get("space:0", DIGEST, 1) == child(1)
            assert len(reader.leases()) == 1
            with pytest.raises(InputError, match="make the file and its directory writable"):
                reader.put(child(3), DIGEST, GENOTYPE)
        assert seeds(path) == {1}


def use_without_permission(connection: Connection, path: Path) -> None:
    """Use a read-only store; first become another user, because root ignores permissions."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    for name in (path, path.with_name("new.sqlite"), path.with_name("new") / "new.sqlite"):
        with pytest.raises(InputError) as raised:
            Store(name)
        connection.send(str(raised.value))
    with Store(path, read_only=True) as store:
        connection.send((store.count(), store.leases()))
    connection.close()


def test_read_only_file_can_be_read(start: Callable[..., ChildProcess]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "results.sqlite"
        filled(path)
        before = folder_content(folder)
        path.chmod(0o444)
        folder.chmod(0o555)
        existing, new, new_folder, read = start(use_without_permission, path).receive_all()
        folder.chmod(0o755)
        assert f"cannot use the store {path} " in existing
        assert "make the file and its directory" in existing
        assert f"cannot use the store {folder / 'new.sqlite'} " in new
        assert f"cannot create the directory {folder / 'new'} " in new_folder
        assert read == (60, [])
        assert folder_content(folder) == before


class TestMerge:
    def test_missing_evaluations_are_copied_with_their_origin(self, path: Path) -> None:
        other = path.with_name("other.sqlite")
        with Store(path) as target, Store(other) as source:
            source.register_config(DIGEST, {"a": 1})
            for seed in (1, 2, 3):
                source.put(child(seed), DIGEST, GENOTYPE)
            target.put(replace(child(2), seconds=9.0), DIGEST, GENOTYPE)
            target.put(child(3, 0.75), DIGEST, GENOTYPE)
            raw(other, "UPDATE evaluations SET created = 'then', host = 'there'")
            merged = target.merge(source)
            assert (merged.num_added, merged.num_known) == (1, 1)
            ((kept, differing),) = merged.differing
            assert (kept["valid_accuracy"], differing["valid_accuracy"]) == (0.75, 0.5)
            assert target.get("space:0", DIGEST, 3) == child(3, 0.75)
            assert target.configurations() == source.configurations()
            (copied,) = [row for row in target.rows() if row["seed"] == 1]
            assert (copied["created"], copied["host"]) == ("then", "there")

    def test_results_with_different_rewards_differ(self, path: Path) -> None:
        with Store(path) as target, Store(path.with_name("other.sqlite")) as source:
            target.put(replace(child(1), score=0.25), DIGEST, GENOTYPE)
            source.put(replace(child(1), score=0.75), DIGEST, GENOTYPE)
            merged = target.merge(source)
            assert merged.num_known == 0
            assert [(kept["score"], differing["score"]) for kept, differing in merged.differing] == [(0.25, 0.75)]

    def test_configurations_of_copied_evaluations_are_copied_while_a_search_writes(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = path.with_name("other.sqlite")
        with Store(path) as target, Store(other) as search, Store(other, read_only=True) as source:
            search.register_config(DIGEST, {"a": 1})
            search.put(child(1), DIGEST, GENOTYPE)

            def configurations() -> dict[str, str]:
                found = Store.configurations(source)
                search.register_config("e" * 64, {"a": 2})
                search.put(child(2), "e" * 64, GENOTYPE)
                return found

            monkeypatch.setattr(source, "configurations", configurations)
            assert target.merge(source).num_added == 1
            monkeypatch.undo()
            assert target.merge(source).num_added == 1
            assert target.configurations() == source.configurations()

    def test_failed_merge_copies_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Store(path) as target, Store(path.with_name("other.sqlite")) as source:
            source.put(child(1), DIGEST, GENOTYPE)

            def rows() -> Iterator[dict[str, Any]]:
                yield next(Store.rows(source))
                raise InputError("the source broke")

            monkeypatch.setattr(source, "rows", rows)
            with pytest.raises(InputError, match="the source broke"):
                target.merge(source)
            assert target.count() == 0
            target.put(child(2), DIGEST, GENOTYPE)


def test_results_with_a_limit_are_found_without_it(tmp_path: Path) -> None:
    """In schema version 3, the limit was part of the configuration; infeasible children have no result without it."""
    path = tmp_path / "store.sqlite"
    texts = [json.dumps({"evaluator": "training", "settings": {"max_params": limit}}, sort_keys=True) for limit in (9, None)]
    digests = [sha256_hex(text) for text in texts]
    with sqlite3.connect(path) as db:
        for statements in MIGRATIONS[:3]:
            for statement in statements:
                db.execute(statement)
        db.execute("INSERT INTO configurations VALUES (?, ?)", (digests[0], texts[0]))
        for key, status in (("a", "ok"), ("b", "too_large")):
            values = (key, digests[0], 0, status, 0.5, 0.5, 1, 1, 1, 1.0, "cpu", "[]", "", "{}", "", "", "", "")
            db.execute(f"INSERT INTO evaluations VALUES ({', '.join('?' * len(values))})", values)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 3")
    db.close()
    with Store(path) as store:
        found = store.get("a", digests[1], 0)
        assert found is not None
        assert (found.valid_accuracy, found.activation_bytes, found.file_bytes) == (0.5, 0, 0)
        assert store.get("b", digests[1], 0) is None
        assert store.get("b", digests[0], 0) is not None
        assert store.put_latency("a", digests[1], 0.5) == store.put_latency("a", digests[1], 0.7) == 0.5
