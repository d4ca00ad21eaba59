"""Named random generators that all descend from one seed.

Two parts of the code that draw random numbers never share a stream, so that a change in one does not shift the other:
each asks for a generator by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *names: str) -> int:
    """A seed for the stream ``names`` of the run ``seed``: an integer in [0, 2**63), the same on every machine."""
    text = "\x1f".join((str(int(seed)), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str) -> np.random.Generator:
    """A NumPy generator for the stream ``names`` of the run ``seed``."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on ``device`` for the stream ``names`` of the run ``seed``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


@contextmanager
def seeded_torch(seed: int, *names: str) -> Iterator[None]:
    """Torch's global generator of the CPU is one for the stream ``names`` inside, and as it was afterwards.

    It is what torch's initialisers draw from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        yield
