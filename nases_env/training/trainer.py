"""Training of an image classifier on images in memory."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from nases_env.devices import is_out_of_gpu_memory
from nases_env.errors import InputError, one_line
from nases_env.hashing import tensor_digest
from nases_env.seeding import derive_seed, torch_generator
from nases_env.training.augmentation import ChannelStatistics, channel_statistics, draw_augmentation
from nases_env.training.checkpoint import Checkpoint, CheckpointFile, State, model_tensors, restore, snapshot
from nases_env.training.image_set import ImageSet
from nases_env.training.metrics import (
    NUM_RECALIBRATION_IMAGES,
    accuracy,
    predict_logits,
    recalibrate_batch_norm,
)
from nases_env.training.schedule import restarted_learning_rate
from nases_env.training.settings import TrainingSettings
from nases_env.training.train_step import Criterion, GraphedStep, TrainingStep, cross_entropy, side_stream

logger = logging.getLogger(__name__)

TrainingStatus = Literal["ok", "diverged", "out_of_memory"]

CHECKPOINT_VERSION = 2  # increment when the content of a checkpoint or its meaning changes
GPU_FINITE_CHECK_INTERVAL = 20  # batches between two checks of the loss on a GPU


@dataclass(frozen=True)
class EpochRecord:
    """Metrics of one training epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        learning_rate: learning rate of the first batch.
        train_loss: mean loss (``criterion``) over the epoch, on augmented images, without the auxiliary loss.
        train_accuracy: accuracy on the same images, in [0, 1].
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float


