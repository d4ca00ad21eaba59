"""CPU cores and the number of threads torch uses."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nases_env.errors import InputError, require_minimum

MAX_THREADS = 1024  # OpenMP ends the process if it cannot create a thread


def num_cores() -> int:
    """Return the number of CPU cores available to this process, given its affinity and the CPU quota of its container."""
    import joblib  # slow to import

    return int(joblib.cpu_count())


def cpu_name() -> str:
    """Return the model of the processor, as far as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # only Linux has this file
        lines = []
    models = (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name")
    return next(models, platform.processor()) or f"{platform.machine()} CPU"


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Set the number of torch's CPU threads to ``num_threads`` inside the context and restore it afterwards.

    Raises:
        InputError: if ``num_threads`` is less than 1 or too large.
    """
    require_minimum(1, num_threads=num_threads)
    if num_threads > MAX_THREADS:
        raise InputError(f"num_threads must be at most {MAX_THREADS}, not {num_threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
