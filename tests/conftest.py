"""Shared fixtures: isolated caches, a single thread, and tiny data sets."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from nases_env.evaluation.training import SPLIT_CACHE
from nases_env.training.datasets import IMAGE_CACHE
from tests.datasets import TinyDatasets
from tests.drawings import reuse_drawings
from tests.execution.forked import fork_workers
from tests.processes import processes
from tests.serving import Server, server
from tests.small_sizes import reduce_children, reduce_samples, reuse_times

__all__ = ["server"]

hypothesis.settings.register_profile("nases", hypothesis.settings(), deadline=None)  # tests assert no times
hypothesis.settings.load_profile("nases")
gc.disable()  # while tests are imported, which saves a third of the import time
gc.set_threshold(50_000)  # the default, 700, costs 8% of the time of tests with torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of Ray first: they mostly wait, and `.ci/run` checks lint and types during that time."""
    items.sort(key=lambda item: "test_ray_worker" not in item.nodeid)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def shared_between_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share drawings, times and matplotlib's list of fonts, which is in the home folder by default; hurry Ray."""
    with pytest.MonkeyPatch.context() as patch:
        reuse_drawings(patch)
        reuse_times(patch)
        patch.setattr("nases_env.model_io.export_timing.ROUND_SECONDS", 0.0)
        patch.setattr("nases_env.retraining.timing.NUM_NETWORKS", 1)
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        # Ray gives its workers the lowest priority, so that they hardly start while another test uses the processor.
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def few_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        reduce_samples(patch)
        yield


@pytest.fixture(scope="module")
def tiny_children() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        reduce_children(patch)
        yield


@pytest.fixture
def forked_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of ``multiprocessing``, which saves the time of their imports."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: processes)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the worker processes of the executor ``processes``, which saves the time of their imports."""
    fork_workers(monkeypatch)


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home / "user"))
    monkeypatch.setenv("NASES_CACHE_DIR", str(home / "cache"))
    monkeypatch.delenv("NASES_DATA_DIR", raising=False)
    for table in ("NASBENCH201", "NASBENCH201_LATENCY", "TRANSNAS", "ACCEL"):
        monkeypatch.delenv(f"NASES_{table}_TABLE", raising=False)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
    IMAGE_CACHE.clear()
    SPLIT_CACHE.clear()


@pytest.fixture
def tiny_datasets(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyDatasets:
    return TinyDatasets(server, monkeypatch, tmp_path)