OnEpoch: TypeAlias = Callable[[EpochRecord], object]


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training run.

    Attributes:
        status: ``ok``; ``diverged`` if the loss or an output became NaN or infinite; ``out_of_memory`` if the GPU ran out
            of memory.
        valid_accuracy: accuracy on ``valid`` after the training, in [0, 1]; 0 unless ``ok``.
        train_accuracy: the same on a random subset of the training images, not augmented, of the size of ``valid``.
        num_epochs: completed epochs.
        seconds: wall time including the evaluation; if resumed, also the time up to the checkpoint.
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
    rungs: Sequence[int] = (),
    stop_epoch: int | None = None,
    criterion: Criterion = cross_entropy,
) -> TrainingResult:
    """Train ``model`` in place and evaluate it once after the last epoch.

    SGD with Nesterov momentum and weight decay, with a learning rate per batch (section 4.2 of the paper). Images are
    normalized by the statistics of ``train``. Each epoch uses the training images in a new order and drops the last batch if
    it is incomplete; the batch size is at most the number of images. The batch-norm statistics are re-estimated before the
    evaluation (``recalibrate_batch_norm``). A loss that is NaN or infinite ends the training: immediately on a CPU; some
    batches later, or at the end of the epoch, on a GPU, to avoid synchronization.

    The model maps float32 images (N, C, H, W) to logits (N, classes). Two optional methods are used if present:
    ``forward_with_auxiliary(images) -> (logits, auxiliary logits or None)`` adds 0.4 times the auxiliary loss, and
    ``set_drop_path_progress(fraction)`` is called before each batch with the fraction of the training that is completed, in
    [0, 1], as a tensor of shape () on the device. On a GPU the training step is captured as a CUDA graph
    (``settings.cuda_graphs``), so the model must not synchronize with the CPU or branch on a value.

    All randomness (order, crops, flips, cutouts, dropout of the model) depends on ``seed``; torch's global generators are
    not changed. On a CPU, with the same number of threads, equal models and seeds give bit-identical curves. On a GPU the
    order and augmentation equal those on a CPU, but some cuDNN and atomic-add kernels sum in a nondeterministic order, so
    curves differ in the last digits and then diverge, unless the caller sets ``torch.use_deterministic_algorithms(True)``.
    On other devices, such as ``mps``, dropout and drop-path draw from torch's generator without a seed.

    With a ``checkpoint``, the same call after a crash, on a model with the same initial weights, resumes after the last
    saved epoch and gives the same weights, curve and accuracies as an uninterrupted run. This requires that the model has no
    state except parameters, buffers and torch's generators. The file is removed at the end, unless the training raises an
    exception or ``checkpoint.keep`` is set. A file that is damaged or belongs to a different training run (seed, settings,
    ``flip``, ``rungs``, training images, initial weights, device type, number of threads, torch version or
    ``checkpoint.identity``) is logged as a warning, and the training starts from the beginning.

    With ``stop_epoch``, the training is interrupted after that epoch and the model is evaluated. A checkpoint is written,
    unless its interval is inf, and kept. A later call with a larger ``stop_epoch``, or without it, continues the training,
    with the same result as an uninterrupted run.

    Args:
        model: the model to train; it stays on ``device``.
        train: the training images. All are used: ``split_train_valid`` applies the limits of ``settings``.
        valid: the evaluation images, used once after the training; the test set for a final training.
        settings: the training hyperparameters.
        seed: seed of the training; ``model`` has the initial weights already.
        device: the device to train on.
        flip: whether to flip training images at random.
        checkpoint: location and frequency of checkpoints; None: no checkpoints.
        on_epoch: called after each completed epoch, before its checkpoint; an epoch may be repeated after a crash.
        rungs: epochs after which the learning rate schedule restarts, increasing; the last one must be
            ``settings.num_epochs``. Empty: one schedule for the whole training.
        stop_epoch: the last epoch of this call; None: the last one of the training.
        criterion: the loss: a function of the logits, the labels and the augmented, normalized images of a batch that
            returns a tensor of shape (). It is also the loss of the auxiliary head. With a checkpoint, changes of the
            criterion must change ``checkpoint.identity``.

    Raises:
        InputError: if there are fewer than two training images, which batch norm requires, a training step cannot be
            captured as a CUDA graph, or a checkpoint cannot be written.
    """
    if len(train) < 2:
        raise InputError(f"training needs at least 2 images, got {len(train)}; raise num_train_images or add images")
    progress = _Progress(start=time.perf_counter(), curve=[])
    run = _Run(model, train, settings, seed, device, flip, rungs, criterion)
    file = None if checkpoint is None else CheckpointFile(checkpoint, _fingerprint(run, checkpoint.identity))
    num_epochs = settings.total_epochs(len(train))
    if stop_epoch is None:
        stop_epoch = num_epochs
    accuracies: tuple[float, float] | None = None
    status: TrainingStatus = "diverged"
    try:
        with _seeded(derive_seed(seed, "model"), device):
            statistics = channel_statistics(train.images)
            with side_stream(device):
                finished = _train(run, statistics, progress, file, on_epoch, stop_epoch)
            if finished:
                accuracies = _measure(run, valid, statistics)
        if accuracies is not None:
            status = "ok"
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        # As text, because a log record with the error would reference its frames.
        logger.warning("out of GPU memory after %d epochs: %s", len(progress.curve), one_line(error))
        status = "out_of_memory"
    if status == "out_of_memory":  # outside the handler, whose traceback references the tensors
        model.zero_grad(set_to_none=True)
        gc.collect()  # errors during a capture, and torch's optimizers, are in reference cycles
        torch.cuda.empty_cache()
    if file is not None and not file.keep and not (status == "ok" and stop_epoch < num_epochs):
        file.remove()
    valid_accuracy, train_accuracy = accuracies or (0.0, 0.0)
    curve = tuple(progress.curve)
    return TrainingResult(status, valid_accuracy, train_accuracy, len(curve), progress.seconds, curve)


@dataclass(frozen=True)
class _Run:
    """The arguments of ``train_classifier`` that determine the weights after each epoch."""

    model: nn.Module
    train: ImageSet
    settings: TrainingSettings
    seed: int
    device: torch.device
    flip: bool
    rungs: Sequence[int]
    criterion: Criterion


@dataclass
class _Progress:
    """Progress of a training run.

    Attributes:
        start: start time of an equivalent uninterrupted run, as ``time.perf_counter()``.
        curve: the completed epochs.
    """

    start: float
    curve: list[EpochRecord]

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def to_values(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "curve": [asdict(record) for record in self.curve]}

    def resume_from(self, values: dict[str, Any]) -> None:
        self.start -= values["seconds"]
        self.curve = [EpochRecord(**record) for record in values["curve"]]


