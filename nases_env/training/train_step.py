"""One step of SGD on one batch, as a GPU wants it: nothing in it waits for the CPU, and it can be captured and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.errors import InputError, one_line
from nases_env.training.augmentation import ChannelStatistics, Draws, augment
from nases_env.training.metrics import autocast
from nases_env.training.settings import TrainingSettings

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in ENAS
WARM_UP_STEPS = 3  # that are run before a step is captured, so that all that is allocated once is allocated


class TrainingStep:
    """Trains a model on the next batch of an epoch each time it is called.

    Whatever differs between two steps is read from tensors that keep their place on the device: ``begin_epoch`` fills them
    for an epoch, and ``index`` says which batch is next. So two calls do exactly the same work, and one that was captured as
    a CUDA graph can be replayed for the other.

    Args:
        model: on ``device``, in training mode; ``train_classifier`` says which methods are used.
        images, labels: uint8 of shape (N, C, H, W), channels-last, and int64 of shape (N,), on ``device``.
        statistics: what the images are standardised by, on ``device``.
        batch_size: images per step, at most N.
        crop_padding: pixels.

    Attributes:
        optimizer: what updates the model; its learning rate is a tensor.
        loss_sum: the sum of the losses of the epoch's batches so far, without the auxiliary loss; float32, shape ().
        num_right: how many images of the epoch so far were classified right as they were trained on; int64, shape ().
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
    ) -> None:
        device = images.device
        num_batches = len(images) // batch_size
        real = torch.float64 if device.type == "cpu" else torch.float32  # what the fused optimiser takes there
        self.num_batches = num_batches
        self._model = model
        self._forward = getattr(model, "forward_with_auxiliary", None) or (lambda batch: (model(batch), None))
        self._set_progress = getattr(model, "set_progress", None)
        self._images, self._labels, self._statistics = images, labels, statistics
        self._crop_padding, self._cutout, self._precision = crop_padding, settings.cutout, settings.precision
        self._learning_rate = torch.zeros((), dtype=real, device=device)
        self.optimizer = torch.optim.SGD(
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
        self._draws = Draws(
            crop=torch.zeros((*per_image, 2), dtype=torch.int64, device=device),
            mirrored=torch.zeros(per_image, dtype=torch.bool, device=device),
            hole=torch.zeros((*per_image, 2), dtype=torch.int64, device=device),
        )
        self._learning_rates = torch.zeros(num_batches, dtype=real, device=device)
        self._progress = torch.zeros(num_batches, device=device)
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self._was_finite = torch.ones((), dtype=torch.bool, pin_memory=device.type == "cuda")

    def begin_epoch(self, order: Tensor, draws: Draws, learning_rates: list[float], progress: list[float]) -> None:
        """Says what the next ``num_batches`` calls train on.

        Args:
            order: the images' numbers in the order in which they are visited, int64 of shape (N,); an incomplete last
                batch is left out.
            draws: the augmentation of the image that is visited first, second, ...; N of them.
            learning_rates: of each batch.
            progress: how much of the training is done before each batch, in [0, 1].
        """
        for place, values in zip((self._order, *self._draws), (order, *draws), strict=True):
            place.copy_(values[: self._order.numel()].view_as(place))
        self._learning_rates.copy_(torch.tensor(learning_rates, dtype=torch.float64))
        self._progress.copy_(torch.tensor(progress))
        for counter in (self._index, self.loss_sum, self.num_correct):
            counter.zero_()

    def __call__(self) -> None:
        chosen = self._now(self._order)
        self._learning_rate.copy_(self._now(self._learning_rates))
        if self._set_progress is not None:
            self._set_progress(self._now(self._progress))
        inputs = augment(
            self._images[chosen],
            Draws(*map(self._now, self._draws)),
            self._statistics,
            crop_padding=self._crop_padding,
            cutout=self._cutout,
        )
        targets = self._labels[chosen]
        with autocast(self._precision, inputs.device):
            logits, auxiliary_logits = self._forward(inputs)
            loss = F.cross_entropy(logits, targets)
            total_loss = loss
            if auxiliary_logits is not None:
                total_loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary_logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        total_loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.num_correct += (logits.detach().argmax(1) == targets).sum()
        self._index += 1

    def look(self) -> bool:
        """Whether all losses of the epoch are finite, as far as is known without waiting.

        On a GPU that is what it had answered when it was asked before: the question now is only left for it.
        """
        if self.loss_sum.device.type != "cuda":
            return bool(self.loss_sum.isfinite())
        answer = bool(self._was_finite)
        self._was_finite.copy_(self.loss_sum.isfinite(), non_blocking=True)
        return answer

    def _now(self, per_batch: Tensor) -> Tensor:
        """The row of the batch that is next."""
        return per_batch.index_select(0, self._index).squeeze(0)


class GraphedStep:
    """A ``TrainingStep`` that is captured as a CUDA graph once and then replayed: one launch a step instead of thousands.

    The first ``WARM_UP_STEPS`` calls run eagerly and train as well as any. To be made and called within ``side_stream``.
    """

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._num_calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Trains on the next batch.

        Raises:
            InputError: if the model does something that cannot be captured.
            torch.cuda.OutOfMemoryError: if the GPU's memory does not suffice.
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
        self._step.optimizer.zero_grad(set_to_none=True)  # so that the graph has gradients of its own
        try:
            # Other threads, such as TensorBoard's or another child's, may do meanwhile what a capture must not.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._step()
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None:  # the end of a capture that failed raises an error of its own
                if isinstance(cause, torch.cuda.OutOfMemoryError):
                    raise cause from None
                cause = cause.__context__
            raise InputError(
                f"a training step of this network cannot be captured as a CUDA graph ({one_line(error)}); "
                "set cuda_graphs to False to train it without"
            ) from error
        return graph


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Runs what is inside on a CUDA stream of its own, as a capture needs it; on other devices it changes nothing."""
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
