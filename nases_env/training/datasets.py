"""Built-in data sets: finding, downloading and reading their files."""

from __future__ import annotations

import http.client
import importlib.util
import logging
import os
import pickle
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.paths import absolute_path
from nases_env.training.data_cache import DataCache
from nases_env.training.image_folder import read_image_folder
from nases_env.training.image_io import shrink
from nases_env.training.image_set import ImageSet
from nases_env.training.image_size import ImageSize, require_image_size
from nases_env.training.own_images import read_own_images
from nases_env.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SECONDS = 20.0  # without a response from the server


@dataclass(frozen=True)
class Dataset:
    """A built-in data set.

    Attributes:
        name: key in ``DATASETS``.
        display_name: name in messages.
        flip: whether a horizontal flip preserves the class, so that it can be used for augmentation.
        source: function that reads the images.
        uses_data_dir: whether the images are read from a data directory.
    """

    name: str
    display_name: str
    flip: bool
    source: Source
    uses_data_dir: bool = True


@dataclass(frozen=True)
class _Request:
    dataset: Dataset
    train: bool
    data_dir: Path | None
    image_size: ImageSize | None
    download: bool


Source = Callable[[_Request], ImageSet]


def load_images(
    dataset: str,
    *,
    train: bool,
    data_dir: str | Path | None = None,
    image_size: ImageSize | None = None,
    download: bool = True,
) -> ImageSet:
    """Load the training or the test images of a data set.

    Results are cached in ``IMAGE_CACHE``: a second call with the same arguments returns the same object.

    Args:
        dataset: a key of ``DATASETS``.
        train: whether to load the training images or the test images; only their files are read.
        data_dir: the directory that contains the files, or that they are downloaded to. None: the environment variable
            NASES_DATA_DIR, otherwise ``~/.cache/nases/data``.
        image_size: larger images are shrunk until the longer side has this size in pixels; ``image_folder`` resizes all
            images, as ``target_size`` says. WIDTHxHEIGHT: all images are stretched to this size.
        download: whether missing files may be downloaded.

    Raises:
        InputError: if the data set is unknown, or its files are missing, damaged or invalid.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown data set {dataset!r}{did_you_mean(dataset, DATASETS)}; available: {', '.join(DATASETS)}")
    require_image_size(image_size)
    if data_dir is not None and not DATASETS[dataset].uses_data_dir:
        raise InputError(
            f"{dataset} does not read data_dir ({data_dir}), because its images are part of a library; omit it, or use "
            "NASES-ImageFolder-v0 (data set image_folder) for a directory of images"
        )
    return IMAGE_CACHE.get(_Request(DATASETS[dataset], train, resolve_data_dir(data_dir), image_size, download))


def resolve_data_dir(data_dir: str | Path | None) -> Path | None:
    """Return ``data_dir``, or the directory in the environment variable NASES_DATA_DIR; None if neither is set."""
    chosen_dir = data_dir or os.environ.get("NASES_DATA_DIR") or None
    return None if chosen_dir is None else absolute_path(chosen_dir)


def _load(request: _Request) -> ImageSet:
    images = request.dataset.source(request)
    return replace(images, images=shrink(images.images, request.image_size))


IMAGE_CACHE: DataCache[_Request, ImageSet] = DataCache(_load)
"""The images returned by recent calls to ``load_images`` in this process."""


def uses_flip(dataset: str, settings: TrainingSettings) -> bool:
    """Return whether training images are flipped at random: ``settings.flip``, or the default of ``dataset`` if None."""
    return DATASETS[dataset].flip if settings.flip is None else settings.flip


def _data_dir(request: _Request) -> Path:
    """Return the data directory, which must exist unless it is the default."""
    if request.data_dir is None:
        return absolute_path("~/.cache/nases/data")
    if not request.data_dir.is_dir():
        raise InputError(
            f"data_dir {request.data_dir} is not a directory; create it, or set data_dir or NASES_DATA_DIR to a different "
            "directory"
        )
    return request.data_dir


def _digits_table() -> NDArray[np.float64]:
    """Return a row per digit, shape (1797, 65): its 64 pixels and its label.

    The file of scikit-learn is read directly, because importing scikit-learn takes a second per process.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # for versions of scikit-learn that store the file elsewhere

    digits = load_digits()
    return np.column_stack((digits.data, digits.target))


