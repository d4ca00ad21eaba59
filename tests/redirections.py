"""Standard output of a forked command, as a shell redirects it: the argument ``prepare`` of ``tests.processes``."""

from __future__ import annotations

import os
import sys


def to_file(path: str, encoding: str = "utf-8") -> None:
    """``> path``, in a console with ``encoding``."""
    _redirect(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), encoding)


def to_reader_that_has_exited() -> None:
    """``| true``, after ``true`` has exited."""
    reader, writer = os.pipe()
    os.close(reader)
    _redirect(writer, "utf-8")


def close() -> None:
    """``>&-``"""
    os.close(1)
    sys.stdout = sys.__stdout__ = None  # type: ignore[misc]  # as in a new interpreter


def _redirect(descriptor: int, encoding: str) -> None:
    os.dup2(descriptor, 1)
    os.close(descriptor)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
