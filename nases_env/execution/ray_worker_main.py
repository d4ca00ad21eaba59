"""Code that runs in the worker processes of a Ray cluster: the evaluation of a child, and its log."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from nases_env.errors import InputError
from nases_env.evaluation import Evaluator
from nases_env.execution.executor import Task
from nases_env.execution.process_worker_main import describe, flush
from nases_env.execution.ray_cluster import ray
from nases_env.execution.remote_device import require_gpu

_LOG_BYTES = 2**20
"""Maximum size of a log; only the end of a longer output is kept."""


class TaskLocation(NamedTuple):
    """Where a task runs; the first object that it yields.

    Attributes:
        node: Ray's id of the node.
        host: address of the node.
        log: path of the child's log on that node.
    """

    node: str
    host: str
    log: str


_loaded: tuple[str, Evaluator] | None = None
"""The identifier and the evaluator of the previous task of this process."""


def evaluate(pickled: bytes, shared: Any, task: bytes, search_path: list[str], working_dir: str) -> Iterator[Any]:
    """Evaluate one child.

    Yields:
        A ``TaskLocation``; then ("done", evaluation, log), ("input_error", line, log) or ("raised", line, log).
    """
    handle, path = tempfile.mkstemp(prefix="nases-", suffix=".log")
    try:
        yield TaskLocation(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), path)
        if not ray.get_gpu_ids():  # Ray does not hide GPUs from a task that requests none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        sys.path += [folder for folder in search_path if folder not in sys.path]
        if os.path.isdir(working_dir):  # it may not exist on another machine
            os.chdir(working_dir)
        with _redirect_output(handle):
            kind, value = _outcome(pickled, shared, task)
    finally:
        os.close(handle)
    yield kind, value, read_log(path)


def _outcome(pickled: bytes, shared: Any, task: bytes) -> tuple[str, Any]:
    try:
        if ray.get_gpu_ids():
            require_gpu("check its driver, and the number of GPUs with which its Ray node was started")
        evaluator, loaded_task = _load(pickled, shared, task)
        return "done", loaded_task.run(evaluator)
    except InputError as error:
        return "input_error", str(error)
    except BaseException as error:  # evaluators may raise any exception
        traceback.print_exc()
        return "raised", describe(error)


def _load(pickled: bytes, shared: Any, task: bytes) -> tuple[Evaluator, Task]:
    global _loaded
    try:
        loaded_task = pickle.loads(task)
        identifier, evaluator = pickle.loads(pickled)
    except Exception as error:  # imports may raise any exception
        raise InputError(
            f"a Ray worker cannot load the evaluator ({describe(error)}); install its modules on every node"
        ) from error
    if _loaded is None or _loaded[0] != identifier:
        if shared is None:
            evaluator.prepare()
        else:
            evaluator.import_data(shared)
        _loaded = identifier, evaluator
    return _loaded[1], loaded_task


@contextlib.contextmanager
def _redirect_output(descriptor: int) -> Iterator[None]:
    """Redirect all output of this process, including that of C code and of ``logging``, to ``descriptor``."""
    flush()
    before = {standard: os.dup(standard) for standard in (1, 2)}
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for standard in before:
        os.dup2(descriptor, standard)
    try:
        yield
    finally:
        flush()
        for standard, copy in before.items():
            os.dup2(copy, standard)
            os.close(copy)
        root.setLevel(level)
        root.removeHandler(handler)


def read_log(path: str) -> bytes:
    """Return the end of the file ``path`` and delete the file."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _LOG_BYTES))
        log = file.read()
    os.unlink(path)
    return log
