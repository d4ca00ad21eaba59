from __future__ import annotations

import pytest

from nases_env.cpu import num_cores


def test_number_of_cores_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_cores() >= 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as the quota of a container does
    assert num_cores() == 1
