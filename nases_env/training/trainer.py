"""The training of one classifier on images that are in memory. It knows no search space."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nases_env.errors import InputError
from nases_env.seeding import derive_seed, torch_generator
from nases_env.training.augmentation import ChannelStatistics, augment, channel_statistics, draw_augmentation, normalise
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
from nases_env.training.schedule import learning_rate
from nases_env.training.settings import Precision, TrainingSettings

logger = logging.getLogger(__name__)

TrainingStatus = Literal["ok", "diverged", "out_of_memory"]

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in ENAS
EVALUATION_BATCH_SIZE = 500  # images
NUM_RECALIBRATION_IMAGES = 2000  # the most training images that batch-norm statistics are re-estimated on
CHECKPOINT_VERSION = 1  # to be raised with every change to what a checkpoint holds or means
GPU_CHECK_INTERVAL = 20  # batches between two looks at the loss; each look makes a GPU wait, and costs a CPU nothing


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


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        status: ``ok``; ``diverged`` if the loss or an output became NaN or infinite; ``out_of_memory`` if the GPU's memory
            did not suffice.
        valid_accuracy: of the trained model on the validation images, in [0, 1]; 0 unless ``ok``.
        train_accuracy: the same on the first training images, un-augmented, as many as there are validation images.
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
) -> TrainingResult:
    """Trains ``model`` in place and measures it once, after the last epoch.

    SGD with Nesterov momentum and weight decay, learning rate per batch (section 4.2 of the paper). Images are standardised
    by the statistics of ``train``. Each epoch visits the training images in a new order and leaves out a last incomplete
    batch, unless it is the only one. Before the measurement the batch-norm statistics are re-estimated
    (``recalibrate_batch_norm``). A loss that is NaN or infinite ends the training: at once on a CPU; on a GPU within
    ``GPU_CHECK_INTERVAL`` batches, since a look at every loss would make it wait.

    The model maps float32 images (N, C, H, W) to logits (N, classes). Two methods are used where it has them:
    ``forward_with_auxiliary(images) -> (logits, auxiliary logits or None)`` adds 0.4 times the auxiliary loss, and
    ``set_progress(fraction)`` is told before each batch how much of the training is done, in [0, 1].

    Everything random (order, crops, flips, holes, the model's own draws) comes from ``seed``; torch's global generators are
    left as they were. On a CPU with the same number of threads the same model and seed give the same curve bit for bit. On
    a GPU order, crops, flips and holes are the same as on a CPU, but some cuDNN and atomic-add kernels sum in no fixed
    order, so that curves differ in the last digits and then drift apart, unless the caller has set
    ``torch.use_deterministic_algorithms(True)``.

    With a ``checkpoint``, a training that was killed and is started again by the same call, on a model with the same initial
    weights, continues after the epoch that was written last, and ends with the same weights, curve and accuracies as an
    undisturbed one. A model whose behaviour depends on more than its parameters, buffers and torch's generators cannot be
    continued so. The file is removed at the end, unless an exception ends the training. A file that is damaged or
    belongs to another training (seed, settings, ``flip``, training images, initial weights, kind of device, number of
    threads, version of torch, ``checkpoint.identity``) is a warning, and the training begins at its start.

    Args:
        train, valid: all of their images are used; ``split_train_valid`` has applied the settings' numbers of images.
        seed: of the training alone; the initial weights are the caller's.
        device: where to train; the model stays there.
        flip: whether to mirror half of the images.
        checkpoint: where and how often the state is written; None: never.

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
            if _train(model, train, statistics, settings, seed, device, flip, progress, file):
                accuracies = _measure(model, train, valid, statistics, settings, device)
        if accuracies is not None:
            status = "ok"
    except torch.cuda.OutOfMemoryError as error:
        logger.warning("out of GPU memory after %d epochs: %s", len(progress.curve), error)
        status = "out_of_memory"
    if status == "out_of_memory":  # outside the handler: its traceback holds on to the tensors
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    if file is not None:
        file.remove()
    valid_accuracy, train_accuracy = accuracies or (0.0, 0.0)
    curve = tuple(progress.curve)
    return TrainingResult(status, valid_accuracy, train_accuracy, len(curve), progress.seconds, curve)


def evaluate_accuracy(
    model: nn.Module,
    image_set: ImageSet,
    *,
    statistics: ChannelStatistics,
    device: torch.device,
    precision: Precision = "auto",
) -> float:
    """The share of ``image_set`` that ``model`` classifies right, in [0, 1]; the model is left in evaluation mode.

    Args:
        statistics: of the images that the model was trained on (``channel_statistics``).
        device: where the model is.
        precision: as in ``TrainingSettings``.
    """
    logits = _logits(model, image_set.images, statistics, device, precision)
    return _accuracy(logits, image_set.labels)


def recalibrate_batch_norm(
    model: nn.Module,
    images: torch.Tensor,
    *,
    statistics: ChannelStatistics,
    device: torch.device,
    precision: Precision = "auto",
) -> None:
    """Re-estimates the running statistics of every batch-norm layer, and leaves the model in evaluation mode.

    The moving averages lag behind the weights, after a short training by so much that accuracies mislead. They are replaced
    by the plain average over a few batches of equal size of the un-augmented ``images``, seen by the network as in
    evaluation (no dropout, no drop-path) except that batch norm normalises by the batch. The first
    ``NUM_RECALIBRATION_IMAGES`` of ``images``, uint8 of shape (N, C, H, W), are used at most.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    images = images[:NUM_RECALIBRATION_IMAGES]
    num_batches = max(1, len(images) // EVALUATION_BATCH_SIZE)
    batch_size = len(images) // num_batches
    try:
        with torch.no_grad(), _autocast(precision, device):
            for index in range(num_batches):
                batch = images[index * batch_size : (index + 1) * batch_size].to(device)
                model(_standardise(batch, statistics))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


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
) -> bool:
    """All epochs that ``file`` does not hold, each added to ``progress``; False if the loss left the finite numbers."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr_max,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda", "mps"),
    )
    statistics = _to(statistics, device)
    images = train.images.to(device, memory_format=torch.channels_last)
    labels = train.labels.to(device)
    generator = torch_generator(seed, "batches")
    forward = getattr(model, "forward_with_auxiliary", None) or (lambda batch: (model(batch), None))
    set_progress = getattr(model, "set_progress", None)
    crop_padding = train.image_shape[1] // 8 if settings.crop_padding is None else settings.crop_padding
    batch_size = min(settings.batch_size, len(train))
    batches_per_epoch = len(train) // batch_size
    num_batches = settings.num_epochs * batches_per_epoch
    check_interval = 1 if device.type == "cpu" else GPU_CHECK_INTERVAL

    generators = {"batches": generator, **_global_generators(device)}
    state = None if file is None else file.load()
    if file is not None and state is not None:
        restore(state.tensors, model, optimizer, generators)
        progress.continue_from(state.values)
        logger.info("continuing after epoch %d of %d from %s", len(progress.curve), settings.num_epochs, file.path)

    for epoch in range(len(progress.curve), settings.num_epochs):
        order = torch.randperm(len(train), generator=generator).to(device)
        draws = draw_augmentation(
            len(train), train.image_shape[1:], crop_padding=crop_padding, flip=flip, generator=generator
        ).to(device)
        loss_sum = torch.zeros((), device=device)
        num_right = torch.zeros((), dtype=torch.int64, device=device)
        for index in range(batches_per_epoch):
            batch = epoch * batches_per_epoch + index
            first, last = index * batch_size, (index + 1) * batch_size
            if set_progress is not None:
                set_progress(batch / num_batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, batch, num_batches)
            chosen = order[first:last]
            inputs = augment(
                images[chosen],
                draws.rows(first, last),
                statistics,
                crop_padding=crop_padding,
                cutout=settings.cutout,
            )
            targets = labels[chosen]
            with _autocast(settings.precision, device):
                logits, auxiliary_logits = forward(inputs)
                loss = F.cross_entropy(logits, targets)
                total_loss = loss
                if auxiliary_logits is not None:
                    total_loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary_logits, targets)
            optimizer.zero_grad(set_to_none=True)
            total_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach()
            num_right += (logits.detach().argmax(1) == targets).sum()
            if (index + 1) % check_interval == 0 and not loss_sum.isfinite():
                return False
        if not loss_sum.isfinite():
            return False
        progress.curve.append(
            EpochRecord(
                epoch=epoch + 1,
                learning_rate=learning_rate(settings, epoch * batches_per_epoch, num_batches),
                train_loss=loss_sum.item() / batches_per_epoch,
                train_accuracy=num_right.item() / (batches_per_epoch * batch_size),
            )
        )
        if file is not None and file.is_due:
            file.save(State(progress.to_values(), capture(model, optimizer, generators)))
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
    device: torch.device,
) -> tuple[float, float] | None:
    """Validation and training accuracy after batch-norm re-estimation; None if an output is not finite."""
    recalibrate_batch_norm(model, train.images, statistics=statistics, device=device, precision=settings.precision)
    accuracies = []
    for image_set in (valid, train):
        images, labels = image_set.images[: len(valid)], image_set.labels[: len(valid)]
        logits = _logits(model, images, statistics, device, settings.precision)
        if not logits.isfinite().all():
            return None
        accuracies.append(_accuracy(logits, labels))
    return accuracies[0], accuracies[1]


def _logits(
    model: nn.Module, images: torch.Tensor, statistics: ChannelStatistics, device: torch.device, precision: Precision
) -> torch.Tensor:
    """The model's outputs on the CPU, float32 of shape (N, classes)."""
    model.eval()
    with torch.no_grad(), _autocast(precision, device):
        batches = [model(_standardise(batch.to(device), statistics)) for batch in torch.split(images, EVALUATION_BATCH_SIZE)]
    return torch.cat(batches).float().cpu()


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def _standardise(images: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    return normalise(images.contiguous(memory_format=torch.channels_last), _to(statistics, images.device))


def _to(statistics: ChannelStatistics, device: torch.device) -> ChannelStatistics:
    return ChannelStatistics(statistics.mean.to(device), statistics.std.to(device))


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


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
