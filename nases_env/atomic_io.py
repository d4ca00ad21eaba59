"""Writing files so that a reader sees the whole file or none."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from nases_env.errors import InputError


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes ``content`` to a temporary file beside ``path``, and then puts it in its place.

    Raises:
        InputError: if the folder cannot be written to or the disk is full; what stood at ``path`` before stays.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError) -> InputError:
    """The one line that a person reads when ``path`` could not be written."""
    return InputError(f"cannot write {path}: {error.strerror or error}; free some space there or name another folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def append_line(path: str | Path, line: str) -> None:
    """Appends ``line`` and a line break to the file ``path``, and has it on the disk when it returns.

    Raises:
        InputError: if it cannot be written; no part of the line stays.
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


def is_unused(folder: Path, first: str, begun: Collection[str] = ()) -> bool:
    """Whether ``folder`` may be written to as a new one: there is nothing, or what was left by a process killed as it began.

    Args:
        first: the file that is written first, atomically; a folder that has it is in use.
        begun: other names that may be there before it.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(entry.name in begun or entry.name.startswith(f".{first}.") for entry in folder.iterdir())
