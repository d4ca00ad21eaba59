"""The data sets by name, and where their files are found."""

from __future__ import annotations

import difflib
import http.client
import importlib.util
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nases_env.errors import InputError
from nases_env.training.image_folder import read_image_folder
from nases_env.training.image_set import ImageSet
from nases_env.training.resizing import shrink
from nases_env.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SECONDS = 20.0  # how long a silent server is waited for
FOLDER_IMAGE_SIZE = 32  # pixels; the side of image_folder's images unless another is asked for


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is read.

    Attributes:
        name: its key in ``DATASETS``.
        title: its name in messages.
        flip: whether a mirrored image still shows its class, so that mirroring suits the training.
        source: how it is read.
    """

    name: str
    title: str
    flip: bool
    source: Source


@dataclass(frozen=True)
class _Request:
    dataset: Dataset
    train: bool
    data_dir: Path | None
    image_size: int | None
    download: bool


Source = Callable[[_Request], ImageSet]


def load_images(
    dataset: str,
    *,
    train: bool,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = True,
) -> ImageSet:
    """The training or the test images of a data set; the other half is not read.

    The result is cached in this process: a second call with the same arguments returns the same object.

    Args:
        dataset: a key of ``DATASETS``.
        data_dir: the folder that holds the files, or that they are downloaded into; None: the environment variable
            NASES_DATA_DIR, else ``~/.cache/nases/data``.
        image_size: larger images are shrunk to this side in pixels, smaller ones stay as they are; ``image_folder`` resizes
            every image to exactly image_size x image_size, 32 x 32 by default.
        download: whether files that are missing may be downloaded.

    Raises:
        InputError: if the data set is unknown, or its files are missing, damaged or not as they should be.
    """
    if dataset not in DATASETS:
        nearest = difflib.get_close_matches(dataset, DATASETS, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise InputError(f"unknown data set {dataset!r}; {hint}known: {', '.join(DATASETS)}")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}; it must be at least 1 pixel")
    named = data_dir or os.environ.get("NASES_DATA_DIR") or None
    folder = None if named is None else Path(named).expanduser().absolute()
    return _load(_Request(DATASETS[dataset], train, folder, image_size, download))


@lru_cache(maxsize=4)
def _load(request: _Request) -> ImageSet:
    images = request.dataset.source(request)
    return ImageSet(shrink(images.images, request.image_size), images.labels, images.class_names)


def mirrors(dataset: str, settings: TrainingSettings) -> bool:
    """Whether half of the images are mirrored in training: as ``settings`` say, or else as suits ``dataset``."""
    return DATASETS[dataset].flip if settings.flip is None else settings.flip


def _data_dir(request: _Request) -> Path:
    """The folder of the files. One that a person named must exist; the default folder may not exist yet."""
    if request.data_dir is None:
        return Path.home() / ".cache" / "nases" / "data"
    if not request.data_dir.is_dir():
        raise InputError(
            f"data_dir {request.data_dir} is not a folder; create it, or set data_dir or NASES_DATA_DIR to another"
        )
    return request.data_dir


def _digits_table() -> NDArray[np.float64]:
    """A row for each digit, (1797, 65): its 64 pixels, row by row, and its label.

    They are read from the file that scikit-learn comes with: to import scikit-learn itself takes each process a second.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    digits = load_digits()
    return np.column_stack((digits.data, digits.target))


def _read_digits(request: _Request) -> ImageSet:
    """scikit-learn's 1,797 digits, values 0..16 spread over 0..255.

    The set has no test images of its own: of each class, in the order of the file, every fifth image is a test image and the
    others are training images, so that the division is the same everywhere and each class is divided alike.
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
            "image_folder needs a folder of images; set data_dir or NASES_DATA_DIR to one that holds "
            "train/<class>/ and test/<class>/ with PNG or JPEG files"
        )
    return read_image_folder(_data_dir(request), train=request.train, side=request.image_size or FOLDER_IMAGE_SIZE)


@dataclass(frozen=True)
class _Torchvision:
    """A source that reads torchvision's files, or downloads them.

    Attributes:
        class_name: the class in ``torchvision.datasets``.
        train_files, test_files: the file or folder that this class needs in its root for either half.
        image_folder: a folder of images in train/<class>/ and test/<class>/ that serves instead, where there is one.
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
                return read_image_folder(root / self.image_folder, train=request.train, side=None)
            return self._download(request, root)
        try:
            return self._read(root, request.train, download=False)
        except (AssertionError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{request.dataset.title}: {files} is damaged or incomplete ({_one_line(error)}); remove it and run again"
            ) from error

    def _files(self, train: bool) -> str:
        return self.train_files if train else self.test_files

    def _read(self, root: Path, train: bool, *, download: bool) -> ImageSet:
        import torchvision  # slow to import

        half = {"split": "train" if train else "test"} if self.class_name == "SVHN" else {"train": train}
        with warnings.catch_warnings():
            # CIFAR's pickles describe their arrays in the words of an older NumPy, and torchvision unpacks archives, whose
            # checksum it has verified, without the filter that Python 3.12 asks for.
            warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
            warnings.filterwarnings("ignore", "Python 3.14 will, by default, filter extracted tar", DeprecationWarning)
            data = getattr(torchvision.datasets, self.class_name)(root, download=download, **half)
        images = torch.as_tensor(data.data)
        if images.dim() == 3:  # Fashion-MNIST: grey
            images = images[:, None]
        elif images.shape[-1] == 3:  # CIFAR: channels last
            images = images.permute(0, 3, 1, 2)
        labels = data.labels if hasattr(data, "labels") else data.targets
        class_names = data.classes if hasattr(data, "classes") else range(10)
        return ImageSet(images.contiguous(), torch.as_tensor(labels).long(), tuple(map(str, class_names)))

    def _download(self, request: _Request, root: Path) -> ImageSet:
        """Downloads into a temporary folder beside the target, so that only whole files ever carry the name looked for."""
        files = self._files(request.train)
        looked_for = f"{files} (torchvision's files)"
        if self.image_folder is not None:
            looked_for += f" or {self.image_folder}/train/<class>/ and {self.image_folder}/test/<class>/ (PNG or JPEG)"
        reason = "downloading is switched off"
        if request.download:
            logger.info("downloading %s into %s", request.dataset.title, root)
            try:
                root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as staging, _socket_timeout():
                    image_set = self._read(Path(staging), request.train, download=True)
                    _move(Path(staging) / files, root / files)
                return image_set
            except (http.client.HTTPException, OSError, RuntimeError) as error:
                reason = f"the download failed: {_one_line(error)}"
        raise InputError(
            f"{request.dataset.title} is not in {root}: looked for {looked_for}, and {reason}; connect to the internet and "
            "run again, or set data_dir or NASES_DATA_DIR to a folder that holds it"
        )


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:
        if not target.exists():  # else another process has downloaded the same files meanwhile
            raise


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """torchvision downloads without a time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
        Dataset("digits", "Digits", flip=False, source=_read_digits),
        Dataset("image_folder", "Image folder", flip=True, source=_read_image_folder),
    )
}
"""Every data set by its name."""
