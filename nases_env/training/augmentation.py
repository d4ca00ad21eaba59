"""Augmentation of batches of images: crop, flip, normalize, cutout.

Random parameters are drawn separately from their application, and always on the CPU, so that a seed gives the same
augmentation on every device and the parameters of an epoch are copied to the device in one transfer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel for values in [0, 1]: float32, shape (C,)."""

    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> ChannelStatistics:
        """Return the statistics on ``device``."""
        return ChannelStatistics(self.mean.to(device), self.std.to(device))


class AugmentationParams(NamedTuple):
    """Random augmentation parameters of N images.

    Attributes:
        crop: int64, shape (N, 2): top row and left column of the crop in the padded image.
        flip: bool, shape (N,): whether the image is flipped horizontally.
        cutout_center: int64, shape (N, 2): row and column of the center of the cutout square.
    """

    crop: torch.Tensor
    flip: torch.Tensor
    cutout_center: torch.Tensor


def channel_statistics(images: torch.Tensor) -> ChannelStatistics:
    """Compute the mean and standard deviation over all pixels of uint8 ``images`` of shape (N, C, H, W).

    They are computed from a histogram, so they are equal on all devices. The standard deviation is at least 1/255, so that
    a constant channel can be normalized.
    """
    values = torch.arange(256, dtype=torch.float64)
    moments = []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).cpu().double() / channel.numel()
        mean = (share * values).sum()
        moments.append((mean, (share * (values - mean) ** 2).sum().sqrt()))
    mean, std = torch.tensor(moments, dtype=torch.float64).T / 255
    return ChannelStatistics(mean.float(), std.clamp(min=1 / 255).float())


def draw_augmentation(
    num_images: int, image_size: tuple[int, int], *, crop_padding: int, flip: bool, generator: torch.Generator
) -> AugmentationParams:
    """Draw independent, uniformly distributed augmentation parameters.

    All parameters are drawn even if they are not used, so that a setting does not affect the other parameters.

    Args:
        num_images: number of images.
        image_size: (height, width) of the images in pixels; the cutout center is any pixel.
        crop_padding: padding in pixels; crops are in ``0 .. 2 * crop_padding``.
        flip: whether to flip half of the images.
        generator: random generator on the CPU.
    """
    height, width = image_size
    crop = torch.randint(2 * crop_padding + 1, (num_images, 2), generator=generator)
    flipped = torch.rand(num_images, generator=generator) < 0.5
    rows = torch.randint(height, (num_images,), generator=generator)
    columns = torch.randint(width, (num_images,), generator=generator)
    return AugmentationParams(crop, flipped & flip, torch.stack((rows, columns), dim=1))


def crop_and_flip(images: torch.Tensor, params: AugmentationParams, crop_padding: int) -> torch.Tensor:
    """Zero-pad, crop to the original size and flip.

    Equivalent to torchvision's ``RandomCrop(size, padding=crop_padding)`` followed by ``RandomHorizontalFlip``.

    Args:
        images: uint8, shape (N, C, H, W); fastest in the channels-last memory format.
        params: the crops and flips.
        crop_padding: padding in pixels on each side.

    Returns:
        uint8, shape (N, C, H, W), channels-last.
    """
    num_images, channels, height, width = images.shape
    padded = F.pad(images, (crop_padding,) * 4).permute(0, 2, 3, 1)
    padded_height, padded_width = padded.shape[1:3]
    image = torch.arange(num_images, device=images.device)
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    rows = row + params.crop[:, :1]
    columns = torch.where(params.flip[:, None], column.flip(0), column) + params.crop[:, 1:]
    # One gather over all pixels of the batch is three times as fast as indexing by image, row and column.
    lines = image[:, None] * padded_height + rows
    pixels = lines[:, :, None] * padded_width + columns[:, None, :]
    gathered = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return gathered.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def normalize(images: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    """Normalize uint8 ``images`` of shape (N, C, H, W) to float32, as torchvision's ``ToTensor`` and ``Normalize``."""
    scale = 1 / (255 * statistics.std)
    shift = -statistics.mean / statistics.std
    return images * scale[:, None, None] + shift[:, None, None]


def cut_out(images: torch.Tensor, params: AugmentationParams, length: int) -> torch.Tensor:
    """Set a square of each normalized image to 0, the mean: cutout (DeVries & Taylor, 2017).

    Args:
        images: float, shape (N, C, H, W).
        params: the centers of the squares, which may extend beyond the image.
        length: side of the square in pixels.
    """
    top, left = (params.cutout_center - length // 2).unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    in_rows = (row >= top[:, None]) & (row < top[:, None] + length)
    in_columns = (column >= left[:, None]) & (column < left[:, None] + length)
    mask = in_rows[:, :, None] & in_columns[:, None, :]
    # Broadcasting along the channels as the second dimension would lose the channels-last memory format.
    return images.permute(0, 2, 3, 1).masked_fill(mask[:, :, :, None], 0.0).permute(0, 3, 1, 2)


def augment(
    images: torch.Tensor,
    params: AugmentationParams,
    statistics: ChannelStatistics,
    *,
    crop_padding: int,
    cutout_length: int,
) -> torch.Tensor:
    """Crop, flip, normalize and cut out, in this order.

    Args:
        images: uint8, shape (N, C, H, W).
        params: the random parameters of each image.
        statistics: mean and standard deviation for the normalization.
        crop_padding: padding in pixels on each side.
        cutout_length: side of the cutout square in pixels; 0 disables cutout.

    Returns:
        float32, shape (N, C, H, W), channels-last.
    """
    normalized = normalize(crop_and_flip(images, params, crop_padding), statistics)
    return cut_out(normalized, params, cutout_length) if cutout_length else normalized
