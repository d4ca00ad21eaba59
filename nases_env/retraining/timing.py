"""Estimate the duration of searches and of the steps of a reproduction from a few batches of a few networks."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from nases_env.cpu import torch_threads
from nases_env.devices import resolve_device
from nases_env.embedding.metrics import quality_report
from nases_env.embedding.pretraining import PRESETS as PRETRAIN_PRESETS
from nases_env.embedding.pretraining import pretrain
from nases_env.evaluation import ChildSettings, Evaluator, TrainingEvaluator
from nases_env.execution import count_workers
from nases_env.search.options import SearchArgs
from nases_env.search.run import resolve_num_finalists
from nases_env.search.time_budget import UNLIMITED_BUDGET
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.seeding import numpy_generator, seeded_torch
from nases_env.training import EpochRecord, ImageSet, train_classifier

NUM_NETWORKS = 3  # random architectures to time
GPU_BATCHES = 20
CPU_IMAGES = 32  # one batch; on a CPU the time per image does not depend on the batch size
PRETRAIN_STEPS = 20
FORWARD_SHARE = 1 / 3  # time to classify an image, relative to a training step on it
START_SECONDS = 4.0  # to start the workers and the agent, and to write the results


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
    if where.type == "cuda":
        del model  # or its memory could not be freed
        torch.cuda.empty_cache()  # for the processes that train the children
    if not per_image:
        return TrainingTime(float("nan"), float("nan"))
    return TrainingTime(statistics.median(per_image) * len(images), statistics.median(overheads))


@dataclass(frozen=True)
class SearchTime:
    """Duration of a search in seconds, if its children do not slow each other down.

    Attributes:
        of_rungs: the evaluation of a child at each rung, which continues that at the rung below; without rungs, one value.
        of_finalist: the second evaluation of a finalist.
        reduction_factor: the inverse of the fraction of children that continue to the next rung.
        num_finalists: number of finalists.
        num_workers: number of workers.
        num_concurrent: number of children that are evaluated at a time; see ``count_concurrent``.
    """

    of_rungs: Mapping[int | None, float]
    of_finalist: float
    reduction_factor: int
    num_finalists: int
    num_workers: int
    num_concurrent: int

    def per_child(self, budget: int) -> float:
        """Return the mean duration per child of a search with ``budget`` children, including their promotions."""
        numbers = self._numbers(budget)
        return sum(seconds * number for seconds, number in zip(self.of_rungs.values(), numbers, strict=True)) / budget

    def estimate(self, budget: int, recorded: Mapping[int | None, int]) -> float:
        """Estimate the duration of a search.

        Args:
            budget: number of children.
            recorded: number of trials that are finished, by rung; those of ``count_trials``.
        """
        seconds = START_SECONDS + self._second_evaluations(budget)
        for (rung, of_rung), number in zip(self.of_rungs.items(), self._numbers(budget), strict=True):
            seconds += math.ceil(max(0, number - recorded.get(rung, 0)) / self.num_concurrent) * of_rung
        return seconds

    def num_children(self, seconds: float) -> int:
        """Estimate the number of children of a search that takes ``seconds``, at least 1; durations must not be NaN."""
        left = seconds - START_SECONDS - self._second_evaluations(UNLIMITED_BUDGET)
        return max(1, math.floor(left * self.num_concurrent / self.per_child(UNLIMITED_BUDGET)))

    def _numbers(self, budget: int) -> list[int]:
        """Return the number of children that are evaluated at each rung."""
        return [budget // self.reduction_factor**index for index in range(len(self.of_rungs))]

    def _second_evaluations(self, budget: int) -> float:
        return math.ceil(min(budget, self.num_finalists) / self.num_workers) * self.of_finalist


def count_concurrent(evaluator: Evaluator, args: SearchArgs) -> int:
    """Return the number of children that a search evaluates at a time: as many as it has workers and proposes at a time.

    Raises:
        InputError: if an option of the execution has no effect.
    """
    return min(count_workers(evaluator, args.execution, args.num_envs), args.max_pending)


def time_search(evaluator: TrainingEvaluator, args: SearchArgs) -> SearchTime:
    """Estimate the duration of the parts of a search; NaN if no training run succeeded.

    Args:
        evaluator: the evaluator of the search; it must be prepared.
        args: the options of the search.

    Raises:
        InputError: if an option of the finalists or of the execution is invalid.
    """
    train, valid = evaluator.images()
    timed = time_training(
        get_search_space(evaluator.search_space),
        evaluator.settings,
        train,
        device=evaluator.device,
        num_threads=evaluator.num_threads,
    )
    measuring = timed.per_epoch * FORWARD_SHARE * len(valid) / len(train)
    epochs = evaluator.rungs or (evaluator.settings.total_epochs(len(train)),)
    # Promoted children continue their training from the rung below.
    seconds = [timed.estimate(end - start) + measuring for start, end in pairwise((0, *epochs))]
    return SearchTime(
        of_rungs=dict(zip(evaluator.rungs or (None,), seconds, strict=True)),
        of_finalist=timed.estimate(epochs[-1]) + measuring,
        reduction_factor=args.reduction_factor,
        num_finalists=resolve_num_finalists(args, evaluator),
        num_workers=count_workers(evaluator, args.execution, args.num_envs),
        num_concurrent=count_concurrent(evaluator, args),
    )


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
