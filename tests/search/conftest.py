"""Searches that skip what most tests do not look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drawings import draw_nothing, report_nothing


@pytest.fixture(scope="module")
def without_drawings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def without_reports() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        report_nothing(patch)
        yield
