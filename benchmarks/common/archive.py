"""Finished results of a benchmark in one file, so that another machine can continue or analyze them.

Each line is a JSON object with the ``path`` of a result in the directory of the benchmark and its ``content``. The lines are
sorted by path. The file is compressed if its name ends in ``.gz``. The names of results contain digests of the settings, so
results with other settings are kept and not used. Of two results with one name, such as searches of different durations, the
longer one is kept.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.json_io import parse_json


@contextmanager
def archived(archive: Path | None, work_dir: Path, finished: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """Unpack the archive, and add the finished results at the end, also after an interrupt or an error.

    Args:
        archive: the file; None: there is none.
        work_dir: the directory of the benchmark.
        finished: returns the files of finished results in ``work_dir``.

    Raises:
        InputError: if the file is not an archive.
    """
    if archive is None:
        yield
        return
    unpack(archive, work_dir)
    try:
        yield
    finally:
        pack(archive, work_dir, finished())


def unpack(archive: Path, work_dir: Path) -> None:
    """Write the results that ``work_dir`` lacks, or of which it has only a part. A missing archive has no results.

    Raises:
        InputError: if the file is not an archive.
    """
    for name, content in _read(archive).items():
        path = work_dir / name
        if not path.exists() or _progress(content) > _progress(json.loads(path.read_text())):
            write_atomically(path, _to_line(content))


def pack(archive: Path, work_dir: Path, paths: Iterable[Path]) -> None:
    """Add results to the archive, or replace them. A longer search in the archive is kept.

    Args:
        archive: the file; created if it is missing.
        work_dir: the directory of the benchmark.
        paths: files of finished results in ``work_dir``.

    Raises:
        InputError: if the existing file is not an archive.
    """
    contents = _read(archive)
    for path in paths:
        name, content = path.relative_to(work_dir).as_posix(), json.loads(path.read_text())
        if name not in contents or _progress(content) >= _progress(contents[name]):
            contents[name] = content
    text = b"".join(_to_line({"path": name, "content": contents[name]}) for name in sorted(contents))
    write_atomically(archive, gzip.compress(text, mtime=0) if archive.suffix == ".gz" else text)


def _progress(content: dict[str, Any]) -> tuple[bool, int, int]:
    """Return whether a training has ended, and the numbers of children and of choices of a search, to compare results."""
    return "status" in content, len(content.get("children", ())), len(content.get("chosen", ()))


def _to_line(content: Any) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _read(archive: Path) -> dict[str, dict[str, Any]]:
    try:
        data = archive.read_bytes()
        lines = (gzip.decompress(data) if archive.suffix == ".gz" else data).decode().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {archive}: {error}; pass another --archive") from error
    contents: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line, allow_infinity=True)
            name, content = record["path"], record["content"]
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"the path {name!r} is outside of the directory of the benchmark")
            if not isinstance(content, dict):
                raise TypeError("its content is not an object")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"line {number} of {archive} is not a result ({error}); pass another --archive") from error
        contents[name] = content
    return contents
