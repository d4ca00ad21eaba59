"""One final training: a function of its configuration and a seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nases_env.cpu import torch_threads
from nases_env.devices import device_name, resolve_device
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Evaluation, Limits, Status, describe_search_space
from nases_env.hashing import tensor_digest
from nases_env.model_io import TrainedModel
from nases_env.networks import count_costs
from nases_env.retraining.result import FinalResult
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import seeded_torch, torch_generator
from nases_env.training import Checkpoint, ImageSet, channel_statistics, load_images, train_classifier, uses_flip
from nases_env.training.trainer import OnEpoch

FAILURES = {
    "diverged": ("the loss is not finite", ("lr-max",)),
    "out_of_memory": ("the GPU ran out of memory", ("batch-size", "num-filters")),
}
"""By status: what happened, and the options of the settings that can prevent it."""


class TrainingFailedError(InputError):
    """A final training diverged or ran out of memory.

    The message is that of ``nases train``.

    Args:
        seed: the seed of the training.
        epoch: the epoch in which it failed; None: it failed when the network was measured.
        status: a key of ``FAILURES``.

    Attributes:
        problem: what happened, without advice.
    """

    def __init__(self, seed: int, epoch: int | None, status: str) -> None:
        reason, self._options = FAILURES[status]
        where = "when its network was measured" if epoch is None else f"in epoch {epoch}"
        self.problem = f"the training with seed {seed} failed {where}: {reason}"
        super().__init__(f"{self.problem}; lower {self.options('child')}, and choose a different --output")

    def options(self, prefix: str) -> str:
        """Return the options to lower, such as "--child.batch-size or --child.num-filters" with the prefix "child"."""
        return " or ".join(f"--{prefix}.{option}" for option in self._options)


def settings_without_effect(settings: ChildSettings) -> dict[str, str]:
    """Return the settings that have no effect on a final training with ``settings``: by name, where they have none."""
    names = dict.fromkeys(("num_valid_images", "reward_signal", "flops_exponent"), "on a final training")
    if settings.schedule == "triangular":
        names |= dict.fromkeys(("num_cycles", "lr_min"), "with the schedule triangular")
    return names


def require_final_settings(settings: ChildSettings, default: ChildSettings, option_prefix: str) -> None:
    """Raise ``InputError`` if a setting that has no effect on a final training differs from its default.

    Args:
        settings: settings of a final training.
        default: the settings without any option.
        option_prefix: first part of the names of its options.
    """
    for name, where in settings_without_effect(settings).items():
        if getattr(settings, name) != getattr(default, name):
            raise InputError(f"--{option_prefix}.{name.replace('_', '-')} has no effect {where}; omit it")


def sample_images(images: ImageSet, num_train_images: int | None) -> ImageSet:
    """Return the images of a final training: all, or a random sample of ``num_train_images`` that is always the same."""
    if num_train_images is None:
        return images
    shuffled = torch.randperm(len(images), generator=torch_generator(0, "final training images"))
    return images.subset(shuffled[:num_train_images])


def digest_images(images: ImageSet) -> str:
    """Return the digest of images that the configuration of a final training records."""
    return tensor_digest(images.class_names, {"images": images.images, "labels": images.labels})


@dataclass(frozen=True)
class FinalTraining:
    """The training of the best architecture on all training images (Algorithm 1, lines 12 and 13).

    Test images are never used for selection: the final network is evaluated on them once.

    Attributes:
        search_space: the search space.
        architecture: the architecture to train.
        dataset: a name of ``nases_env.training.DATASETS``.
        settings: size and training of the network; ``num_valid_images`` has no effect.
        data_dir: the directory with the data sets; None: the default of ``load_images``.
        device: a torch device, or "auto": the GPU if there is one, otherwise the CPU.
        num_threads: number of CPU threads.
        limits: limits of the network without its auxiliary head; they do not determine the result.
    """

    search_space: SearchSpace
    architecture: Architecture
    dataset: str
    settings: ChildSettings
    data_dir: str | None = None
    device: str = "auto"
    num_threads: int = 1
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def train_images(self) -> ImageSet:
        """The training images: all, or a random sample of ``settings.num_train_images``.

        Raises:
            InputError: if data is missing.
        """
        return sample_images(self._load(train=True), self.settings.num_train_images)

    @property
    def num_epochs(self) -> int:
        """Number of epochs of the training."""
        return self.settings.total_epochs(len(self.train_images))

    def _load(self, *, train: bool) -> ImageSet:
        return load_images(self.dataset, train=train, data_dir=self.data_dir, image_size=self.settings.image_size)

    def describe(self) -> dict[str, Any]:
        """Return everything that determines the result, except the seed, as JSON values."""
        device = resolve_device(self.device).type
        return {
            "search_space": describe_search_space(self.search_space),
            "key": self.architecture.key,
            "genotype": self.search_space.genotype(self.architecture),
            "dataset": self.dataset,
            "images": digest_images(self.train_images),
            "test_images": digest_images(self._load(train=False)),
            "settings": dataclasses.asdict(self.settings),
            "device": device,
            "num_threads": self.num_threads if device == "cpu" else None,
            "torch": torch.__version__,
        }

    def check(self) -> None:
        """Check the settings against the images and the network, before anything is written.

        Raises:
            InputError: if cutout erases whole images, or the network without its auxiliary head exceeds a limit.
        """
        _, height, width = self.train_images.image_shape
        if self.settings.cutout_length >= 2 * max(height, width):
            raise InputError(
                f"cutout_length = {self.settings.cutout_length} erases images of {height} x {width} pixels completely; "
                f"decrease it, for example to {max(height, width) // 2}, or to 0 to disable it"
            )
        if not self.limits:
            return
        network = self._build(0, dataclasses.replace(self.settings, auxiliary_head=False)).network
        costs = count_costs(network, self.train_images.image_shape)
        reason = self.limits.exact().reason(Evaluation(self.architecture.key, 0, Status.TOO_LARGE, **costs._asdict()))
        if reason:
            raise InputError(f"the final network has {reason} (set the limit to none to disable it)")

    def run(self, seed: int, checkpoint: Path, on_epoch: OnEpoch = lambda record: None) -> tuple[TrainedModel, FinalResult]:
        """Train and test one network.

        Args:
            seed: seed of the initial weights, the batches and the augmentation.
            checkpoint: the file to which the state is written after each epoch; if it exists, the training resumes from it.
                The file is kept, so that the caller can delete it after saving the result.
            on_epoch: called after each epoch.

        Returns:
            The model without its auxiliary head, described by its result; and the result.

        Raises:
            TrainingFailedError: if the training diverged or ran out of memory.
            InputError: if data is missing, or the checkpoint cannot be written.
        """
        device = resolve_device(self.device)
        train, test = self.train_images, self._load(train=False)
        model = self._build(seed, self.settings)
        with torch_threads(self.num_threads):
            result = train_classifier(
                model.network,
                train,
                test,
                self.settings,
                seed=seed,
                device=device,
                flip=uses_flip(self.dataset, self.settings),
                checkpoint=Checkpoint(checkpoint, interval_seconds=0, identity=self.architecture.key, keep=True),
                on_epoch=on_epoch,
            )
        if result.status != "ok":
            is_trained = result.num_epochs == self.settings.total_epochs(len(train))
            raise TrainingFailedError(seed, None if is_trained else result.num_epochs + 1, result.status)
        if self.settings.auxiliary_head:
            model = self._without_auxiliary_head(model)
        final = FinalResult(
            seed=seed,
            num_correct=round(result.valid_accuracy * len(test)),
            num_test_images=len(test),
            train_accuracy=result.train_accuracy,
            **count_costs(model.network, train.image_shape)._asdict(),
            num_epochs=result.num_epochs,
            seconds=result.seconds,
            device=device_name(device),
            on_gpu=device.type != "cpu",
            curve=result.curve,
        )
        model.to("cpu")  # the training has moved a part of it
        model.description = {name: value for name, value in final.to_dict().items() if name != "curve"}
        return model, final

    def _build(self, seed: int, settings: ChildSettings) -> TrainedModel:
        train = self.train_images
        with seeded_torch(seed, "initial weights"):
            return TrainedModel(
                self.search_space,
                self.architecture,
                settings,
                class_names=train.class_names,
                image_shape=train.image_shape,
                statistics=channel_statistics(train.images),
                value_range=train.value_range,
            )

    def _without_auxiliary_head(self, model: TrainedModel) -> TrainedModel:
        bare = self._build(0, dataclasses.replace(self.settings, auxiliary_head=False))
        weights = model.state_dict()
        bare.load_state_dict({name: weights[name] for name in bare.state_dict()})
        return bare
