"""The training of one classifier on images that are in memory. It knows no search space."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from nases_env.errors import InputError
from nases_env.seeding import derive_seed, torch_generator
from nases_env.training.augmentation import ChannelStatistics, channel_statistics, draw_augmentation
from nases_env.training.checkpoint import (
    Checkpoint,
    CheckpointFile,
    State,
    capture,
    digest,
    model_tensors,
    restore,
)
from nases_env.training.image_set import ImageSet
from nases_env.training.metrics import (
    NUM_RECALIBRATION_IMAGES,
    num_correct,
    predict_logits,
    recalibrate_batch_norm,
)
from nases_env.training.schedule import learning_rate
from nases_env.training.settings import TrainingSettings
from nases_env.training.train_step import GraphedStep, TrainingStep, side_stream

logger = logging.getLogger(__name__)

TrainingStatus = Literal["ok", "diverged", "out_of_memory"]

CHECKPOINT_VERSION = 2  # to be raised with every change to what a checkpoint holds or means
GPU_LOOK_INTERVAL = 20  # batches between two looks at a GPU's losses


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a training.

    Attributes:
        epoch: 1 .. num_epochs.
        learning_rate: of the epoch's first batch.
        train_loss: mean cross-entropy of the augmented images as they were trained on, without the auxiliary loss.
        train_accuracy: the share of them that was classified right, in [0, 1].
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float


OnEpoch: TypeAlias = Callable[[EpochRecord], object]


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        status: ``ok``; ``diverged`` if the loss or an output became NaN or infinite; ``out_of_memory`` if the GPU's memory
            did not suffice.
        valid_accuracy: of the trained model on ``valid``, in [0, 1]; 0 unless ``ok``.
        train_accuracy: the same on training images that are drawn from all, un-augmented, as many as ``valid`` has.
        num_epochs: epochs completed.
        seconds: wall time, measurement included; after an interruption, also the time up to the checkpoint.
        curve: the completed epochs.
    """

    status: TrainingStatus
    valid_accuracy: float
    train_accuracy: float
    num_epochs: int
    seconds: float
    curve: tuple[EpochRecord, ...]


def train_classifier(
    model: nn.Module,
    train: ImageSet,
    valid: ImageSet,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    flip: bool,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch = lambda record: None,
) -> TrainingResult:
    """Trains ``model`` in place and measures it once, after the last epoch.

    SGD with Nesterov momentum and weight decay, learning rate per batch (section 4.2 of the paper). Images are standardised
    by the statistics of ``train``. Each epoch visits the training images in a new order and leaves out a last incomplete
    batch, unless it is the only one. Before the measurement the batch-norm statistics are re-estimated
    (``recalibrate_batch_norm``). A loss that is NaN or infinite ends the training: at once on a CPU; on a GPU, which is not
    waited for within an epoch, some batches later or at the epoch's end.

    The model maps float32 images (N, C, H, W) to logits (N, classes). Two methods are used where it has them:
    ``forward_with_auxiliary(images) -> (logits, auxiliary logits or None)`` adds 0.4 times the auxiliary loss, and
    ``set_progress(fraction)`` is told before each batch how much of the training is done, in [0, 1], as a tensor of shape ()
    on the device. On a GPU a training step is captured as a CUDA graph (``settings.cuda_graphs``), so that the model must
    not make the CPU wait for a value, nor decide by one.

    Everything random (order, crops, flips, holes, the model's own draws) comes from ``seed``; torch's global generators are
    left as they were. On a CPU with the same number of threads the same model and seed give the same curve bit for bit. On
    a GPU order, crops, flips and holes are the same as on a CPU, but some cuDNN and atomic-add kernels sum in no fixed
    order, so that curves differ in the last digits and then drift apart, unless the caller has set
    ``torch.use_deterministic_algorithms(True)``.

    With a ``checkpoint``, a training that was killed and is started again by the same call, on a model with the same initial
    weights, continues after the epoch that was written last, and ends with the same weights, curve and accuracies as an
    undisturbed one. A model whose behaviour depends on more than its parameters, buffers and torch's generators cannot be
    continued so. The file is removed at the end, unless an exception ends the training or ``checkpoint.keep``. A file
    that is damaged or belongs to another training (seed, settings, ``flip``, training images, initial weights, kind of
    device, number of threads, version of torch, ``checkpoint.identity``) is a warning, and the training begins at its start.

    Args:
        train, valid: all of their images are used; ``split_train_valid`` has applied the settings' numbers of images.
            ``valid`` is looked at once, when the training has ended: in a final training it is the test set.
        seed: of the training alone; the initial weights are the caller's.
        device: where to train; the model stays there.
        flip: whether to mirror half of the images.
        checkpoint: where and how often the state is written; None: never.
        on_epoch: called with each epoch that is completed, before its checkpoint: after a kill perhaps once more.

    Raises:
        InputError: if there are fewer than two training images, which batch normalisation cannot train on, or a checkpoint
            cannot be written.
    """
    if len(train) < 2:
        raise InputError(f"training needs at least 2 images, got {len(train)}; raise num_train_images or add images")
    progress = _Progress(start=time.perf_counter(), curve=[])
    file = None
    if checkpoint is not None:
        file = CheckpointFile(checkpoint, _fingerprint(model, train, settings, seed, device, flip, checkpoint.identity))
    accuracies: tuple[float, float] | None = None
    status: TrainingStatus = "diverged"
    try:
        with _seeded(derive_seed(seed, "model"), device):
            statistics = channel_statistics(train.images)
            with side_stream(device):
                finished = _train(model, train, statistics, settings, seed, device, flip, progress, file, on_epoch)
            if finished:
                accuracies = _measure(model, train, valid, statistics, settings, seed, device)
        if accuracies is not None:
            status = "ok"
    except torch.cuda.OutOfMemoryError as error:
        logger.warning("out of GPU memory after %d epochs: %s", len(progress.curve), error)
        status = "out_of_memory"
    if status == "out_of_memory":  # outside the handler: its traceback holds on to the tensors
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    if file is not None and not file.keep:
        file.remove()
    valid_accuracy, train_accuracy = accuracies or (0.0, 0.0)
    curve = tuple(progress.curve)
    return TrainingResult(status, valid_accuracy, train_accuracy, len(curve), progress.seconds, curve)


