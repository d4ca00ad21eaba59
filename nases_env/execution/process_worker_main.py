"""Main program of a worker process: evaluates the children that its parent sends, one after another.

``process_worker.py`` runs this file as a script, not as a module, because the process must be bound to its parent before the
imports, which take seconds, and receives the import path of its parent only after that.

    python process_worker_main.py CONNECTION PARENT    # a file descriptor, and the pid of the parent
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
    """Load the evaluator, then evaluate children until the parent ends."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _exit_with_parent(parent)
    os.set_inheritable(descriptor, False)
    connection: Connection[Any, Any] = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, parent, inbox), daemon=True).start()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    gc.disable()  # imports create no garbage, and collecting it would take a third of the time
    sys.path, configuration = pickle.loads(inbox.get())
    evaluator: Any = None

    def load() -> None:
        nonlocal evaluator
        evaluator = _load(configuration)
        evaluator.prepare()

    _send_result(connection, load)
    gc.freeze()
    gc.enable()
    while True:
        task, log = pickle.loads(inbox.get())
        _write_to(log)
        _send_result(connection, lambda: task.run(evaluator))  # noqa: B023 - called immediately


def _exit_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, even if it is stopped or busy (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it had died before
        os._exit(1)


def _read(connection: Connection[Any, Any], parent: int, inbox: queue.SimpleQueue[bytes]) -> None:
    """Read messages from the parent. When the parent dies, kill this process and its subprocesses."""
    try:
        while os.getppid() == parent:
            if connection.poll(_PARENT_SECONDS):
                inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        pass
    if sys.platform != "win32":  # on which this program is not started
        os.killpg(0, signal.SIGKILL)


def _load(configuration: bytes) -> Any:
    from nases_env.errors import InputError

    try:
        return pickle.loads(configuration)
    except Exception as error:  # imports may raise any exception
        raise InputError(
            f"a worker process cannot load the evaluator ({describe(error)}); define it in an importable module, "
            "or use --executor serial"
        ) from error


def _send_result(connection: Connection[Any, Any], work: Callable[[], Any]) -> None:
    """Call ``work`` and send ("done", result), ("input_error", line) or ("raised", line)."""
    from nases_env.errors import InputError

    try:
        result = work()
        flush()
        connection.send(("done", result))
    except InputError as error:
        flush()
        connection.send(("input_error", str(error)))
    except BaseException as error:  # evaluators may raise any exception
        traceback.print_exc()
        flush()
        connection.send(("raised", describe(error)))


def describe(error: BaseException) -> str:
    """Return the type and the message of ``error`` in one line."""
    text = textwrap.shorten(str(error), _MAX_REASON)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _write_to(log: str | os.PathLike[str]) -> None:
    """Append all output of this process, including that of C code, to the file ``log``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def flush() -> None:
    """Write all output of this process, including that of C code."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    main()
