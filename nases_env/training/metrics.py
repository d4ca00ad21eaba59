"""What a trained classifier is worth: batch-norm statistics and accuracy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nases_env.training.augmentation import ChannelStatistics, normalize
from nases_env.training.image_set import ImageSet
from nases_env.training.settings import Precision

EVALUATION_BATCH_SIZE = 500  # images
NUM_RECALIBRATION_IMAGES = 2000  # training images that batch-norm statistics are re-estimated on, where there are so many


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
    return num_correct(predict_logits(model, image_set.images, statistics, device, precision), image_set) / len(image_set)


def num_correct(logits: torch.Tensor, image_set: ImageSet) -> int:
    """How many of ``image_set`` the ``logits``, shape (N, classes), classify right."""
    return int((logits.argmax(1) == image_set.labels).sum())


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
    evaluation (no dropout, no drop-path) except that batch norm normalises by the batch.

    Args:
        images: uint8, shape (N, C, H, W), in random order, since each batch of them stands for all.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    num_batches = max(1, len(images) // EVALUATION_BATCH_SIZE)
    batch_size = len(images) // num_batches
    try:
        with torch.no_grad(), autocast(precision, device):
            for index in range(num_batches):
                batch = images[index * batch_size : (index + 1) * batch_size].to(device)
                model(_standardise(batch, statistics))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


def predict_logits(
    model: nn.Module, images: torch.Tensor, statistics: ChannelStatistics, device: torch.device, precision: Precision
) -> torch.Tensor:
    """The model's outputs on the CPU, float32 of shape (N, classes); the model is left in evaluation mode."""
    model.eval()
    with torch.no_grad(), autocast(precision, device):
        batches = [model(_standardise(batch.to(device), statistics)) for batch in torch.split(images, EVALUATION_BATCH_SIZE)]
    return torch.cat(batches).float().cpu()


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The precision in which a model computes on ``device``, as ``TrainingSettings`` says.

    Without torch's cache of converted weights: each is used once, and the cache must not outlive a captured CUDA graph.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False)


def _standardise(images: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    return normalize(images.contiguous(memory_format=torch.channels_last), statistics.to(images.device))
