from __future__ import annotations

from collections.abc import Iterator

import pytest

from nases_env.training.data_cache import DataCache


def test_recent_and_added_values_are_kept() -> None:
    loaded: list[str] = []

    def load(key: str) -> list[str]:
        loaded.append(key)
        return [key]

    cache = DataCache(load, max_size=2)
    assert cache.get("a") is cache.get("a")
    cache.put("mine", ["added"])
    for key in ("b", "c", "a", "mine"):
        cache.get(key)
    assert loaded == ["a", "b", "c", "a"]
    assert cache.get("mine") == ["added"]
    assert "mine" in cache
    assert "a" not in cache  # loaded, not added
    cache.clear()
    assert cache.get("mine") == ["mine"]
    assert cache.get("a") == ["a"]
    assert loaded == ["a", "b", "c", "a", "mine", "a"]


def test_errors_are_not_cached() -> None:
    values: Iterator[Exception | int] = iter([ValueError("unavailable"), 1])

    def load(key: str) -> int:
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    cache = DataCache(load)
    with pytest.raises(ValueError, match="unavailable"):
        cache.get("a")
    assert cache.get("a") == 1
