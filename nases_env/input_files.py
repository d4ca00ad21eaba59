"""Reading of files that the user names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nases_env.errors import InputError

MAX_BYTES = 2**24
"""Size of a file that is read at once. JSON of this size takes up to 0.4 GiB of memory; a device may have no end."""


def read_file(path: Path) -> bytes:
    """Return the content of a file of at most ``MAX_BYTES``.

    Raises:
        OSError: if it cannot be read or is larger.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def read_text(path: Path, advice: str) -> str:
    """Return the text of a file of at most ``MAX_BYTES``, in UTF-8.

    Args:
        path: the file.
        advice: what to do if it cannot be read.

    Raises:
        InputError: if it cannot be read, is larger, or is not UTF-8; the message ends with ``advice``.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"cannot read {path} ({reason}); {advice}") from None
