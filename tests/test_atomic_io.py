"""Files are written completely or not at all."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nases_env.atomic_io import (
    SUFFIX,
    append_line,
    is_fresh,
    open_atomically,
    remove_incomplete_line,
    remove_leftovers,
    require_writable,
    write_atomically,
    write_error,
)
from nases_env.errors import InputError
from nases_env.execution import Store


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Limit the size of files to 1,000 bytes; writing more fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_write_creates_folders_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_of_the_umask(mask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr("os.umask", lambda _: pytest.fail("the umask of other threads was changed"))
            with open_atomically(tmp_path / "file") as file:
                (temporary,) = tmp_path.iterdir()
                assert temporary.stat().st_mode & 0o777 == mode
                file.write(b"content")
            append_line(tmp_path / "lines", "line")
            Store(tmp_path / "store.sqlite").close()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_only_regular_files_are_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(os.devnull)
    before = path.lstat()
    with pytest.raises(InputError, match=rf"cannot write .*{kind}: it is not a regular file"):
        write_atomically(path, b"content")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


KILLED_WRITER = """
import os, signal, sys
from nases_env.atomic_io import open_atomically

with open_atomically(sys.argv[1]) as file:
    file.write(b"incomplete")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    longer = tmp_path / f".file.json.x1y2{SUFFIX}"
    longer.touch()
    write_atomically(path, b"complete")
    assert sorted(tmp_path.iterdir()) == [longer, path]


def test_concurrent_writes_of_a_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open_atomically(path) as file:
        file.write(b"first")
        write_atomically(path, b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither move nor remove a file that this process has opened, as on Windows."""
    replace, unlink = os.replace, Path.unlink

    def require_closed(path: Path) -> None:
        if str(path.resolve()) in {file.path for file in psutil.Process().open_files()}:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def replace_closed(source: Path, target: Path) -> None:
        require_closed(source)
        replace(source, target)

    def unlink_closed(path: Path, missing_ok: bool = False) -> None:
        require_closed(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", replace_closed)
    monkeypatch.setattr(Path, "unlink", unlink_closed)


@pytest.mark.usefixtures("windows")
def test_failed_write_leaves_nothing_on_windows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail() -> None:
        with open_atomically(path) as file:
            file.write(b"new")
            raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("windows")
def test_write_keeps_the_file_that_another_is_about_to_move_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "file", os.replace

    def replace_after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_atomically(path, b"second")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_after_another)
    write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("windows")
def test_leftovers_are_removed_on_windows_unless_they_are_open(tmp_path: Path) -> None:
    left, opened = (tmp_path / f".file.{name}{SUFFIX}" for name in ("a1", "b2"))
    left.touch()
    with opened.open("wb"):
        remove_leftovers(tmp_path / "file")
        assert list(tmp_path.iterdir()) == [opened]


def test_directory_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "new" / "file")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))  # root may write everywhere
    message = re.escape(
        f"cannot write {tmp_path / 'new' / 'file'}: {tmp_path} is not writable; choose a different directory"
    )
    with pytest.raises(InputError, match=message):
        require_writable(tmp_path / "new" / "file")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"[a-z]; choose a different directory$"):
        write_atomically(tmp_path / "file" / "file", b"")
    full = write_error("file", OSError(errno.ENOSPC, "No space left on device"))
    assert str(full) == "cannot write file: No space left on device; free disk space or choose a different directory"


@pytest.mark.usefixtures("full_disk")
def test_full_disk_keeps_the_old_file_and_no_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(InputError, match=r"cannot write .*file.*; choose a different directory") as caught:
        write_atomically(path, b"x" * 2000)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("full_disk")
def test_appended_line_is_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "x" * 600)
    with pytest.raises(InputError, match="cannot write"):
        append_line(path, "y" * 600)
    assert path.read_text() == "x" * 600 + "\n"
    append_line(path, "z" * 100)
    assert path.read_text().splitlines() == ["x" * 600, "z" * 100]


@pytest.mark.parametrize("block_size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b""),
        (b"half", b""),
        (b"one\n", b"one\n"),
        (b"one\ntwo\nhalf", b"one\ntwo\n"),
        (b"one\nhal", b"one\n"),
        (b"\n\nh", b"\n\n"),
    ],
)
def test_incomplete_line_is_removed(
    content: bytes, expected: bytes, block_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nases_env.atomic_io.BLOCK_SIZE", block_size)
    path = tmp_path / "lines"
    path.write_bytes(content)
    remove_incomplete_line(path)
    assert path.read_bytes() == expected


def test_parent_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", b"")


def test_folder_is_fresh_until_it_has_the_marker(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert is_fresh(folder, "config.json")
    folder.mkdir()
    (folder / ".config.json.x1y2").touch()  # left by a process that was killed in write_atomically
    (folder / "store.sqlite").touch()
    assert is_fresh(folder, "config.json", ignore=("store.sqlite",))
    assert not is_fresh(folder, "config.json")
    (folder / "config.json").touch()
    assert not is_fresh(folder, "config.json", ignore=("store.sqlite",))
    assert not is_fresh(folder / "config.json", "config.json")
