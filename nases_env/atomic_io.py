"""Atomic file writes: a reader sees either the complete file or no file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from nases_env.errors import InputError


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the directory of ``path``, then move it to ``path``.

    Raises:
        InputError: as ``open_atomically``.
    """
    with open_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the directory of ``path``; move it to ``path`` at the end of the context, unless it fails.

    Raises:
        InputError: if the directory is not writable, the disk is full, or ``path`` is a directory or a device. An existing
            file at ``path`` is then unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # the superuser would replace a device such as /dev/null
            raise InputError(f"cannot write {path}: it is not a regular file; choose a different path")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
        file = open(temporary, "xb")  # noqa: SIM115 - closed below; its mode is that of the umask
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError) -> InputError:
    """Return the ``InputError`` for a failure to write ``path``."""
    return InputError(f"cannot write {path}: {error.strerror or error}; free disk space or choose a different directory")


def append_line(path: str | Path, line: str) -> None:
    """Append ``line`` and a newline to the file ``path`` and flush it to disk.

    Raises:
        InputError: if the line cannot be written. The file is then unchanged.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            content, end = line.encode() + b"\n", file.tell()
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise write_error(path, error) from error


def is_fresh(folder: Path, marker: str, ignore: Collection[str] = ()) -> bool:
    """Return whether ``folder`` is missing, empty, or holds only leftovers of an aborted start.

    Args:
        folder: the directory to check.
        marker: the file that is written first, atomically. A directory that contains it is in use.
        ignore: names of other files that may exist before ``marker``.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        entry.name in ignore or entry.name.startswith(f".{marker}.") for entry in folder.iterdir()
    )
