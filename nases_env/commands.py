"""How every command of this project reads its arguments and ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import tyro

from nases_env.errors import InputError

Args = TypeVar("Args")


def run_command(args_type: type[Args], main: Callable[[Args], None]) -> None:
    """Parses the command line into ``args_type`` and runs ``main``.

    Wrong input ends in one line on standard error and exit status 2, an interrupt in exit status 130.
    """
    args = tyro.cli(args_type, description=main.__doc__)
    run(lambda: main(args))


def run(main: Callable[[], None]) -> None:
    """Runs ``main``; wrong input and interrupts end as ``run_command`` says. SIGTERM interrupts as Ctrl-C does."""
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
