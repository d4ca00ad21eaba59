"""Libraries that do not close what they open."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def collected_garbage() -> Iterator[None]:
    """Collect garbage at the end of the module, whose tests ignore the warnings of it."""
    yield
    gc.collect()
