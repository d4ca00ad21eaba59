"""Atomic file writes: a reader sees either the complete file or no file."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from nases_env.errors import InputError
from nases_env.file_lock import FOLDER_LOCK, lock

SUFFIX = ".partial"
"""The end of the name of a temporary file; its beginning is a dot and the name of the file."""

BLOCK_SIZE = 2**16  # of a file that is read from its end


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

    Temporary files of ``path`` that killed processes left behind are removed, except on Windows.

    Raises:
        InputError: if the directory is not writable, the disk is full, or ``path`` is a directory or a device. An existing
            file at ``path`` is then unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # the superuser would replace a device such as /dev/null
            raise InputError(f"cannot write {path}: it is not a regular file; choose a different path")
        path.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform != "win32":  # there, another process closes its temporary file, and only then moves it
            remove_leftovers(path)
        file, temporary = _create_temporary(path)
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform == "win32":  # cannot move an open file
                    file.close()
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):  # the disk may be full
                    file.close()  # Windows cannot remove an open file
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise write_error(path, error) from error


def _create_temporary(path: Path) -> tuple[BinaryIO, Path]:
    """Create a temporary file next to ``path``; it is locked until it is closed, so that no other process removes it."""
    while True:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{SUFFIX}"
        file = open(temporary, "xb")  # noqa: SIM115 - closed by the caller; its mode is that of the umask
        with contextlib.suppress(OSError):  # not every file system has locks
            lock(file.fileno())
        if temporary.exists():  # otherwise, it was removed before it was locked
            return file, temporary
        file.close()


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files of ``path`` that killed processes left behind; those of running processes are locked.

    On Windows, no other process may write ``path`` at the same time.
    """
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{SUFFIX}"):
        if "." in leftover.name.removeprefix(f".{path.name}.").removesuffix(SUFFIX):  # of a file with a longer name
            continue
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # cannot remove an open file
                leftover.unlink()
                continue
            with leftover.open("rb") as file:
                if lock(file.fileno(), wait_seconds=0.0):
                    leftover.unlink()


def write_error(path: str | Path, error: OSError) -> InputError:
    """Return the ``InputError`` for a failure to write ``path``."""
    is_full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))  # Windows has no EDQUOT
    advice = "free disk space or choose" if is_full else "choose"
    return InputError(f"cannot write {path}: {error.strerror or error}; {advice} a different directory")


def require_writable(path: str | Path) -> None:
    """Raise ``InputError`` if the directory of ``path``, or the one to create it in, is not writable."""
    folder = next(folder for folder in Path(path).absolute().parents if folder.exists())
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is not writable; choose a different directory")


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


def remove_incomplete_line(path: str | Path) -> None:
    """Remove what follows the last newline of the file ``path``, as a killed process left it behind."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK_SIZE)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


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
        entry.name in (*ignore, FOLDER_LOCK) or entry.name.startswith(f".{marker}.") for entry in folder.iterdir()
    )
