"""Trainings of the benchmark, and what is measured after each of their epochs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.common.searches import seconds_of_process
from benchmarks.fidelity.techniques import (
    DISTILLATION,
    GROWING_IMAGES,
    LABEL_SMOOTHING,
    TECHNIQUES,
    Distillation,
    GrowingImages,
    SmoothedCrossEntropy,
)
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, TrainingEvaluator
from nases_env.evaluation.training import TRAINING_VERSION
from nases_env.hashing import sha256_hex
from nases_env.safetensors_file import InvalidFileError, load_tensors, save_tensors
from nases_env.search_spaces import get_search_space
from nases_env.seeding import derive_seed, numpy_generator, torch_generator
from nases_env.training import (
    Checkpoint,
    EpochRecord,
    ImageSet,
    channel_statistics,
    load_images,
    train_classifier,
    uses_flip,
)
from nases_env.training.metrics import (
    NUM_RECALIBRATION_IMAGES,
    accuracy,
    predict_logits,
    recalibrate_batch_norm,
)
from nases_env.training.train_step import Criterion, cross_entropy

NUM_SEARCH_VALID_IMAGES = 2000  # validation images of the preset cpu; the first ones of the split
EMA_STEPS = 50.0  # the moving average of the weights forgets over this many steps
CHECKPOINT_SECONDS = 20.0
TEACHER = "teacher"  # name of its training, and of the metadata entry of its weights
TEACHER_SETTINGS: dict[str, Any] = {"num_epochs": 6, "schedule": "cosine", "num_cycles": 1, "num_train_images": None}


@dataclass(frozen=True)
class Job:
    """One training of one cell.

    Attributes:
        name: name of the training, such as ``final``.
        cell: index of the cell.
        key: canonical key of the cell.
        decisions: the decisions of the cell.
        repeat: number of the seed.
        settings: size and training of the network.
        dataset: name of the data set.
        data_dir: its directory; None: ``NASES_DATA_DIR``.
        device: torch device.
        search_space: name of the search space.
        seed: seed of the benchmark.
        images: digest of the images; None for a fixed data set.
        is_final: whether to measure the test accuracy after the training, and to write checkpoints.
        work_dir: directory of the results.
    """

    name: str
    cell: int
    key: str
    decisions: tuple[int, ...]
    repeat: int
    settings: ChildSettings
    dataset: str
    data_dir: str | None
    device: str
    search_space: str
    seed: int
    images: str | None
    is_final: bool
    work_dir: Path

    @property
    def path(self) -> Path:
        """The file of the result, whose name depends on the settings, so that other settings do not replace it."""
        return self.work_dir / self.name / f"{self.cell:03d}-{self.repeat}-{self.identity[:16]}.json"

    @property
    def identity(self) -> str:
        """A digest of everything that determines the result, except for the device."""
        values = (TRAINING_VERSION, self.search_space, self.key, self.repeat, self.dataset, self.seed, self.is_final)
        # The reward is computed from the measurements.
        settings = replace(self.settings, reward_signal="valid_accuracy", flops_exponent=0.0)
        description = [*values, dataclasses.asdict(settings)]
        if self.images is not None:
            description.append(self.images)
        if self.name in TECHNIQUES:
            description.append(TECHNIQUES[self.name])
        if self.name == DISTILLATION:
            description.append(self.teacher.identity)
        return sha256_hex(json.dumps(description))

    @property
    def teacher(self) -> Job:
        """The training of the teacher of a distillation, the same for all cells: another random cell, twice as wide."""
        cell = get_search_space(self.search_space).sample(numpy_generator(self.seed, "fidelity", "teacher"))
        return replace(
            self,
            name=TEACHER,
            cell=0,
            key=cell.key,
            decisions=tuple(int(decision) for decision in cell.decisions),
            repeat=0,
            settings=replace(self.settings, num_filters=2 * self.settings.num_filters, **TEACHER_SETTINGS),
        )

    def read(self) -> dict[str, Any] | None:
        """Return the result, or None if the training is not finished."""
        try:
            result: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        return result if "status" in result else None


def run(job: Job) -> Job:
    """Run the training of ``job`` and write its result, and a partial result after each epoch."""
    evaluator = TrainingEvaluator(
        job.search_space, job.dataset, replace(job.settings, num_valid_images=None), job.data_dir, device=job.device
    )
    train, valid = evaluator.images()
    device = torch.device(job.device)
    training_seed = derive_seed(job.seed, "fidelity", job.key, str(job.repeat))
    architecture = get_search_space(job.search_space).architecture(job.decisions)
    network = evaluator.build(architecture, training_seed)
    model = GrowingImages(network, **TECHNIQUES[GROWING_IMAGES]) if job.name == GROWING_IMAGES else network
    checkpoint = None
    if job.is_final:
        checkpoint = Checkpoint(job.path.with_suffix(".safetensors"), CHECKPOINT_SECONDS, job.identity, keep=True)
    monitor = _Monitor(job, network, train, valid, device, training_seed)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    with monitor.averaging():
        result = train_classifier(
            model,
            train,
            valid.subset(torch.arange(1)),  # the monitor measures
            job.settings,
            seed=training_seed,
            device=device,
            flip=uses_flip(job.dataset, job.settings),
            checkpoint=checkpoint,
            on_epoch=monitor.on_epoch,
            criterion=_criterion(job, evaluator),
        )
    monitor.values["status"] = result.status
    if job.is_final and result.status == "ok":
        test = load_images(job.dataset, train=False, data_dir=job.data_dir, image_size=job.settings.image_size)
        logits = predict_logits(network, test.images, channel_statistics(train.images), device, "auto")
        monitor.values["test_accuracy"] = accuracy(logits, test)
    if job.name == TEACHER and result.status == "ok":
        last = list(monitor.values["epochs"].values())[-1]
        record = {"identity": job.identity, "seconds": last["seconds"], "valid_accuracy": last["valid_accuracy"]}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_tensors(_weights_path(job), TEACHER, record, weights)
    monitor.write()
    if checkpoint is not None:
        checkpoint.path.unlink(missing_ok=True)
    return job


def find_teacher(jobs: Sequence[Job]) -> Job | None:
    """Return the training of the teacher that the distillations among ``jobs`` use, or None if there are none."""
    return next((job.teacher for job in jobs if job.name == DISTILLATION), None)


def read_teacher(teacher: Job) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Return the record and the weights of a trained teacher, or None if there is none with these settings.

    The record contains ``seconds`` and ``valid_accuracy``.
    """
    try:
        record, weights = load_tensors(_weights_path(teacher), TEACHER)
    except (FileNotFoundError, InvalidFileError):
        return None
    return (record, weights) if record["identity"] == teacher.identity else None


