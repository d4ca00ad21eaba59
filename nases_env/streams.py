"""Standard streams: characters that they cannot encode, and errors when they cannot be written."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from nases_env.errors import InputError

SUBSTITUTES = {
    **{"✔": "ok", "✘": "x", "✓": "ok", "…": "...", "×": "x", "•": "*", "–": "-", "—": "-", "±": "+-", "µ": "u"},
    **dict.fromkeys("─━╌═", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋┡┩╇┢┪╈╒╕╘╛", "+"),
}
"""What is written in place of characters that a stream cannot encode; others are escaped."""

HANDLER = "nases_substitute"


class OutputError(InputError):
    """Standard output cannot be written.

    Attributes:
        reader_has_exited: whether it is a pipe whose reader, such as ``head``, has exited.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror or error}; redirect it to another file")
        self.reader_has_exited = error.errno == errno.EPIPE


class OutputStream(io.TextIOWrapper):
    """A standard stream that is replaced by ``os.devnull`` after the first error.

    Attributes:
        error: the first error; None without one.
        is_optional: whether the program continues after an error; otherwise ``OutputError`` is raised.
    """

    error: OutputError | None = None
    is_optional = False

    def write(self, text: str) -> int:
        self._guard(super().write, text)
        return len(text)

    def flush(self) -> None:
        self._guard(super().flush)

    def _guard(self, action: Callable[..., object], *arguments: Any) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.error = self.error or OutputError(error)
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())  # what is still buffered is written there
            os.close(devnull)
            if not self.is_optional:
                raise self.error from error


def prepare() -> None:
    """Prepare the standard streams of this process. Call it first, before files are opened.

    A closed descriptor is replaced by ``os.devnull``, because the next file that is opened, such as a store, would get it.
    Streams that were replaced, for example by a test, are left as they are.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free descriptor
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    codecs.register_error(HANDLER, _substitute)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - a standard stream
            setattr(sys, f"__{name}__", getattr(sys, name))
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue
        encoding, options = stream.encoding, {name: getattr(stream, name) for name in ("line_buffering", "write_through")}
        guarded = OutputStream(stream.detach(), encoding, HANDLER, **options)
        guarded.is_optional = name == "stderr"
        setattr(sys, name, guarded)
        setattr(sys, f"__{name}__", guarded)


@contextlib.contextmanager
def optional_output() -> Iterator[None]:
    """Continue in this context if standard output cannot be written; ``checked_output`` raises the error later."""
    stream = sys.stdout
    if not isinstance(stream, OutputStream):
        yield
        return
    before, stream.is_optional = stream.is_optional, True
    try:
        yield
    finally:
        stream.is_optional = before


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Write what is buffered at the end of this context.

    Raises:
        OutputError: if standard output could not be written, unless the context ends with an error, which is more important.
    """
    try:
        yield
    except SystemExit:
        _check_output()
        raise
    except BaseException:
        with optional_output():
            sys.stdout.flush()
        raise
    _check_output()


def _check_output() -> None:
    sys.stdout.flush()
    if isinstance(sys.stdout, OutputStream) and sys.stdout.error is not None:
        raise sys.stdout.error


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(SUBSTITUTES.get(each) or ascii(each)[1:-1] for each in characters), error.end
