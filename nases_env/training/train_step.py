"""One step of SGD. On a GPU it never synchronizes with the CPU, so that it can be captured as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.devices import is_out_of_gpu_memory
from nases_env.errors import InputError, one_line
from nases_env.optimizers import SGD
from nases_env.training.augmentation import AugmentationParams, ChannelStatistics, augment
from nases_env.training.metrics import autocast
from nases_env.training.settings import TrainingSettings

AUXILIARY_WEIGHT = 0.4  # weight of the loss of the auxiliary head, as in ENAS
WARM_UP_STEPS = 3  # eager steps before the capture, which make all one-time allocations

Criterion: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Returns the mean loss of a batch, of shape (), from its logits, labels and images."""


def cross_entropy(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch; the images are not used."""
    return F.cross_entropy(logits, labels)


class TrainingStep:
    """Training step: each call trains the model on the next batch of the epoch.

    All values that differ between steps are read from tensors with a fixed address on the device, which ``begin_epoch``
    fills for a whole epoch. All calls therefore do the same work, and a CUDA graph of one call can be replayed for the
    others.

    Args:
        model: the model, in training mode; see ``train_classifier`` for the methods that are used.
        images: uint8, shape (N, C, H, W), channels-last, on the device of the model.
        labels: int64, shape (N,), on the device of the model.
        statistics: channel statistics for the normalization, on the device of the model.
        settings: the training hyperparameters.
        batch_size: images per batch, at most N.
        crop_padding: padding of the random crop in pixels.
        criterion: the loss; see ``train_classifier``.

    Attributes:
        num_batches: batches per epoch.
        optimizer: the optimizer of the model; its learning rate is a tensor.
        loss_sum: sum of the losses of the batches of this epoch so far, without the auxiliary loss; float32, shape ().
        num_correct: number of correctly classified training images of this epoch so far; int64, shape ().
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        statistics: ChannelStatistics,
        settings: TrainingSettings,
        *,
        batch_size: int,
        crop_padding: int,
        criterion: Criterion = cross_entropy,
    ) -> None:
        device = images.device
        num_batches = len(images) // batch_size
        scalar_dtype = torch.float64 if device.type == "cpu" else torch.float32  # as the fused optimizer requires
        self.num_batches = num_batches
        self._model = model
        self._forward = getattr(model, "forward_with_auxiliary", None) or (lambda batch: (model(batch), None))
        self._criterion = criterion
        self._set_progress = getattr(model, "set_drop_path_progress", None)
        self._images, self._labels, self._statistics = images, labels, statistics
        self._crop_padding, self._cutout_length, self._precision = crop_padding, settings.cutout_length, settings.precision
        self._learning_rate = torch.zeros((), dtype=scalar_dtype, device=device)
        self.optimizer = SGD(
            model.parameters(),
            lr=settings.lr_max,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda", "mps"),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate
        per_image = (num_batches, batch_size)
        self._order = torch.zeros(per_image, dtype=torch.int64, device=device)
        self._params = AugmentationParams(
            crop=torch.zeros((*per_image, 2), dtype=torch.int64, device=device),
            flip=torch.zeros(per_image, dtype=torch.bool, device=device),
            cutout_center=torch.zeros((*per_image, 2), dtype=torch.int64, device=device),
        )
        self._learning_rates = torch.zeros(num_batches, dtype=scalar_dtype, device=device)
        self._progress = torch.zeros(num_batches, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self._pinned_finite_flag = torch.ones((), dtype=torch.bool, pin_memory=device.type == "cuda")

    def begin_epoch(
        self, order: Tensor, params: AugmentationParams, learning_rates: list[float], progress: list[float]
    ) -> None:
        """Set the data of the next epoch, i.e., of the next ``num_batches`` calls.

        Args:
            order: indices of the images in the order in which they are used, int64 of shape (N,). An incomplete last
                batch is dropped.
            params: augmentation parameters of N images, in the same order.
            learning_rates: the learning rate of each batch.
            progress: the fraction of the training completed before each batch, in [0, 1].
        """
        for buffer, values in zip((self._order, *self._params), (order, *params), strict=True):
            buffer.copy_(values[: self._order.numel()].view_as(buffer))
        self._learning_rates.copy_(torch.tensor(learning_rates, dtype=torch.float64))
        self._progress.copy_(torch.tensor(progress))
        for counter in (self._index, self.loss_sum, self.num_correct):
            counter.zero_()

    def __call__(self) -> None:
        """Train on the next batch."""
        indices = self._current(self._order)
        self._learning_rate.copy_(self._current(self._learning_rates))
        if self._set_progress is not None:
            self._set_progress(self._current(self._progress))
        inputs = augment(
            self._images[indices],
            AugmentationParams(*map(self._current, self._params)),
            self._statistics,
            crop_padding=self._crop_padding,
            cutout_length=self._cutout_length,
        )
        targets = self._labels[indices]
        with autocast(self._precision, inputs.device):
            logits, auxiliary_logits = self._forward(inputs)
            loss = self._criterion(logits, targets, inputs)
            total_loss = loss
            if auxiliary_logits is not None:
                total_loss = loss + AUXILIARY_WEIGHT * self._criterion(auxiliary_logits, targets, inputs)
        self.optimizer.zero_grad(set_to_none=True)
        total_loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.num_correct += (logits.detach().argmax(1) == targets).sum()
        self._index += 1

    def loss_is_finite(self) -> bool:
        """Return whether all losses of the epoch are finite, without waiting for a GPU.

        On a GPU this returns the result of the previous check and starts a new one asynchronously.
        """
        if self.loss_sum.device.type != "cuda":
            return bool(self.loss_sum.isfinite())
        is_finite = bool(self._pinned_finite_flag)
        self._pinned_finite_flag.copy_(self.loss_sum.isfinite(), non_blocking=True)
        return is_finite

    def _current(self, per_batch: Tensor) -> Tensor:
        """Return the row of the next batch."""
        return per_batch.index_select(0, self._index).squeeze(0)


class GraphedStep:
    """Training step that is captured as a CUDA graph once and then replayed with a single launch.

    The first ``WARM_UP_STEPS`` calls run eagerly and train as well. It must be created and called within ``side_stream``.
    """

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._num_calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Train on the next batch.

        Raises:
            InputError: if the model cannot be captured as a CUDA graph.
            RuntimeError: if the GPU is out of memory (``is_out_of_gpu_memory``) or fails in another way.
        """
        if self._graph is None:
            if self._num_calls < WARM_UP_STEPS:
                self._num_calls += 1
                self._step()
                return
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Without existing gradients, the captured backward pass allocates them in the private memory pool of the graph.
        self._step.optimizer.zero_grad(set_to_none=True)
        try:
            # thread_local, because other threads may call CUDA functions that are not allowed during a capture.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._step()
        except RuntimeError as error:
            errors = _with_contexts(error)  # ending a failed capture raises a second error
            for each in errors:
                if is_out_of_gpu_memory(each):
                    raise each from None
            if not any("captur" in str(each) for each in errors):  # all messages of CUDA about captures contain it
                raise
            raise InputError(
                f"a training step of this network cannot be captured as a CUDA graph ({one_line(error)}); "
                "set cuda_graphs to False"
            ) from error
        return graph


def _with_contexts(error: BaseException) -> list[BaseException]:
    """Return ``error`` and the errors during whose handling it was raised, the first one last."""
    errors = [error]
    while (earlier := errors[-1].__context__) is not None:
        errors.append(earlier)
    return errors


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run the context on a separate CUDA stream, which a capture requires; no effect on other devices."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        before, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(before)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            before.wait_stream(stream)
