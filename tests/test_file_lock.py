"""Locks between processes."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from nases_env.file_lock import is_locked, lock


def test_lock_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "ab") as first, open(path, "ab") as second:
        assert not is_locked(path)
        assert lock(first.fileno())
        assert is_locked(path)
        assert not lock(second.fileno(), wait_seconds=0.02)
    assert not is_locked(path)


def test_lock_waits_for_a_process_that_asks_whether_the_file_is_locked(tmp_path: Path) -> None:
    with open(tmp_path / "file", "ab") as writer, open(tmp_path / "file", "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as in is_locked
        threading.Timer(0.05, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        assert lock(writer.fileno())
