"""Interrupts of code under test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def interrupted_after(wait: Callable[[], object]) -> Iterator[None]:
    """Send SIGINT to this process when ``wait`` returns; the body must raise ``KeyboardInterrupt``."""

    def interrupt() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
