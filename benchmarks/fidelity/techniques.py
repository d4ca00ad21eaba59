"""Changes of a short training that are not settings: other losses, and images that grow during the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LABEL_SMOOTHING = "label_smoothing"
DISTILLATION = "distillation"
GROWING_IMAGES = "growing_images"

TECHNIQUES: dict[str, dict[str, float]] = {
    LABEL_SMOOTHING: {"smoothing": 0.1},
    DISTILLATION: {"teacher_weight": 0.5, "temperature": 2.0},
    GROWING_IMAGES: {"small_fraction": 2 / 3},
}
"""Parameters of the techniques, by the name of the training that uses them."""


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross-entropy with label smoothing.

    Attributes:
        smoothing: probability that is divided equally among all classes, in [0, 1].
    """

    smoothing: float

    def __call__(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)


class Distillation:
    """Loss of knowledge distillation (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).

    It is the weighted mean of the cross-entropy and of temperature^2 times the Kullback-Leibler divergence of the student's
    from the teacher's class probabilities, both computed from logits that are divided by the temperature.

    Args:
        teacher: maps images to logits; it is put into evaluation mode and not trained.
        teacher_weight: weight of the divergence, in [0, 1].
        temperature: larger values give more equal class probabilities.
    """

    def __init__(self, teacher: nn.Module, teacher_weight: float, temperature: float) -> None:
        self._teacher = teacher.eval()
        self._teacher_weight, self._temperature = teacher_weight, temperature

    def __call__(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        with torch.no_grad():
            teacher_logits = self._teacher(images)
        divergence = F.kl_div(
            F.log_softmax(logits / self._temperature, dim=1),
            F.log_softmax(teacher_logits / self._temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        teacher_loss = self._temperature**2 * divergence
        return (1 - self._teacher_weight) * F.cross_entropy(logits, labels) + self._teacher_weight * teacher_loss


class GrowingImages(nn.Module):
    """Network that gets images of half the height and width in the first part of its training.

    The size depends on the value of the training progress, so a step cannot be captured as a CUDA graph.

    Args:
        network: the network, for images of any size.
        small_fraction: the fraction of the training with small images.
    """

    def __init__(self, network: nn.Module, small_fraction: float) -> None:
        super().__init__()
        self.network = network
        self._small_fraction = small_fraction
        self._is_small = False

    def set_drop_path_progress(self, fraction: Tensor) -> None:
        """Set the completed fraction of the training, which determines the size of the images."""
        self._is_small = bool(fraction < self._small_fraction)
        set_progress: Callable[[Tensor], None] | None = getattr(self.network, "set_drop_path_progress", None)
        if set_progress is not None:
            set_progress(fraction)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch."""
        logits: Tensor = self.network(self._resize(images))
        return logits

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and those of the auxiliary head if the network has one."""
        forward: Callable[[Tensor], tuple[Tensor, Tensor | None]] | None
        forward = getattr(self.network, "forward_with_auxiliary", None)
        return (self(images), None) if forward is None else forward(self._resize(images))

    def _resize(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2) if self._is_small else images
