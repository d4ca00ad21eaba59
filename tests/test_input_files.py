"""Files that are read at once have a limited size."""

from __future__ import annotations

from pathlib import Path

import pytest

from nases_env.cli import main as cli
from nases_env.errors import InputError
from nases_env.input_files import MAX_BYTES, read_file, read_text
from tests.commands import error_of, run_here


def test_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * MAX_BYTES)
    assert read_file(path) == b"a" * MAX_BYTES
    path.write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(OSError, match="File too large"):
        read_file(path)


def test_text_that_cannot_be_read_is_an_error_with_the_advice(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(InputError) as caught:
        read_text(path, "pass a file")
    assert str(caught.value) == f"cannot read {path} (No such file or directory); pass a file"
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"\(not a text file\); pass a file$"):
        read_text(path, "pass a file")
    path.write_bytes(b"\xef\xbb\xbftext")
    assert read_text(path, "pass a file") == "text"


@pytest.mark.parametrize("command", [("draw",), ("train", "--dataset", "digits", "--preset", "smoke")])
def test_device_without_an_end_is_an_error(command: tuple[str, ...]) -> None:
    assert "/dev/zero" in error_of(run_here(cli.main, *command, "/dev/zero"))
