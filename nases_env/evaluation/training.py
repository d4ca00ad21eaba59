"""Evaluation by training the child network."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nases_env.cpu import torch_threads
from nases_env.devices import device_type, known_device
from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.description import describe_search_space
from nases_env.evaluation.first_read import FirstRead
from nases_env.evaluation.latency import measure_latencies
from nases_env.evaluation.limits import Limits
from nases_env.evaluation.presets import ChildSettings
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.reward import scale_odds, training_speed
from nases_env.hashing import sha256_hex
from nases_env.networks import count_costs, count_parameters
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.seeding import seeded_torch
from nases_env.training import Checkpoint, ImageSet, load_images, split_train_valid, train_classifier, uses_flip
from nases_env.training.data_cache import DataCache
from nases_env.training.datasets import resolve_data_dir
from nases_env.training.image_size import ImageSize
from nases_env.training.metrics import EVALUATION_BATCH_SIZE, evaluation_batch_size

TRAINING_VERSION = 2
"""Increment when a code change alters the accuracies for unchanged settings; this invalidates stored results."""

LATENCY_ROUND_SECONDS = 0.02  # shorter than for a report, because many children are measured


@dataclass(frozen=True)
class TrainingEvaluator(Evaluator):
    """Builds a child, trains it and measures its validation accuracy (Algorithm 1, lines 5–7).

    Attributes:
        search_space: the search space, or its name as ``get_search_space`` accepts it.
        dataset: a name in ``nases_env.training.DATASETS``.
        settings: size and training of the child.
        data_dir: the directory with the data sets; None: see ``load_images``.
        download: whether to download a missing data set.
        device: a torch device, or "auto": the GPU if there is one, otherwise the CPU. Only ``evaluate`` needs it.
        split_seed: seed of the validation split, a tenth of the training images; the same for every child.
        num_threads: CPU threads per training run; use 1 if several processes train in parallel.
        checkpoint_dir: directory of the checkpoints; None: no checkpoints. An interrupted child resumes from its checkpoint
            with the same result. The file name is unique to the configuration (``digest``), the architecture's key and the
            seed; the file is removed after the evaluation.
        checkpoint_interval: minimum seconds of training between two checkpoints, which are written at the end of an epoch;
            0: after every epoch; inf: never.
        rungs: numbers of epochs after which a child can be evaluated, increasing. They replace ``num_epochs``,
            ``min_steps`` and ``num_cycles`` of ``settings``: the last rung is the whole training, and the learning rate
            schedule restarts after each rung. With checkpoints, a child continues from its highest rung; without, it is
            trained from the beginning, with the same result.
        fidelity: the rung of ``evaluate``; None: the last one. Use ``at_fidelity``.
        limits: which children are feasible for ``screen``; ``evaluate`` evaluates all.
        first_read: the digests of the images when this evaluator, or a copy in another process, first read them.

    Raises:
        InputError: if the rungs are not increasing, or ``fidelity`` is not one of them. ``prepare`` and all methods that use
            the images raise it if they are missing, or have changed since the evaluator first read them.
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
    rungs: tuple[int, ...] = ()
    fidelity: int | None = None
    limits: Limits = field(default_factory=Limits)
    first_read: FirstRead = field(default_factory=FirstRead, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        is_valid = all(isinstance(rung, int) for rung in self.rungs)
        if not is_valid or any(lower >= upper for lower, upper in pairwise((0, *self.rungs))):
            raise InputError(f"rungs must be increasing numbers of epochs, not {', '.join(map(str, self.rungs))}")
        if self.rungs:
            settings = replace(self.settings, num_epochs=self.rungs[-1], min_steps=0, num_cycles=1)
            object.__setattr__(self, "settings", settings)
        if self.fidelity is not None:
            self.require_rung(self.fidelity)
        if self.settings.flops_exponent is None:
            exponent = get_search_space(self.search_space).flops_exponent
            object.__setattr__(self, "settings", replace(self.settings, flops_exponent=exponent))

    def prepare(self) -> None:
        with torch_threads(self.num_threads):
            self.images()

    def images(self) -> tuple[ImageSet, ImageSet]:
        """Return the training and the validation split, cut to ``num_train_images`` and ``num_valid_images``."""
        splits = self._splits()
        return splits.train, splits.valid

    def _splits(self) -> _Splits:
        """Return both splits. A worker that starts later must read the images that the stored configuration describes."""
        splits = SPLIT_CACHE.get(self._data())
        data_dir = resolve_data_dir(self.data_dir)
        where = "" if data_dir is None else f" in {data_dir}"
        self.first_read.require_same(self._data(), splits.digest, f"the images of {self.dataset}{where} have")
        return splits

    def describe(self) -> dict[str, Any]:
        """Return a description with the digest of the images and the type of the device, because GPUs round differently."""
        device = device_type(self.device)
        batch_size = evaluation_batch_size(self._splits().train.images)
        return {
            "evaluator": "training",
            "version": TRAINING_VERSION,
            "search_space": describe_search_space(get_search_space(self.search_space)),
            "dataset": self.dataset,
            "images": self._splits().digest,
            "split_seed": self.split_seed,
            "settings": _describe_settings(self.settings),
            "device": device,
            "num_threads": self.num_threads if device == "cpu" else None,
            # Only of large images, so that results of earlier versions for other images are found.
            **({} if batch_size == EVALUATION_BATCH_SIZE else {"evaluation_batch_size": batch_size}),
            **self.describe_rungs(),
        }

    def with_checkpoints(self, checkpoint_dir: str, interval_seconds: float) -> TrainingEvaluator:
        return replace(self, checkpoint_dir=checkpoint_dir, checkpoint_interval=interval_seconds)

    def export_data(self) -> Any:
        return [(split.images.numpy(), split.labels.numpy(), split.class_names) for split in self.images()]

    def import_data(self, shared: Any) -> None:
        if self._data() in SPLIT_CACHE:
            return
        # Copied, because torch does not accept read-only memory.
        train, valid = (ImageSet(torch.tensor(images), torch.tensor(labels), names) for images, labels, names in shared)
        SPLIT_CACHE.put(self._data(), _Splits(train, valid))

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
        device = known_device(self.device)  # checked when the executor was made; a failure since then is not the user's
        model = self.build(architecture, seed)
        costs = count_costs(model, train.image_shape)
        flip = uses_flip(self.dataset, self.settings)
        checkpoint = self._checkpoint(architecture, seed)
        seconds_before = time.perf_counter() - start
        with torch_threads(self.num_threads):
            result = train_classifier(
                model,
                train,
                valid,
                self.settings,
                seed=seed,
                device=device,
                flip=flip,
                checkpoint=checkpoint,
                rungs=self.rungs,
                stop_epoch=self.fidelity,
            )
        evaluation = Evaluation(
            architecture.key,
            seed,
            Status(result.status),
            valid_accuracy=result.valid_accuracy,
            train_accuracy=result.train_accuracy,
            **costs._asdict(),
            num_epochs=result.num_epochs,
            seconds=seconds_before + result.seconds,
            device=str(device),
            curve=result.curve,
        )
        return replace(evaluation, score=self._score(evaluation))

    def _score(self, evaluation: Evaluation) -> float | None:
        if self.settings.rewards_accuracy or evaluation.status is not Status.OK:
            return None
        score = evaluation.valid_accuracy
        if self.settings.reward_signal == "training_speed":
            score = training_speed(evaluation.curve)
        assert self.settings.flops_exponent is not None  # resolved in __post_init__
        return scale_odds(score, evaluation.num_flops, self.settings.flops_exponent)

    def screen(self, architecture: Architecture, seed: int) -> Evaluation | None:
        """Compare the exact costs with the limits; costs that are not needed for the answer are not computed.

        The network is not built if its number of parameters is known without it and decides.
        """
        limits = self.limits.exact()
        if not limits:
            return None
        num_params = self._count_parameters(architecture)
        try:
            model: nn.Module | None = None
            if num_params is None:
                model = self.build(architecture, seed)
                num_params = count_parameters(model)
            child = Evaluation(architecture.key, seed, Status.TOO_LARGE, num_params=num_params)
            needs_trace = limits.max_flops is not None or limits.max_memory is not None
            if needs_trace and not limits.reason(child):
                if model is None:
                    model = self.build(architecture, seed)
                child = replace(child, **count_costs(model, self.images()[0].image_shape)._asdict())
        except Exception:  # raised again by ``evaluate``, whose errors the executor handles
            return None
        reason = limits.reason(child)
        return replace(child, reason=reason) if reason else None

    def size(self, architecture: Architecture) -> float | None:
        """Return ``SearchSpace.size``, or else the number of parameters if ``flops_exponent`` is positive.

        In ``enas_micro``, the reward grows with the size only then: a short training favors small networks. The search space
        defines no size for this reason.
        """
        size = super().size(architecture)
        assert self.settings.flops_exponent is not None  # resolved in __post_init__
        return self._count_parameters(architecture) if size is None and self.settings.flops_exponent > 0 else size

    def costs(self, architecture: Architecture, seed: int) -> Evaluation | None:
        try:
            costs = count_costs(self.build(architecture, seed), self.images()[0].image_shape)
        except Exception:  # raised again by ``evaluate``, whose errors the executor handles
            return None
        return Evaluation(architecture.key, seed, Status.OK, **costs._asdict())

    def measure_latency(self, architecture: Architecture, seed: int) -> float:
        """Return the lowest of five medians of repeated passes with one thread of the CPU, each after a warm-up.

        It is 0 if the network cannot be built, so that the child is feasible and ``evaluate`` reports the error.
        """
        shape = self.images()[0].image_shape
        try:
            model = self.build(architecture, seed)
            (latency,) = measure_latencies([model], shape, round_seconds=LATENCY_ROUND_SECONDS)
        except Exception:  # raised again by ``evaluate``, whose errors the executor handles
            return 0.0
        return latency.best_round

    def build(self, architecture: Architecture, seed: int) -> nn.Module:
        """Build the network of a child with its initial weights, which depend on ``seed``."""
        train, _ = self.images()
        with seeded_torch(seed, "initial weights"):
            return get_search_space(self.search_space).build(
                architecture, self.settings, num_classes=len(train.class_names), image_shape=train.image_shape
            )

    def _count_parameters(self, architecture: Architecture) -> int | None:
        train, _ = self.images()
        return get_search_space(self.search_space).count_parameters(
            architecture, self.settings, num_classes=len(train.class_names), image_shape=train.image_shape
        )

    def _checkpoint(self, architecture: Architecture, seed: int) -> Checkpoint | None:
        if self.checkpoint_dir is None:
            return None
        training = replace(self, fidelity=None)  # all rungs are parts of one training
        identity = "\x1f".join((training.digest(), architecture.key, str(int(seed))))
        return Checkpoint(
            Path(self.checkpoint_dir) / f"{sha256_hex(identity)}.safetensors", self.checkpoint_interval, identity
        )


def _describe_settings(settings: ChildSettings) -> dict[str, Any]:
    """Return ``settings`` as a dict with the entries that results of earlier versions have, so that these are found."""
    # The limit of earlier versions, which was one of these settings; see ``Limits``.
    values: dict[str, Any] = {**dataclasses.asdict(settings), "max_params": None}
    if not settings.min_steps:
        del values["min_steps"]
    if settings.rewards_accuracy:
        del values["reward_signal"], values["flops_exponent"]
    return values


class _DataArguments(NamedTuple):
    dataset: str
    data_dir: str | None
    image_size: ImageSize | None
    download: bool
    split_seed: int
    num_train_images: int | None
    num_valid_images: int | None


@dataclass(frozen=True, eq=False)
class _Splits:
    train: ImageSet
    valid: ImageSet

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the shapes, class names, pixels and labels of both splits."""
        parts: list[str | memoryview] = []
        for split in (self.train, self.valid):
            parts.append(repr((tuple(split.images.shape), split.class_names)))
            parts += [split.images.contiguous().numpy().data, split.labels.numpy().data]
        return sha256_hex(*parts)


def _load_splits(data: _DataArguments) -> _Splits:
    images = load_images(
        data.dataset, train=True, data_dir=data.data_dir, image_size=data.image_size, download=data.download
    )
    return _Splits(
        *split_train_valid(
            images,
            seed=data.split_seed,
            num_train_images=data.num_train_images,
            num_valid_images=data.num_valid_images,
        )
    )


SPLIT_CACHE: DataCache[_DataArguments, _Splits] = DataCache(_load_splits)
"""The splits used recently in this process, and splits imported from another process."""
