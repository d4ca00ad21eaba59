"""The signals that interrupt a command, and their deferral during steps that must not be interrupted."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
"""Signals that interrupt a command: Ctrl-C, a request to end, and, except on Windows, a closed terminal."""

if sys.platform != "win32":
    INTERRUPTS = (*INTERRUPTS, signal.SIGHUP)


@contextmanager
def defer_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Defer signals that arrive inside the context; their handler runs on exit, unless the context raises an exception.

    A ``KeyboardInterrupt`` in the middle of a write would leave it incomplete, and one raised while compiled code calls
    back into Python may surface as a different error. Signals that are ignored or have the default action are not
    deferred. Only the main thread handles signals; in other threads this has no effect.

    Args:
        *numbers: the signals to defer; ``INTERRUPTS`` by default.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in numbers or INTERRUPTS}
    deferred = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in deferred:
        signal.signal(number, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in deferred.items():
            signal.signal(number, handler)
    for arrived, frame in received[:1]:
        deferred[signal.Signals(arrived)](arrived, frame)
