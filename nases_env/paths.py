"""Paths that depend on the home directory of the user."""

from __future__ import annotations

import os
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
