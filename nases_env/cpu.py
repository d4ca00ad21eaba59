"""How many CPU cores there are, and how many threads torch computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nases_env.errors import InputError


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Torch computes with ``num_threads`` CPU threads inside, and with as many as before afterwards.

    Raises:
        InputError: if there is not at least one.
    """
    if num_threads < 1:
        raise InputError(f"num_threads must be at least 1, not {num_threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
