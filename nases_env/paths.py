"""Checks of paths, and paths that depend on the home directory of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nases_env.errors import InputError


def absolute_path(path: str | Path) -> Path:
    """Return ``path`` as an absolute path, with ``~`` and ``~user`` replaced by home directories.

    Raises:
        InputError: if there is no such user, or the user has no home directory.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"cannot find the home directory in {path} ({error}); pass an absolute path") from None


def cache_dir() -> Path:
    """Return the directory in the environment variable ``NASES_CACHE_DIR``, or ``~/.cache/nases``.

    Raises:
        InputError: as ``absolute_path``.
    """
    return absolute_path(os.environ.get("NASES_CACHE_DIR") or "~/.cache/nases")


def import_path() -> list[str]:
    """Return the import path of this process as absolute paths, for processes with other working directories."""
    return [os.path.abspath(folder) for folder in sys.path]


def escape_name(name: str) -> str:
    """Return ``name`` with escapes in place of bytes that are not UTF-8, which many libraries refuse."""
    return name.encode(errors="backslashreplace").decode()


def require_utf8(path: str | Path) -> None:
    """Raise ``InputError`` if the name of ``path`` is not UTF-8; TensorBoard cannot write to such a path."""
    if str(path) != escape_name(str(path)):
        raise InputError(f"the name {path} is not UTF-8; rename the directory, or choose a different one")


def require_other_file(output: str | Path, source: str | Path) -> None:
    """Raise ``InputError`` if ``output`` is the file ``source``, which it would replace."""
    if Path(output).resolve() == Path(source).resolve():
        raise InputError(f"--output {output} would replace the file that is read; choose a different file")


def require_distinct(run_dirs: Sequence[Path]) -> None:
    """Raise ``InputError`` if two of ``run_dirs`` are the same directory."""
    if len(set(map(os.path.realpath, run_dirs))) < len(run_dirs):
        raise InputError("a run directory is given more than once; pass each one once")


def require_no_link(path: Path) -> None:
    """Raise ``InputError`` if ``path``, a file of a run directory, is a symbolic link.

    In a run directory that was copied from elsewhere, a link could point to any file.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, and a search would write to its target; replace it with a copy")
