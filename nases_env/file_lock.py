"""Locks of files and directories, which other processes respect; the system releases the locks of a process that dies."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

fcntl: Any
msvcrt: Any
try:
    fcntl, msvcrt = importlib.import_module("fcntl"), None
except ImportError:  # Windows
    fcntl, msvcrt = None, importlib.import_module("msvcrt")

WAIT_SECONDS = 1.0
"""``lock`` waits for this time, because ``is_locked`` of another process holds a lock for a moment."""

_POLL_SECONDS = 0.01

_LOCKED_BYTE = 2**31 - 2
"""Windows locks a range of bytes, which others can then neither read nor write: one byte after the end of any file."""

FOLDER_LOCK = ".lock"
"""File that stands for its directory on Windows, which cannot lock directories."""


def lock(descriptor: int, *, wait_seconds: float = WAIT_SECONDS) -> bool:
    """Lock an open file until it is closed; return whether no other process has locked it.

    Args:
        descriptor: descriptor of the file, or of a directory, as ``open_folder`` returns it.
        wait_seconds: how long to wait for another process.
    """
    deadline = time.monotonic() + wait_seconds
    while not _lock(descriptor, shared=False):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def open_folder(folder: Path) -> int:
    """Return a descriptor with which ``lock`` locks a directory."""
    return os.open(_lockable(folder), os.O_RDONLY if fcntl else os.O_RDWR | os.O_CREAT)


def is_locked(path: Path) -> bool:
    """Return whether a file or a directory is locked.

    Raises:
        OSError: if it cannot be opened.
    """
    try:
        descriptor = os.open(_lockable(path), os.O_RDONLY)
    except FileNotFoundError:
        if path.is_dir():
            return False
        raise
    try:
        return not _lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _lockable(path: Path) -> Path:
    return path if fcntl or not path.is_dir() else path / FOLDER_LOCK


def _lock(descriptor: int, *, shared: bool) -> bool:
    try:
        if fcntl:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:  # has no shared locks
            position = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, position, os.SEEK_SET)
    except (BlockingIOError, PermissionError):  # the second on Windows
        return False
    return True
