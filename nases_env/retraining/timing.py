"""Estimate the duration of the steps of a reproduction on this machine from a few batches of a few networks."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nases_env.cpu import torch_threads
from nases_env.devices import resolve_device
from nases_env.embedding.metrics import quality_report
from nases_env.embedding.pretraining import PRESETS as PRETRAIN_PRESETS
from nases_env.embedding.pretraining import pretrain
from nases_env.evaluation import ChildSettings
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import numpy_generator, seeded_torch
from nases_env.training import EpochRecord, ImageSet, train_classifier

NUM_NETWORKS = 3  # random architectures to time
GPU_BATCHES = 20
CPU_IMAGES = 32  # one batch; on a CPU the time per image does not depend on the batch size
PRETRAIN_STEPS = 20


@dataclass(frozen=True)
class TrainingTime:
    """Duration of a training run in seconds; medians over random architectures.

    Attributes:
        per_epoch: one epoch on all images.
        overhead: everything outside the epochs: the time before the first step, and the final measurement.
    """

    per_epoch: float
    overhead: float

    def estimate(self, num_epochs: int) -> float:
        """Estimate the duration of a training run of ``num_epochs``."""
        return self.overhead + num_epochs * self.per_epoch


def time_training(
    space: SearchSpace,
    settings: ChildSettings,
    images: ImageSet,
    *,
    device: str,
    num_threads: int,
    architectures: Sequence[Architecture] = (),
) -> TrainingTime:
    """Estimate the duration of a training run from a few batches.

    Args:
        space: the search space.
        settings: the settings of the network and its training.
        images: the training images.
        device: a torch device, or "auto".
        num_threads: number of CPU threads.
        architectures: the architectures to time. Default: ``NUM_NETWORKS`` random ones.

    Returns:
        The medians over the architectures; NaN if no training run succeeded.
    """
    if not architectures:
        rng = numpy_generator(0, "timed architectures")
        architectures = [space.sample(rng) for _ in range(NUM_NETWORKS)]
    where = resolve_device(device)
    batch_size = min(settings.batch_size, len(images))
    num_images = min(GPU_BATCHES * batch_size, len(images))
    if where.type == "cpu":
        num_images = batch_size = min(CPU_IMAGES, batch_size)
    few = images.subset(torch.arange(num_images))
    settings = dataclasses.replace(settings, num_epochs=2, min_steps=0, num_cycles=1, batch_size=batch_size)
    per_image, overheads = [], []
    for number, architecture in enumerate(architectures):
        ends: list[float] = []

        def note(record: EpochRecord, ends: list[float] = ends) -> None:
            ends.append(time.perf_counter())

        with seeded_torch(0, "timed weights", str(number)), torch_threads(num_threads):
            start = time.perf_counter()
            model = space.build(architecture, settings, num_classes=len(images.class_names), image_shape=images.image_shape)
            train_classifier(model, few, few, settings, seed=0, device=where, flip=True, on_epoch=note)
        if len(ends) < 2:
            continue  # it diverged or ran out of memory
        epoch = ends[1] - ends[0]
        per_image.append(epoch / (num_images // batch_size * batch_size))
        overheads.append(max(0.0, time.perf_counter() - start - 2 * epoch))
    if not per_image:
        return TrainingTime(float("nan"), float("nan"))
    return TrainingTime(statistics.median(per_image) * len(images), statistics.median(overheads))


def time_pretraining(space: SearchSpace, preset: str, num_steps: int | None) -> float:
    """Estimate the duration of ``nases pretrain`` in seconds from a few steps.

    Args:
        space: the search space.
        preset: the preset of the command.
        num_steps: number of steps; None: the preset's value.
    """
    settings = PRETRAIN_PRESETS[preset]
    num_steps = settings.num_steps if num_steps is None else num_steps
    few = dataclasses.replace(settings, num_steps=PRETRAIN_STEPS)
    with torch_threads(1):
        start = time.perf_counter()
        embedding, _ = pretrain(space, few, 0)
        trained = time.perf_counter()
        quality_report(embedding, space, 0)
    return (trained - start) * num_steps / PRETRAIN_STEPS + (time.perf_counter() - trained)
