"""A local server of tiny archives in the formats that torchvision downloads."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision
from numpy.typing import NDArray


class Server:
    """Serves ``files`` by path and counts the requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.num_requests = 0
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.num_requests += 1
                content = served.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class OldDtype:
    """Pickle like the uint8 dtype of the NumPy version that wrote CIFAR."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


class OldArray:
    """Pickle like a uint8 array of the NumPy version that wrote CIFAR."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        empty = (np.ndarray, (0,), b"b")
        return (
            importlib.import_module("numpy._core.multiarray")._reconstruct,
            empty,
            (1, self.array.shape, OldDtype(), False, self.array.tobytes()),
        )


def serve_cifar(server: Server, monkeypatch: pytest.MonkeyPatch, class_name: str) -> NDArray[np.uint8]:
    """Serve a tiny CIFAR archive and return its training images, shape (N, 3, 32, 32)."""
    cls = getattr(torchvision.datasets, class_name)
    rng = np.random.default_rng(0)
    fine = class_name == "CIFAR100"
    names = [f"class {label}" for label in range(100 if fine else 10)]
    members: dict[str, bytes] = {cls.meta["filename"]: pickle.dumps({cls.meta["key"]: names}, protocol=2)}
    train = []
    for name, _ in cls.train_list + cls.test_list:
        data = rng.integers(256, size=(4, 3 * 32 * 32), dtype=np.uint8)
        if (name, _) not in [tuple(entry) for entry in cls.test_list]:
            train.append(data)
        labels = {"fine_labels" if fine else "labels": [3, 1, 2, 0]}
        members[name] = pickle.dumps({"data": OldArray(data), **labels}, protocol=2)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    server.files["/" + cls.filename] = archive.getvalue()
    # Set on the class itself, because CIFAR100 inherits from CIFAR10.
    monkeypatch.setattr(cls, "url", server.url + cls.filename)
    monkeypatch.setattr(cls, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr(cls, "train_list", [[name, md5(members[name])] for name, _ in cls.train_list])
    monkeypatch.setattr(cls, "test_list", [[name, md5(members[name])] for name, _ in cls.test_list])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(members[cls.meta["filename"]])})
    return np.concatenate(train).reshape(-1, 3, 32, 32)


def serve_fashion_mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """Serve tiny Fashion-MNIST files and return the images, shape (N, 28, 28)."""
    cls = torchvision.datasets.FashionMNIST
    images = np.random.default_rng(1).integers(256, size=(5, 28, 28), dtype=np.uint8)
    resources = []
    for name, _ in cls.resources:
        if "images" in name:
            content = struct.pack(">IIII", 0x803, 5, 28, 28) + images.tobytes()
        else:
            content = struct.pack(">II", 0x801, 5) + bytes([0, 9, 3, 3, 1])
        server.files["/" + name] = gzip.compress(content)
        resources.append((name, md5(server.files["/" + name])))
    monkeypatch.setattr(cls, "mirrors", [server.url])
    monkeypatch.setattr(cls, "resources", resources)
    return images


def serve_svhn(server: Server, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """Serve tiny SVHN files and return the images, shape (32, 32, 3, N)."""
    images = np.random.default_rng(2).integers(256, size=(32, 32, 3, 4), dtype=np.uint8)
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": images, "y": np.array([[10], [1], [9], [2]], dtype=np.uint8)})
    entries = {}
    for split in ("train", "test"):
        name = f"{split}_32x32.mat"
        server.files["/" + name] = file.getvalue()
        entries[split] = [server.url + name, name, md5(file.getvalue())]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", entries)
    return images
