"""Steps that an interrupt must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_signals(*numbers: signal.Signals) -> Iterator[None]:
    """SIGINT and SIGTERM, or the signals given, that arrive inside are handled at the end, as they would have been.

    A ``KeyboardInterrupt`` in the middle of a record would leave it half written, and one that strikes while compiled code
    calls back into Python may come out of it as some other error. Signals that are ignored, or that end the process, stay
    so. Only the main thread handles signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in numbers or (signal.SIGINT, signal.SIGTERM)}
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
