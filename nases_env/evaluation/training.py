"""The evaluator that trains the child network."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nases_env.cpu import torch_threads
from nases_env.devices import resolve_device
from nases_env.evaluation.base import Evaluator, describe_search_space
from nases_env.evaluation.presets import ChildSettings
from nases_env.evaluation.result import Evaluation, Status
from nases_env.networks import count_flops, count_parameters
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.seeding import seeded_torch
from nases_env.training import Checkpoint, ImageSet, load_images, mirrors, split_train_valid, train_classifier

TRAINING_VERSION = 2
"""To be raised whenever the same settings begin to give other accuracies: stores then hold no result for them."""


@dataclass(frozen=True)
class TrainingEvaluator(Evaluator):
    """Builds the child, trains it on the training split and measures it on the validation split (Algorithm 1, lines 5–7).

    Attributes:
        search_space: the search space, or what ``get_search_space`` makes it from.
        dataset: a name of ``nases_env.training.DATASETS``.
        settings: the child's size and training.
        data_dir: the folder with the data sets; None looks as ``load_images`` says.
        download: whether a data set that is not there may be downloaded.
        device: a torch device, or "auto": the GPU where there is one, else the CPU.
        split_seed: decides which tenth of the training images is the validation split, the same for every child.
        num_threads: CPU threads of a training; several processes side by side want one each.
        checkpoint_dir: the folder where a child under training keeps a checkpoint, so that one that was killed and is
            evaluated again continues, with the same result; None: none. The file's name is unique to the configuration
            (``digest``), the architecture's key and the seed, and the file is gone when the child is evaluated.
        checkpoint_interval: seconds of training between two checkpoints, at the end of an epoch; 0: after every epoch; inf:
            never.
    """

    search_space: str | SearchSpace
    dataset: str
    settings: ChildSettings = field(default_factory=ChildSettings)
    data_dir: str | None = None
    download: bool = True
    device: str = "auto"
    split_seed: int = 0
    num_threads: int = 1
    checkpoint_dir: str | None = None
    checkpoint_interval: float = 120.0

    def prepare(self) -> None:
        resolve_device(self.device)
        with torch_threads(self.num_threads):
            self.images()

    def images(self) -> tuple[ImageSet, ImageSet]:
        """The training and the validation split, cut to the sizes that the settings ask for."""
        return _received.get(self._data()) or _load_splits(*self._data())

    def describe(self) -> dict[str, Any]:
        """The images by their digest, wherever they come from; the device by its kind, since a GPU rounds otherwise."""
        device = resolve_device(self.device).type
        return {
            "evaluator": "training",
            "version": TRAINING_VERSION,
            "search_space": describe_search_space(get_search_space(self.search_space)),
            "dataset": self.dataset,
            "images": _digest_splits(*self._data()),
            "split_seed": self.split_seed,
            "settings": dataclasses.asdict(self.settings),
            "device": device,
            "num_threads": self.num_threads if device == "cpu" else None,
        }

    def with_checkpoints(self, folder: str, interval_seconds: float) -> TrainingEvaluator:
        return replace(self, checkpoint_dir=folder, checkpoint_interval=interval_seconds)

    def export_data(self) -> Any:
        return [(split.images.numpy(), split.labels.numpy(), split.class_names) for split in self.images()]

    def import_data(self, shared: Any) -> None:
        if self._data() in _received:
            return
        # Copied: torch does not take memory that must not be written to.
        train, valid = (ImageSet(torch.tensor(images), torch.tensor(labels), names) for images, labels, names in shared)
        _received[self._data()] = train, valid

    def _data(self) -> _DataArguments:
        return _DataArguments(
            self.dataset,
            self.data_dir,
            self.settings.image_size,
            self.download,
            self.split_seed,
            self.settings.num_train_images,
            self.settings.num_valid_images,
        )

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        start = time.perf_counter()
        train, valid = self.images()
        device = resolve_device(self.device)
        with seeded_torch(seed, "initial weights"):
            model = get_search_space(self.search_space).build(
                architecture, self.settings, num_classes=len(train.class_names), image_shape=train.image_shape
            )
        child = Evaluation(
            architecture.key,
            seed,
            Status.TOO_LARGE,
            num_params=count_parameters(model),
            num_flops=count_flops(model, train.image_shape),
            device=str(device),
        )
        if self.settings.max_params is not None and child.num_params > self.settings.max_params:
            return replace(child, seconds=time.perf_counter() - start)
        flip = mirrors(self.dataset, self.settings)
        checkpoint = self._checkpoint(architecture, seed)
        seconds_before = time.perf_counter() - start
        with torch_threads(self.num_threads):
            result = train_classifier(
                model, train, valid, self.settings, seed=seed, device=device, flip=flip, checkpoint=checkpoint
            )
        return replace(
            child,
            status=Status(result.status),
            valid_accuracy=result.valid_accuracy,
            train_accuracy=result.train_accuracy,
            num_epochs=result.num_epochs,
            seconds=seconds_before + result.seconds,
            curve=result.curve,
        )

    def _checkpoint(self, architecture: Architecture, seed: int) -> Checkpoint | None:
        if self.checkpoint_dir is None:
            return None
        identity = "\x1f".join((self.digest(), architecture.key, str(int(seed))))
        name = hashlib.sha256(identity.encode()).hexdigest()
        return Checkpoint(Path(self.checkpoint_dir) / f"{name}.safetensors", self.checkpoint_interval, identity)


class _DataArguments(NamedTuple):
    dataset: str
    data_dir: str | None
    image_size: int | None
    download: bool
    split_seed: int
    num_train_images: int | None
    num_valid_images: int | None


_received: dict[_DataArguments, tuple[ImageSet, ImageSet]] = {}
"""Splits that another process has loaded."""


@lru_cache(maxsize=4)
def _digest_splits(*arguments: Any) -> str:
    """The SHA-256 of all pixels, labels and class names of the training and the validation split."""
    data = _DataArguments(*arguments)
    digest = hashlib.sha256()
    for split in _received.get(data) or _load_splits(*data):
        digest.update(repr((tuple(split.images.shape), split.class_names)).encode())
        digest.update(split.images.contiguous().numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _load_splits(
    dataset: str,
    data_dir: str | None,
    image_size: int | None,
    download: bool,
    split_seed: int,
    num_train_images: int | None,
    num_valid_images: int | None,
) -> tuple[ImageSet, ImageSet]:
    images = load_images(dataset, train=True, data_dir=data_dir, image_size=image_size, download=download)
    return split_train_valid(images, seed=split_seed, num_train_images=num_train_images, num_valid_images=num_valid_images)
