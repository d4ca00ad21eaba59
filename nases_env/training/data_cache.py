"""In-memory cache of loaded data."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class DataCache(Generic[Key, Value]):
    """Cache of the results of a function: the results for the most recent keys, and the values added with ``put``.

    Args:
        load: function that loads the value of a key. Exceptions are not cached.
        max_size: number of loaded values to keep.
    """

    def __init__(self, load: Callable[[Key], Value], max_size: int = 4) -> None:
        self._load = lru_cache(max_size)(load)
        self._added: dict[Key, Value] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether a value was added for ``key``."""
        return key in self._added

    def get(self, key: Key) -> Value:
        """Return the value of ``key``, loading it if necessary."""
        return self._added[key] if key in self._added else self._load(key)

    def put(self, key: Key, value: Value) -> None:
        """Add a value, which is kept until ``clear``."""
        self._added[key] = value

    def clear(self) -> None:
        """Remove all values."""
        self._load.cache_clear()
        self._added.clear()
