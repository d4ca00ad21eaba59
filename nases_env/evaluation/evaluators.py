"""What turns an architecture into an evaluation."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.evaluation import Evaluation, Status
from nases_env.evaluation.presets import ChildSettings
from nases_env.networks import count_flops, count_parameters
from nases_env.search_spaces import Architecture, SearchSpace, make_search_space
from nases_env.seeding import derive_seed
from nases_env.threads import torch_threads
from nases_env.training import DATASETS, ImageSet, load_images, split_train_valid, train_classifier


class Evaluator(ABC):
    """A plain, picklable configuration that evaluates architectures of one search space.

    ``evaluate`` is a function of the architecture's key, the configuration and the seed alone, so that it may run in any
    process, and a stored result is as good as a new one.
    """

    search_space: str | SearchSpace
    """The search space whose architectures it evaluates, or what ``make_search_space`` makes it from."""

    @abstractmethod
    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Evaluates one child. ``seed`` decides everything that is random in it."""

    def prepare(self) -> None:  # noqa: B027 - most evaluators need nothing
        """Loads what ``evaluate`` needs, so that what is missing is missed before a search begins.

        Raises:
            InputError: if something is missing.
        """


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
    """

    search_space: str | SearchSpace
    dataset: str
    settings: ChildSettings = field(default_factory=ChildSettings)
    data_dir: str | None = None
    download: bool = True
    device: str = "auto"
    split_seed: int = 0
    num_threads: int = 1

    def prepare(self) -> None:
        resolve_device(self.device)
        with torch_threads(self.num_threads):
            self.images()

    def images(self) -> tuple[ImageSet, ImageSet]:
        """The training and the validation split, cut to the sizes that the settings ask for."""
        return _load_splits(
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
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
        flip = DATASETS[self.dataset].flip if self.settings.flip is None else self.settings.flip
        with torch_threads(self.num_threads):
            result = train_classifier(model, train, valid, self.settings, seed=seed, device=device, flip=flip)
        return replace(
            child,
            status=Status(result.status),
            valid_accuracy=result.valid_accuracy,
            train_accuracy=result.train_accuracy,
            num_epochs=result.num_epochs,
            seconds=time.perf_counter() - start,
            curve=result.curve,
        )


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
