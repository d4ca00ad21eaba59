"""Evaluation of a trained classifier: batch-norm statistics, logits and accuracy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nases_env.training.augmentation import ChannelStatistics, normalize
from nases_env.training.image_set import ImageSet
from nases_env.training.settings import Precision

EVALUATION_BATCH_SIZE = 500  # images
MAX_EVALUATION_PIXELS = 500 * 64 * 64  # per batch, so that measuring large images needs less memory than training on them
NUM_RECALIBRATION_IMAGES = 2000  # maximum number of training images for re-estimating batch-norm statistics


def accuracy(logits: torch.Tensor, image_set: ImageSet) -> float:
    """Return the share of the images of ``image_set`` that ``logits``, shape (N, classes), classify correctly."""
    return int((logits.argmax(1) == image_set.labels).sum()) / len(image_set)


def recalibrate_batch_norm(
    model: nn.Module,
    images: torch.Tensor,
    *,
    statistics: ChannelStatistics,
    device: torch.device,
    precision: Precision = "auto",
) -> None:
    """Re-estimate the running statistics of all batch-norm layers and leave the model in evaluation mode.

    The moving averages lag behind the weights; after a short training they make the accuracy misleading. They are replaced
    by the average over several batches of equal size, without augmentation. The network is in evaluation mode (no dropout,
    no drop-path), except that batch norm normalizes by the statistics of the batch.

    Args:
        model: the model, changed in place.
        images: uint8, shape (N, C, H, W), in random order, because each batch must represent the whole set.
        statistics: channel statistics of the images that the model was trained on.
        device: the device of the model.
        precision: see ``TrainingSettings``.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    num_batches = max(1, len(images) // evaluation_batch_size(images))
    batch_size = len(images) // num_batches
    try:
        with torch.no_grad(), autocast(precision, device):
            for index in range(num_batches):
                batch = images[index * batch_size : (index + 1) * batch_size].to(device)
                model(_normalize(batch, statistics))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


def predict_logits(
    model: nn.Module, images: torch.Tensor, statistics: ChannelStatistics, device: torch.device, precision: Precision
) -> torch.Tensor:
    """Compute the logits of ``images`` and leave the model in evaluation mode.

    Args:
        model: maps float32 images (N, C, H, W) to logits (N, classes).
        images: uint8, shape (N, C, H, W).
        statistics: channel statistics of the images that the model was trained on.
        device: the device of the model.
        precision: see ``TrainingSettings``.

    Returns:
        float32, shape (N, classes), on the CPU.
    """
    model.eval()
    with torch.no_grad(), autocast(precision, device):
        batches = [
            model(_normalize(batch.to(device), statistics)) for batch in torch.split(images, evaluation_batch_size(images))
        ]
    return torch.cat(batches).float().cpu()


def evaluation_batch_size(images: torch.Tensor) -> int:
    """Return the number of ``images``, shape (N, C, H, W), per batch of an evaluation; fewer of images above 64 x 64."""
    height, width = images.shape[2:]
    return max(1, min(EVALUATION_BATCH_SIZE, MAX_EVALUATION_PIXELS // (height * width)))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the autocast context for ``precision`` on ``device``.

    It does not cache converted weights: each is used once, and the cache must not outlive a captured CUDA graph.
    """
    has_bfloat16 = False
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):  # torch asks the current GPU
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False)


def _normalize(images: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    return normalize(images.contiguous(memory_format=torch.channels_last), statistics.to(images.device))