@dataclass
class _Progress:
    """How far a training has come.

    Attributes:
        start: when it would have started without interruptions, by ``time.perf_counter``.
        curve: the completed epochs.
    """

    start: float
    curve: list[EpochRecord]

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def to_values(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "curve": [asdict(record) for record in self.curve]}

    def continue_from(self, values: dict[str, Any]) -> None:
        self.start -= values["seconds"]
        self.curve = [EpochRecord(**record) for record in values["curve"]]


def _train(
    model: nn.Module,
    train: ImageSet,
    statistics: ChannelStatistics,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    flip: bool,
    progress: _Progress,
    file: CheckpointFile | None,
    on_epoch: OnEpoch,
) -> bool:
    """All epochs that ``file`` does not hold, each added to ``progress``; False if the loss left the finite numbers."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    generator = torch_generator(seed, "batches")
    crop_padding = train.image_shape[1] // 8 if settings.crop_padding is None else settings.crop_padding
    batch_size = min(settings.batch_size, len(train))
    step = TrainingStep(
        model,
        train.images.to(device, memory_format=torch.channels_last),
        train.labels.to(device),
        statistics.to(device),
        settings,
        batch_size=batch_size,
        crop_padding=crop_padding,
    )
    run_step = GraphedStep(step) if device.type == "cuda" and settings.cuda_graphs else step
    num_batches = settings.num_epochs * step.num_batches
    look_interval = 1 if device.type == "cpu" else GPU_LOOK_INTERVAL

    generators = {"batches": generator, **_global_generators(device)}
    state = None if file is None else file.load()
    if file is not None and state is not None:
        restore(state.tensors, model, step.optimizer, generators)
        progress.continue_from(state.values)
        logger.info("continuing after epoch %d of %d from %s", len(progress.curve), settings.num_epochs, file.path)

    for epoch in range(len(progress.curve), settings.num_epochs):
        order = torch.randperm(len(train), generator=generator)
        draws = draw_augmentation(
            len(train), train.image_shape[1:], crop_padding=crop_padding, flip=flip, generator=generator
        )
        batches = range(epoch * step.num_batches, (epoch + 1) * step.num_batches)
        learning_rates = [learning_rate(settings, batch, num_batches) for batch in batches]
        step.begin_epoch(order, draws, learning_rates, [batch / num_batches for batch in batches])
        for index in range(step.num_batches):
            run_step()
            if (index + 1) % look_interval == 0 and not step.look():
                return False
        if not step.loss_sum.isfinite():
            return False
        record = EpochRecord(
            epoch=epoch + 1,
            learning_rate=learning_rates[0],
            train_loss=step.loss_sum.item() / step.num_batches,
            train_accuracy=step.num_correct.item() / (step.num_batches * batch_size),
        )
        progress.curve.append(record)
        on_epoch(record)
        if file is not None and file.is_due:
            file.save(State(progress.to_values(), capture(model, step.optimizer, generators)))
    model.zero_grad(set_to_none=True)
    return True


def _fingerprint(
    model: nn.Module, train: ImageSet, settings: TrainingSettings, seed: int, device: torch.device, flip: bool, identity: str
) -> str:
    """A digest of all that decides the weights after an epoch."""
    description = {
        "version": CHECKPOINT_VERSION,
        "torch": torch.__version__,
        "device": device.type,
        "num_threads": torch.get_num_threads() if device.type == "cpu" else None,
        "seed": int(seed),
        "settings": asdict(settings),
        "flip": flip,
        "identity": identity,
    }
    return digest(description, {"images": train.images, "labels": train.labels, **model_tensors(model)})


def _measure(
    model: nn.Module,
    train: ImageSet,
    valid: ImageSet,
    statistics: ChannelStatistics,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
) -> tuple[float, float] | None:
    """Validation and training accuracy after batch-norm re-estimation; None if an output is not finite."""
    # Drawn, since an image set may be sorted by class: its first images would not be like the others.
    drawn = torch.randperm(len(train), generator=torch_generator(seed, "measured images"))
    recalibrated = train.images[drawn[:NUM_RECALIBRATION_IMAGES]]
    recalibrate_batch_norm(model, recalibrated, statistics=statistics, device=device, precision=settings.precision)
    accuracies = []
    for image_set in (valid, train.subset(drawn[: len(valid)])):
        logits = predict_logits(model, image_set.images, statistics, device, settings.precision)
        if not logits.isfinite().all():
            return None
        accuracies.append(num_correct(logits, image_set) / len(image_set))
    return accuracies[0], accuracies[1]


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators of the CPU and of ``device`` start from ``seed`` inside, and are as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


def _global_generators(device: torch.device) -> dict[str, torch.Generator]:
    """The generators that ``_seeded`` seeds, by the kind of their device."""
    generators = {"cpu": torch.default_generator}
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators["cuda"] = torch.cuda.default_generators[index]
    return generators