def _weights_path(teacher: Job) -> Path:
    return teacher.path.with_suffix(".safetensors")


def _criterion(job: Job, evaluator: TrainingEvaluator) -> Criterion:
    """Return the loss of a training.

    Raises:
        InputError: if the loss needs the teacher, and it is not trained.
    """
    if job.name == LABEL_SMOOTHING:
        return SmoothedCrossEntropy(**TECHNIQUES[job.name])
    if job.name == DISTILLATION:
        return Distillation(_load_teacher(job, evaluator), **TECHNIQUES[job.name])
    return cross_entropy


def _load_teacher(job: Job, evaluator: TrainingEvaluator) -> nn.Module:
    teacher = job.teacher
    trained = read_teacher(teacher)
    if trained is None:
        raise InputError(f"the teacher is not trained or diverged; see {teacher.path}, or leave out the training {job.name}")
    architecture = get_search_space(job.search_space).architecture(teacher.decisions)
    wide = replace(evaluator.settings, num_filters=teacher.settings.num_filters)
    network = replace(evaluator, settings=wide).build(architecture, seed=0)
    network.load_state_dict(trained[1])
    return network.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Monitor:
    """Measures a network after each epoch and keeps the results in a file."""

    def __init__(
        self, job: Job, model: nn.Module, train: ImageSet, valid: ImageSet, device: torch.device, training_seed: int
    ) -> None:
        self._job, self._model, self._valid, self._device = job, model, valid, device
        self._statistics = channel_statistics(train.images)
        order = torch.randperm(len(train), generator=torch_generator(training_seed, "measured images"))
        self._recalibration_images = train.images[order[:NUM_RECALIBRATION_IMAGES]]
        self._average: list[torch.Tensor] | None = None
        self._start = seconds_of_process(device)
        self.values: dict[str, Any] = {"identity": job.identity, "key": job.key, "epochs": {}}
        if job.is_final and job.path.exists():  # an interrupted training
            self.values["epochs"] = json.loads(job.path.read_text())["epochs"]

    @contextmanager
    def averaging(self) -> Iterator[None]:
        """Keep an exponential moving average of the weights, unless the training writes checkpoints, which lack it."""
        if self._job.is_final:
            yield
            return
        parameters: list[torch.Tensor] = list(self._model.parameters())

        def update(optimizer: object, args: object, kwargs: object) -> None:
            with torch.no_grad():
                if self._average is None:
                    self._average = [parameter.detach().clone() for parameter in parameters]
                else:
                    torch._foreach_lerp_(self._average, parameters, 1 / EMA_STEPS)

        handle = register_optimizer_step_post_hook(update)
        try:
            yield
        finally:
            handle.remove()

    def on_epoch(self, record: EpochRecord) -> None:
        """Measure the validation accuracy and loss, of the average weights too, and leave the network in training mode."""
        seconds = seconds_of_process(self._device) - self._start
        # A resumed training counts on from its last recorded epoch.
        before = self.values["epochs"].get(str(record.epoch - 1), {"seconds": 0.0})
        values = {
            "seconds": before["seconds"] + seconds,
            "train_loss": record.train_loss,
            "train_accuracy": record.train_accuracy,
            **self._measure(""),
        }
        if self._average is not None:
            parameters: list[torch.Tensor] = list(self._model.parameters())
            weights = [parameter.detach().clone() for parameter in parameters]
            with torch.no_grad():
                torch._foreach_copy_(parameters, self._average)
                values |= self._measure("ema_")
                torch._foreach_copy_(parameters, weights)
        self._model.train()
        self.values["epochs"][str(record.epoch)] = values
        self.write()
        self._start = seconds_of_process(self._device)

    def write(self) -> None:
        """Write the values to the file of the job."""
        write_atomically(self._job.path, (json.dumps(self.values) + "\n").encode())

    def _measure(self, prefix: str) -> dict[str, float]:
        precision = self._job.settings.precision
        recalibrate_batch_norm(
            self._model, self._recalibration_images, statistics=self._statistics, device=self._device, precision=precision
        )
        logits = predict_logits(self._model, self._valid.images, self._statistics, self._device, precision)
        few = self._valid.subset(torch.arange(min(NUM_SEARCH_VALID_IMAGES, len(self._valid))))
        return {
            f"{prefix}valid_accuracy_few": accuracy(logits[: len(few)], few),
            f"{prefix}valid_accuracy": accuracy(logits, self._valid),
            f"{prefix}valid_loss": F.cross_entropy(logits, self._valid.labels).item(),
        }
