"""What runs in a worker process: it evaluates the children that its parent sends, one after another.

``processes.py`` starts this file as a script, not as a module: it has to be bound to its parent before the imports that take
seconds, and only then is it told where the parent imports from.

    python process_worker_main.py CONNECTION PARENT    # a file descriptor, and the parent's process id
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import pickle
import queue
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PARENT_SECONDS = 1.0
_MAX_REASON = 300


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    connection: Connection[Any, Any] = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, parent, inbox), daemon=True).start()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    gc.disable()  # nothing that is imported is rubbish: to look for it would take a third of the time
    sys.path, configuration = pickle.loads(inbox.get())
    evaluator: Any = None

    def load() -> None:
        nonlocal evaluator
        evaluator = _load(configuration)
        evaluator.prepare()

    _answer(connection, load)
    gc.freeze()
    gc.enable()
    while True:
        task, log = pickle.loads(inbox.get())
        _write_to(log)
        _answer(connection, lambda: evaluator.evaluate(task.architecture, task.seed))  # noqa: B023 - it is called at once


def _die_with(parent: int) -> None:
    """Has the system end this process with its parent, even where it is stopped or busy; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _read(connection: Connection[Any, Any], parent: int, inbox: queue.SimpleQueue[bytes]) -> None:
    """Reads what the parent sends; ends this process and those that it started once the parent is gone."""
    try:
        while os.getppid() == parent:
            if connection.poll(_PARENT_SECONDS):
                inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        pass
    os.killpg(0, signal.SIGKILL)


def _load(configuration: bytes) -> Any:
    from nases_env.errors import InputError

    try:
        return pickle.loads(configuration)
    except Exception as error:  # whatever a module may raise when it is imported
        raise InputError(
            f"a worker process cannot load the evaluator ({_describe(error)}); put it into a module that can be imported, "
            "or use --executor serial"
        ) from error


def _answer(connection: Connection[Any, Any], work: Callable[[], Any]) -> None:
    """Does ``work`` and sends what came of it: ("done", result), ("input_error", line) or ("raised", line)."""
    from nases_env.errors import InputError

    try:
        result = work()
        _flush()
        connection.send(("done", result))
    except InputError as error:
        _flush()
        connection.send(("input_error", str(error)))
    except BaseException as error:  # whatever an evaluator may raise
        traceback.print_exc()
        _flush()
        connection.send(("raised", _describe(error)))


def _describe(error: BaseException) -> str:
    text = textwrap.shorten(str(error), _MAX_REASON)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _write_to(log: str | os.PathLike[str]) -> None:
    """Has all output of this process, that of C code too, appended to the file ``log``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    main()
