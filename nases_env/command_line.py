"""How every command of this project reads its arguments and ends."""

from __future__ import annotations

import dataclasses
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tyro

from nases_env.errors import InputError, did_you_mean

Args = TypeVar("Args")


def run_command(
    args_type: type[Args], main: Callable[[Args], None], preset: Callable[[Args], Args | None] = lambda args: None
) -> None:
    """Parses the command line into ``args_type`` and runs ``main``.

    Wrong input ends in one line on standard error and exit status 2, an interrupt in exit status 130.

    Args:
        args_type: a dataclass.
        main: its docstring is what ``--help`` begins with.
        preset: what options that were not given should be, by those that were; None: what ``args_type`` says.
    """

    def parse_and_run() -> None:
        args = parse(args_type, description=main.__doc__)
        default = preset(args)
        main(args if default is None else parse(args_type, description=main.__doc__, default=default))

    run(parse_and_run)


def parse(args_type: Any, **options: Any) -> Any:
    """The command line as an ``args_type``, a dataclass or a union of them; ``options`` are those of ``tyro.cli``.

    Raises:
        InputError: if there is an option that it does not have.
    """
    args, unknown = tyro.cli(args_type, return_unknown_args=True, **options)
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in _names(args)]
        raise InputError(f"unknown option {unknown[0]!r}{did_you_mean(unknown[0], known)}; --help lists the options")
    return args


def _names(args: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        yield prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from _names(value, f"{prefix}{field.name}.")


def run(main: Callable[[], None]) -> None:
    """Runs ``main``; wrong input and interrupts end as ``run_command`` says. SIGTERM interrupts as Ctrl-C does."""
    gc.freeze()  # what has been imported stays: to look it through again, at the exit too, would take half a second
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.excepthook = _report
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _report(raised: threading.ExceptHookArgs) -> None:
    """Leaves a thread's failure to write to the main thread, where TensorBoard's writer raises it again."""
    if not issubclass(raised.exc_type, OSError):
        threading.__excepthook__(raised)
