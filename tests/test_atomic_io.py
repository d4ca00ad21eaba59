"""Files are whole or absent."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from nases_env.atomic_io import append_line, write_atomically
from nases_env.errors import InputError


@pytest.fixture
def full_disk() -> object:
    """A limit on the size of files: beyond 1,000 bytes the kernel refuses to write, as a full disk does."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(InputError, match=r"cannot write .*file.*free some space") as caught:
        write_atomically(path, b"x" * 2000)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("full_disk")
def test_an_appended_line_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "x" * 600)
    with pytest.raises(InputError, match="cannot write"):
        append_line(path, "y" * 600)
    assert path.read_text() == "x" * 600 + "\n"
    append_line(path, "z" * 100)
    assert path.read_text().splitlines() == ["x" * 600, "z" * 100]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", b"")
