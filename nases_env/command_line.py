"""Argument parsing and exit status of all commands."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from nases_env.errors import InputError, did_you_mean

Args = TypeVar("Args")


def run_command(args_type: type[Args], main: Callable[[Args], None]) -> None:
    """Parse the command line into the dataclass ``args_type`` and call ``main``, whose docstring begins the help text."""
    run(lambda: main(parse(args_type, description=main.__doc__)))


def run(main: Callable[[], None]) -> None:
    """Call ``main`` as the main function of this process.

    An ``InputError`` is printed to standard error as one line; the exit status is then 2. An interrupt exits with status
    130; SIGTERM has the same effect as Ctrl-C.
    """
    gc.freeze()  # exempts the imported modules from garbage collection, which saves half a second, mostly at exit
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.excepthook = _thread_excepthook
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(args_type: Any, **options: Any) -> Any:
    """Parse the command line into ``args_type``, a dataclass or a union of dataclasses.

    Args:
        args_type: the type of the result.
        **options: passed to ``tyro.cli``.

    Raises:
        InputError: if there is an unknown option.
    """
    args, unknown = tyro.cli(args_type, return_unknown_args=True, **options)
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in _option_names(args)]
        raise InputError(f"unknown option {unknown[0]!r}{did_you_mean(unknown[0], known)}; --help lists the options")
    return args


def parse_quietly(args_type: type[Args], options: Sequence[str], default: Args) -> Args | None:
    """Parse ``options`` without ``--help`` and without printing, to compute defaults of other options from them.

    Returns:
        The parsed options; None if they are not valid, so that ``parse`` prints an error or the help text.
    """
    given = [word for word in options if word not in ("-h", "--help")]
    try:
        args: Args = parse(args_type, args=given, default=default, console_outputs=False)
    except (SystemExit, InputError):
        return None
    return args


def given_preset(options: Sequence[str] | None = None) -> str | None:
    """Return the value of ``--preset`` in ``options``, which determines the defaults of other options; None if not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    preset: str | None = parser.parse_known_args(options)[0].preset
    return preset


def _option_names(args: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        yield prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from _option_names(value, f"{prefix}{field.name}.")


def _thread_excepthook(raised: threading.ExceptHookArgs) -> None:
    """Do not print an ``OSError`` of TensorBoard's writer thread: the writer raises it again in the main thread."""
    if not (issubclass(raised.exc_type, OSError) and type(raised.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(raised)
