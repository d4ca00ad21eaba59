"""What turns an architecture into an evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.evaluation import Evaluation, Status
from nases_env.evaluation.presets import ChildSettings
from nases_env.networks import count_flops, count_parameters
from nases_env.search_spaces import SEARCH_SPACES, Architecture, SearchSpace, full_name, make_search_space
from nases_env.seeding import seeded_torch
from nases_env.threads import torch_threads
from nases_env.training import Checkpoint, ImageSet, load_images, mirrors, split_train_valid, train_classifier

TRAINING_VERSION = 2
"""To be raised whenever the same settings begin to give other accuracies: stores then hold no result for them."""


class Evaluator(ABC):
    """A plain, picklable configuration that evaluates architectures of one search space.

    ``evaluate`` is a function of the architecture's key, the configuration and the seed alone, so that it may run in any
    process, and a stored result is as good as a new one.
    """

    search_space: str | SearchSpace
    """The search space whose architectures it evaluates, or what ``make_search_space`` makes it from."""

    is_dear: ClassVar[bool] = True
    """Whether a child takes so long that processes of their own pay for several."""

    @abstractmethod
    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Evaluates one child. ``seed`` decides everything that is random in it."""

    def prepare(self) -> None:  # noqa: B027 - most evaluators need nothing
        """Loads what ``evaluate`` needs, so that what is missing is missed before a search begins.

        Raises:
            InputError: if something is missing.
        """

    def describe(self) -> dict[str, Any]:
        """Everything in the configuration that decides results, as JSON values; to be called after ``prepare``.

        The default is the class and its attributes. One whose attributes name files describes what is in them instead.
        """
        space = describe_search_space(make_search_space(self.search_space))
        return {"evaluator": type(self).__qualname__, **vars(self), "search_space": space}

    def digest(self) -> str:
        """What a store knows the configuration by: ``digest_of`` what ``describe`` says."""
        return digest_of(self.describe())

    def checkpointing(self, folder: str, interval_seconds: float) -> Evaluator:
        """This evaluator, but one whose children write checkpoints to ``folder`` where they can; results are the same."""
        return self

    def share(self) -> Any:  # noqa: B027 - most evaluators share nothing
        """What ``prepare`` loaded, for other processes to ``receive``: NumPy arrays and plain values; None: nothing."""

    def receive(self, shared: Any) -> None:  # noqa: B027 - most evaluators share nothing
        """Takes what ``share`` gave in another process, in place of what ``prepare`` would load."""


def digest_of(description: Mapping[str, Any]) -> str:
    """The SHA-256 of a configuration as ``Evaluator.describe`` gives it, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()


def describe_search_space(space: SearchSpace) -> dict[str, Any]:
    """What decides which network a key of ``space`` means: for one that does not ship, its source too."""
    described: dict[str, Any] = {"name": space.name, "decision_sizes": list(space.decision_sizes)}
    if type(space) not in SEARCH_SPACES.values():
        described["class"] = full_name(space)
        with contextlib.suppress(OSError, TypeError):  # a class that was made at a prompt has no source
            described["source"] = hashlib.sha256(inspect.getsource(type(space)).encode()).hexdigest()
    return described


@dataclass(frozen=True)
class TrainingEvaluator(Evaluator):
    """Builds the child, trains it on the training split and measures it on the validation split (Algorithm 1, lines 5–7).

    Attributes:
        search_space: the search space, or what ``make_search_space`` makes it from.
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
            "search_space": describe_search_space(make_search_space(self.search_space)),
            "dataset": self.dataset,
            "images": _digest_splits(*self._data()),
            "split_seed": self.split_seed,
            "settings": dataclasses.asdict(self.settings),
            "device": device,
            "num_threads": self.num_threads if device == "cpu" else None,
        }

    def checkpointing(self, folder: str, interval_seconds: float) -> TrainingEvaluator:
        return replace(self, checkpoint_dir=folder, checkpoint_interval=interval_seconds)

    def share(self) -> Any:
        return [(split.images.numpy(), split.labels.numpy(), split.class_names) for split in self.images()]

    def receive(self, shared: Any) -> None:
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
            model = make_search_space(self.search_space).build(
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


@dataclass(frozen=True)
class AnalyticEvaluator(Evaluator):
    """A reward with a known answer and no training: the share of a network's branches that apply one operator.

    The optimum is 1, where every branch applies ``operator``; uniform architectures have one over the number of operators
    in the mean. It depends on the network alone: neither the seed nor the way it is written down matters.

    Raises:
        InputError: if the search space has no such operator.
    """

    search_space: str | SearchSpace
    operator: str

    is_dear = False

    def __post_init__(self) -> None:
        space = make_search_space(self.search_space)
        if self.operator not in space.operators:
            hint = did_you_mean(self.operator, space.operators)
            raise InputError(
                f"unknown operator {self.operator!r}{hint}; {space.name} has {', '.join(space.operators) or 'none'}"
            )

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        graphs = make_search_space(self.search_space).graphs(architecture)
        operators = [branch.operator for graph in graphs for node in graph.nodes for branch in node]
        share = operators.count(self.operator) / len(operators)
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=share, train_accuracy=share)


def resolve_device(device: str) -> torch.device:
    """The torch device called ``device``; "auto" is the GPU where there is one, else the CPU.

    Raises:
        InputError: if there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by how it was built
        raise InputError(f"cannot use the device {device!r} ({str(error).splitlines()[0]}); try auto or cpu") from None
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """What a person calls a device: the GPU's model, the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU" if device.type == "cpu" else device.type


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