def _read_digits(request: _Request) -> ImageSet:
    """Read scikit-learn's 1,797 digits, with values 0..16 scaled to 0..255.

    The data set has no predefined test split: every fifth image of each class, in file order, is a test image.
    """
    table = _digits_table()
    labels = torch.from_numpy(table[:, -1]).long()
    images = torch.from_numpy(np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        is_test[(labels == label).nonzero()[4::5]] = True
    chosen = ~is_test if request.train else is_test
    return ImageSet(images[chosen], labels[chosen], tuple(str(digit) for digit in range(10)))


def _read_image_folder(request: _Request) -> ImageSet:
    if request.data_dir is None:
        raise InputError(
            "image_folder requires a directory of images; set data_dir or NASES_DATA_DIR to one that contains "
            "train/<class>/ and test/<class>/ with PNG, JPEG or TIFF files, or .npy files, or to an .npz or .csv file"
        )
    return read_own_images(request.data_dir, train=request.train, image_size=request.image_size)


@dataclass(frozen=True)
class _Torchvision:
    """Source that reads a data set with torchvision, downloading it if necessary.

    Attributes:
        class_name: name of the class in ``torchvision.datasets``.
        train_files: the file or directory, relative to the data directory, that this class needs for the training images.
        test_files: the same for the test images.
        image_folder: alternative directory of images in train/<class>/ and test/<class>/, used if torchvision's files are
            missing; None: no alternative.
    """

    class_name: str
    train_files: str
    test_files: str
    image_folder: str | None = None

    def __call__(self, request: _Request) -> ImageSet:
        root = _data_dir(request)
        files = root / self._files(request.train)
        if not files.exists():
            if self.image_folder is not None and (root / self.image_folder).is_dir():
                return read_image_folder(root / self.image_folder, train=request.train, size=None)
            return self._download(request, root)
        try:
            return self._read(root, request.train, download=False)
        except (AssertionError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{request.dataset.display_name}: {files} is damaged or incomplete ({one_line(error)}); "
                "remove it and run again"
            ) from error

    def _files(self, train: bool) -> str:
        return self.train_files if train else self.test_files

    def _read(self, root: Path, train: bool, *, download: bool) -> ImageSet:
        import torchvision  # slow to import

        split = {"split": "train" if train else "test"} if self.class_name == "SVHN" else {"train": train}
        with warnings.catch_warnings():
            # CIFAR's pickles use dtypes of an older NumPy, and torchvision extracts archives without the filter that Python
            # 3.12 recommends, after verifying their checksum.
            warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
            warnings.filterwarnings("ignore", "Python 3.14 will, by default, filter extracted tar", DeprecationWarning)
            data = getattr(torchvision.datasets, self.class_name)(root, download=download, **split)
        images = torch.as_tensor(data.data)
        if images.dim() == 3:  # Fashion-MNIST: grayscale
            images = images[:, None]
        elif images.shape[-1] == 3:  # CIFAR: channels last
            images = images.permute(0, 3, 1, 2)
        labels = data.labels if hasattr(data, "labels") else data.targets
        class_names = data.classes if hasattr(data, "classes") else range(10)
        return ImageSet(images.contiguous(), torch.as_tensor(labels).long(), tuple(map(str, class_names)))

    def _download(self, request: _Request, root: Path) -> ImageSet:
        """Download to a temporary directory and move the complete files to ``root``."""
        files = self._files(request.train)
        expected = f"{files} (torchvision's files)"
        if self.image_folder is not None:
            expected += f" or {self.image_folder}/train/<class>/ and {self.image_folder}/test/<class>/ (PNG or JPEG)"
        reason = "downloading is disabled"
        if request.download:
            logger.info("downloading %s into %s", request.dataset.display_name, root)
            try:
                root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as staging, _socket_timeout():
                    image_set = self._read(Path(staging), request.train, download=True)
                    _move(Path(staging) / files, root / files)
                return image_set
            except (http.client.HTTPException, OSError, RuntimeError) as error:
                reason = f"the download failed: {one_line(error)}"
        raise InputError(
            f"{request.dataset.display_name} is not in {root}: expected {expected}, and {reason}; connect to the internet "
            "and run again, or set data_dir or NASES_DATA_DIR to a directory that contains it"
        )


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:
        if not target.exists():  # otherwise another process has downloaded the same files
            raise


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """Set the default timeout of sockets, because torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_CIFAR10 = _Torchvision("CIFAR10", "cifar-10-batches-py", "cifar-10-batches-py", image_folder="cifar10")
_CIFAR100 = _Torchvision("CIFAR100", "cifar-100-python", "cifar-100-python")
_FASHION_MNIST = _Torchvision("FashionMNIST", "FashionMNIST", "FashionMNIST")
_SVHN = _Torchvision("SVHN", "train_32x32.mat", "test_32x32.mat")

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("cifar10", "CIFAR-10", flip=True, source=_CIFAR10),
        Dataset("cifar100", "CIFAR-100", flip=True, source=_CIFAR100),
        Dataset("fashion_mnist", "Fashion-MNIST", flip=True, source=_FASHION_MNIST),
        Dataset("svhn", "SVHN", flip=False, source=_SVHN),
        Dataset("digits", "Digits", flip=False, source=_read_digits, uses_data_dir=False),
        Dataset("image_folder", "Image folder", flip=True, source=_read_image_folder),
    )
}
"""All built-in data sets, by name."""
