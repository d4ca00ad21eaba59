"""Searches that skip what most tests do not look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def report_nothing(patch: pytest.MonkeyPatch) -> None:
    """Write no HTML report at the end of a search."""
    patch.setattr("nases_env.search.SearchRun._write_report", lambda run: None)


@pytest.fixture(scope="module")
def without_reports() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        report_nothing(patch)
        yield
