"""Named random generators, all derived from one seed.

Each component that draws random numbers requests its own stream by name. Changing the number of draws in one component
therefore does not affect the others.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

from nases_env.hashing import sha256_hex


@lru_cache(maxsize=1024, typed=True)  # typed: else 1.0 would be found as 1
def derive_seed(seed: int, *names: str) -> int:
    """Return the seed of the stream ``names`` of the run ``seed``: an integer in [0, 2**63), equal on all machines.

    Raises:
        TypeError: if ``seed`` is not an integer.
    """
    return int(sha256_hex("\x1f".join((str(operator.index(seed)), *names)))[:16], 16) >> 1


def numpy_generator(seed: int, *names: str) -> np.random.Generator:
    """Return a NumPy generator for the stream ``names`` of the run ``seed``."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str) -> torch.Generator:
    """Return a torch generator of the CPU for the stream ``names`` of the run ``seed``."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


@contextmanager
def seeded_torch(seed: int, *names: str) -> Iterator[None]:
    """Seed torch's global CPU generator, which torch's initializers use, with the stream ``names`` of the run ``seed``.

    Its previous state is restored on exit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *names))
        yield
