"""Downloads with torchvision from a local server."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from nases_env.errors import InputError
from nases_env.training import load_images
from tests.serving import Server, serve_cifar, serve_fashion_mnist, serve_svhn

# torchvision does not close the responses of failed requests.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def collect_unclosed_responses() -> Iterator[None]:
    """Collect garbage while the warnings about unclosed responses are ignored."""
    gc.freeze()  # exclude older objects, which would take half a second to collect
    yield
    gc.collect()


def message_of(dataset: str, data_dir: Path, *, download: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        load_images(dataset, train=True, data_dir=data_dir, download=download)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("dataset", "class_name"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: str, class_name: str) -> None:
    expected = serve_cifar(server, monkeypatch, class_name)
    image_set = load_images(dataset, train=True, data_dir=tmp_path)
    assert np.array_equal(image_set.images.numpy(), expected)
    assert image_set.labels.tolist() == [3, 1, 2, 0] * (len(expected) // 4)
    assert image_set.class_names[:2] == ("class 0", "class 1")

    num_requests = server.num_requests
    test = load_images(dataset, train=False, data_dir=tmp_path)
    assert len(test) == 4
    assert server.num_requests == num_requests


def test_fashion_mnist(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = serve_fashion_mnist(server, monkeypatch)
    image_set = load_images("fashion_mnist", train=True, data_dir=tmp_path)
    assert np.array_equal(image_set.images[:, 0].numpy(), expected)
    assert image_set.labels.tolist() == [0, 9, 3, 3, 1]
    assert image_set.class_names[9] == "Ankle boot"
    assert load_images("fashion_mnist", train=True, data_dir=tmp_path, image_size=14).image_shape == (1, 14, 14)


def test_svhn_downloads_only_the_requested_split(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = serve_svhn(server, monkeypatch)
    image_set = load_images("svhn", train=True, data_dir=tmp_path)
    assert np.array_equal(image_set.images.numpy(), expected.transpose(3, 2, 0, 1))
    assert image_set.labels.tolist() == [0, 1, 9, 2]
    assert image_set.class_names == tuple("0123456789")
    assert [path.name for path in tmp_path.glob("*.mat")] == ["train_32x32.mat"]


def test_default_folder_is_created(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_svhn(server, monkeypatch)
    assert len(load_images("svhn", train=True)) == 4
    assert (Path.home() / ".cache/nases/data/train_32x32.mat").is_file()


def test_torchvision_files_take_precedence_over_image_folder(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = serve_cifar(server, monkeypatch, "CIFAR10")
    load_images("cifar10", train=True, data_dir=tmp_path)
    (tmp_path / "cifar10").mkdir()
    monkeypatch.setattr("nases_env.training.datasets.read_image_folder", None)
    assert len(load_images("cifar10", train=True, data_dir=tmp_path, image_size=31)) == len(expected)


def test_download_can_be_disabled(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_fashion_mnist(server, monkeypatch)
    assert "downloading is disabled" in message_of("fashion_mnist", tmp_path, download=False)
    assert server.num_requests == 0


def test_failed_download_leaves_no_files_and_can_be_repeated(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_cifar(server, monkeypatch, "CIFAR10")
    path = "/cifar-10-python.tar.gz"
    whole = server.files.pop(path)
    assert "the download failed: HTTP Error 404" in message_of("cifar10", tmp_path)
    server.files[path] = whole[:100]
    assert "the download failed: File not found or corrupted" in message_of("cifar10", tmp_path)
    assert list(tmp_path.glob("*")) == []
    server.files[path] = whole
    assert len(load_images("cifar10", train=True, data_dir=tmp_path)) == 20


def test_partial_download_leaves_no_files(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_fashion_mnist(server, monkeypatch)
    whole = server.files.pop("/t10k-labels-idx1-ubyte.gz")
    assert "the download failed" in message_of("fashion_mnist", tmp_path)
    assert list(tmp_path.glob("*")) == []
    server.files["/t10k-labels-idx1-ubyte.gz"] = whole
    assert len(load_images("fashion_mnist", train=True, data_dir=tmp_path)) == 5


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "fashion_mnist", "svhn"])
def test_missing_network_is_an_input_error(dataset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    message = message_of(dataset, tmp_path)
    assert "Name or service not known" in message
    assert "connect to the internet and run again, or set data_dir or NASES_DATA_DIR" in message
    assert list(tmp_path.glob("*")) == []


def test_silent_server_times_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nases_env.training.datasets.DOWNLOAD_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/train.mat"
        entries = {"train": [url, "train_32x32.mat", "0"], "test": [url, "test_32x32.mat", "0"]}
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", entries)
        assert "the download failed: timed out" in message_of("svhn", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_unwritable_folder_is_an_input_error(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_svhn(server, monkeypatch)
    Path.home().write_text("not a folder")
    with pytest.raises(InputError, match=r"the download failed: .*Not a directory"):
        load_images("svhn", train=True)


@pytest.mark.parametrize("dataset", ["cifar10", "fashion_mnist", "svhn"])
def test_damaged_files_are_an_error(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: str) -> None:
    serve_cifar(server, monkeypatch, "CIFAR10")
    serve_fashion_mnist(server, monkeypatch)
    serve_svhn(server, monkeypatch)
    found = {
        "cifar10": ("cifar-10-batches-py", "data_batch_1"),
        "fashion_mnist": ("FashionMNIST", "train-images-idx3-ubyte"),
        "svhn": ("train_32x32.mat", "train_32x32.mat"),
    }
    files, damaged = found[dataset]
    load_images(dataset, train=True, data_dir=tmp_path)
    (path,) = tmp_path.rglob(damaged)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(InputError, match="damaged or incomplete") as caught:
        load_images(dataset, train=True, data_dir=tmp_path, image_size=5)
    assert f"{tmp_path / files} is damaged or incomplete" in str(caught.value)
    assert "remove it and run again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_concurrent_downloads_both_succeed(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_fashion_mnist(server, monkeypatch)
    read = torchvision.datasets.FashionMNIST.__init__

    def read_while_another_finishes(self: Any, root: Path, **options: Any) -> None:
        read(self, root, **options)
        if options["download"]:
            (tmp_path / "FashionMNIST").mkdir()
            (tmp_path / "FashionMNIST/raw").mkdir()

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "__init__", read_while_another_finishes)
    image_set = load_images("fashion_mnist", train=True, data_dir=tmp_path)
    assert torch.equal(image_set.labels, torch.tensor([0, 9, 3, 3, 1]))
    assert [path.name for path in tmp_path.glob("*")] == ["FashionMNIST"]
