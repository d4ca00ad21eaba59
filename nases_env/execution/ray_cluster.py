"""The connection of this process to a Ray cluster, and clusters on this machine."""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from nases_env.cpu import num_cores
from nases_env.errors import InputError
from nases_env.execution.process_worker_main import describe
from nases_env.signals import INTERRUPTS

try:
    ray: Any = importlib.import_module("ray")  # imported by name, because parts of it have no type annotations
except ImportError as error:
    raise InputError("the executor ray needs Ray: pip install 'nases-env[ray]'") from error

_CHECK_SECONDS = 1.0
_LOST_SECONDS = 20.0
"""Maximum time that the head node may be unreachable. After 60 s Ray would end this process without an exception."""


class _Connection:
    """The connection of this process to Ray, shared by all workers; if they opened it, the last one closes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._num_users = 0
        self._is_own = False
        self._address: str | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of a cluster on this machine
        self._next_check = 0.0
        self._unreachable_since: float | None = None

    def open(self, address: str | None) -> None:
        with self._lock:
            if self._num_users == 0:
                self._is_own = not ray.is_initialized()
                self._address = address if self._is_own else None
                if self._is_own:
                    self._folder = _init(address)
            known = (None, self._address, _gcs_address())
            if address not in known:
                raise InputError(
                    f"this process is already connected to the Ray cluster at {_gcs_address()}, not to {address}; "
                    "omit ray_address or use another process"
                )
            self._num_users += 1

    def retain(self) -> None:
        with self._lock:
            self._num_users += 1

    def close(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and self._is_own:
                ray.shutdown()
                if self._folder is not None:
                    self._folder.cleanup()

    def check(self) -> None:
        """Check whether the head node is reachable, at most once per second.

        Raises:
            InputError: if it has been unreachable for ``_LOST_SECONDS``.
        """
        with self._lock:
            if time.monotonic() < self._next_check:
                return
            now = time.monotonic()
            if _is_reachable(_gcs_address()):
                self._unreachable_since = None
            elif self._unreachable_since is None:
                self._unreachable_since = now
            elif now - self._unreachable_since > _LOST_SECONDS:
                raise InputError(
                    f"the Ray cluster at {_gcs_address()} is unreachable; restart it, then start again, or resume the "
                    "search with --resume"
                )
            self._next_check = now + _CHECK_SECONDS


connection = _Connection()

_INIT_OPTIONS = {"log_to_driver": False, "logging_level": logging.ERROR}
_CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable that Ray reads on every system: whether a cluster may have several machines."""


def _init(address: str | None) -> tempfile.TemporaryDirectory[str] | None:
    """Join the cluster at ``address``, or start one on this machine and return the directory of its files."""
    if address is None:
        return start_cluster()
    if "://" in address:
        raise InputError(f"the Ray address must be HOST:PORT of a cluster with a node on this machine, not {address}")
    if address != "auto" and not _is_reachable(address):
        raise InputError(f"there is no Ray cluster at {address}; start one with ray start --head, or omit ray_address")
    try:
        with _keep_signal_handlers():
            ray.init(address=address, **_INIT_OPTIONS)
    except Exception as error:  # Ray raises many types, including bare Exception
        raise InputError(
            f"cannot join the Ray cluster at {address} ({describe(error)}); this machine must be one of its nodes, "
            "and a cluster with a token requires RAY_AUTH_MODE=token"
        ) from error
    return None


def start_cluster(**options: Any) -> tempfile.TemporaryDirectory[str]:
    """Start a cluster on this machine that listens on the loopback interface only.

    Args:
        **options: passed to ``ray.init``.

    Returns:
        The directory of its files, which only this user can read, to remove after ``ray.shutdown``.

    Raises:
        InputError: if Ray cannot be started.
    """
    # The path of a socket may have about 100 characters, so the folder is in /tmp on macOS, as Ray's is.
    parent = os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else None)
    folder = tempfile.TemporaryDirectory(prefix="nases-", dir=parent, ignore_cleanup_errors=True)
    try:
        with _keep_signal_handlers(), _loopback_only():
            # Ray makes its directory writable for all users, so it is inside of one that is not.
            files = os.path.join(folder.name, "ray")
            options |= {"num_cpus": num_cores(), "include_dashboard": False, "_temp_dir": files, **_INIT_OPTIONS}
            ray.init(address="local", **options)
    except Exception as error:  # Ray raises many types, including bare Exception
        folder.cleanup()
        raise InputError(
            f"cannot start Ray on this machine ({describe(error)}); check its memory and free disk space, "
            "or use --executor processes"
        ) from error
    return folder


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a cluster that is started in this context listen on the loopback interface only, as Ray does on macOS and Windows.

    Raises:
        RuntimeError: if this version of Ray listens on another interface anyway.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before, variable = constants.ENABLE_RAY_CLUSTER, os.environ.get(_CLUSTER_VARIABLE)
    constants.ENABLE_RAY_CLUSTER, os.environ[_CLUSTER_VARIABLE] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_CLUSTER_VARIABLE]
        if variable is not None:
            os.environ[_CLUSTER_VARIABLE] = variable
    address = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        ray.shutdown()
        raise RuntimeError(f"it would listen on {address}; install Ray 2.60")


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers of this process, because ``ray.init`` replaces that of SIGTERM, in Python and in C."""
    numbers = INTERRUPTS if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _gcs_address() -> str:
    """Return HOST:PORT of the head node of the cluster."""
    address: str = ray.get_runtime_context().gcs_address
    return address


def _is_reachable(address: str | None) -> bool:
    host, _, port = str(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False
