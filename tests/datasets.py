"""Tiny data sets for the environments that train children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server, serve_cifar, serve_fashion_mnist, serve_svhn
from tests.training.images import write_folder


class TinyDatasets:
    """Provide a few images for each environment."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._server = server
        self._monkeypatch = monkeypatch
        self._folder = folder

    def options(self, env_id: str) -> dict[str, Any]:
        """Write or serve the images of an environment and return the options that select them."""
        if env_id in ("NASES-Digits-v0", "NASES-Synthetic-v0"):
            return {}
        if env_id == "NASES-CIFAR10-v0":
            serve_cifar(self._server, self._monkeypatch, "CIFAR10")
        elif env_id == "NASES-CIFAR100-v0":
            serve_cifar(self._server, self._monkeypatch, "CIFAR100")
        elif env_id == "NASES-FashionMNIST-v0":
            serve_fashion_mnist(self._server, self._monkeypatch)
        elif env_id == "NASES-SVHN-v0":
            serve_svhn(self._server, self._monkeypatch)
        else:
            write_folder(self._folder)
        return {"data_dir": str(self._folder)}