def _train(
    run: _Run,
    statistics: ChannelStatistics,
    progress: _Progress,
    file: CheckpointFile | None,
    on_epoch: OnEpoch,
    stop_epoch: int,
) -> bool:
    """Train up to ``stop_epoch``, starting with the epochs in ``file``; return False if the loss is not finite."""
    model, train, settings, device = run.model, run.train, run.settings, run.device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    generator = torch_generator(run.seed, "batches")
    crop_padding = min(train.image_shape[1:]) // 8 if settings.crop_padding is None else settings.crop_padding
    batch_size = min(settings.batch_size, len(train))
    step = TrainingStep(
        model,
        train.images.to(device, memory_format=torch.channels_last),
        train.labels.to(device),
        statistics.to(device),
        settings,
        batch_size=batch_size,
        crop_padding=crop_padding,
        criterion=run.criterion,
    )
    run_step = GraphedStep(step) if device.type == "cuda" and settings.cuda_graphs else step
    rungs = run.rungs or (settings.total_epochs(len(train)),)
    num_epochs = rungs[-1]
    num_batches = num_epochs * step.num_batches
    check_interval = 1 if device.type == "cpu" else GPU_FINITE_CHECK_INTERVAL

    generators = {"batches": generator, **_global_generators(device)}
    state = None if file is None else file.load()
    if state is not None and len(state.values["curve"]) > stop_epoch:
        logger.info(
            "the checkpoint is after epoch %d; training again up to epoch %d", len(state.values["curve"]), stop_epoch
        )
        state = file = None  # do not replace the checkpoint by an earlier one
    if file is not None and state is not None:
        restore(state.tensors, model, step.optimizer, generators)
        progress.resume_from(state.values)
        logger.info("resuming after epoch %d of %d from %s", len(progress.curve), num_epochs, file.path)

    for epoch in range(len(progress.curve), stop_epoch):
        order = torch.randperm(len(train), generator=generator)
        params = draw_augmentation(
            len(train), train.image_shape[1:], crop_padding=crop_padding, flip=run.flip, generator=generator
        )
        batches = range(epoch * step.num_batches, (epoch + 1) * step.num_batches)
        learning_rates = [restarted_learning_rate(settings, batch, rungs, step.num_batches) for batch in batches]
        step.begin_epoch(order, params, learning_rates, [batch / num_batches for batch in batches])
        for index in range(step.num_batches):
            run_step()
            if (index + 1) % check_interval == 0 and not step.loss_is_finite():
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
        is_interrupted = epoch + 1 == stop_epoch < num_epochs
        if file is not None and (file.is_due or (is_interrupted and file.interval_seconds < math.inf)):
            file.save(State(progress.to_values(), snapshot(model, step.optimizer, generators)))
    model.zero_grad(set_to_none=True)
    return True


def _fingerprint(run: _Run, identity: str) -> str:
    """Return a digest of everything that determines the weights after an epoch."""
    description = {
        "version": CHECKPOINT_VERSION,
        "torch": torch.__version__,
        "device": run.device.type,
        "num_threads": torch.get_num_threads() if run.device.type == "cpu" else None,
        "seed": int(run.seed),
        "settings": asdict(run.settings),
        "flip": run.flip,
        "identity": identity,
    }
    if run.rungs:
        description["rungs"] = list(run.rungs)
    images, labels = run.train.images, run.train.labels
    return tensor_digest(description, {"images": images, "labels": labels, **model_tensors(run.model)})


def _measure(run: _Run, valid: ImageSet, statistics: ChannelStatistics) -> tuple[float, float] | None:
    """Return the validation and training accuracy after batch-norm re-estimation; None if an output is not finite."""
    model, train, device, precision = run.model, run.train, run.device, run.settings.precision
    # A random order, because an image set may be sorted by class.
    order = torch.randperm(len(train), generator=torch_generator(run.seed, "measured images"))
    images = train.images[order[:NUM_RECALIBRATION_IMAGES]]
    recalibrate_batch_norm(model, images, statistics=statistics, device=device, precision=precision)
    accuracies = []
    for image_set in (valid, train.subset(order[: len(valid)])):
        logits = predict_logits(model, image_set.images, statistics, device, precision)
        if not logits.isfinite().all():
            return None
        accuracies.append(accuracy(logits, image_set))
    return accuracies[0], accuracies[1]


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of ``device``, and restore their state on exit."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


def _global_generators(device: torch.device) -> dict[str, torch.Generator]:
    """Return the generators that ``_seeded`` seeds, by device type."""
    generators = {"cpu": torch.default_generator}
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators["cuda"] = torch.cuda.default_generators[index]
    return generators
