"""Augmentation of whole batches: crop, flip, standardise, cut out.

The random draws are made apart from their application, always by a generator on the CPU: the same seed gives the same crops
on every device, and the draws of an epoch move to the device at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel, on the scale where 255 is 1: float32, shape (C,)."""

    mean: torch.Tensor
    std: torch.Tensor

    def to(self, device: torch.device) -> ChannelStatistics:
        """The same statistics on ``device``."""
        return ChannelStatistics(self.mean.to(device), self.std.to(device))


class Draws(NamedTuple):
    """What was drawn for each of N images.

    Attributes:
        crop: int64, shape (N, 2): the crop's top row and left column in the padded image.
        mirrored: bool, shape (N,).
        hole: int64, shape (N, 2): row and column of the blank square's centre.
    """

    crop: torch.Tensor
    mirrored: torch.Tensor
    hole: torch.Tensor


def channel_statistics(images: torch.Tensor) -> ChannelStatistics:
    """Mean and standard deviation over all pixels of uint8 ``images`` of shape (N, C, H, W).

    Counted in integers, hence the same on every device. A deviation below one grey level is given as one grey level, so that
    a constant channel can be divided by it.
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
) -> Draws:
    """Independent uniform draws for ``num_images`` images of ``image_size`` (height, width).

    Crops lie in ``0 .. 2 * crop_padding``; half of the images are mirrored if ``flip``; the hole's centre is any pixel.
    Everything is drawn whatever is switched on, so that a setting does not shift the draws of another.
    """
    height, width = image_size
    crop = torch.randint(2 * crop_padding + 1, (num_images, 2), generator=generator)
    mirrored = torch.rand(num_images, generator=generator) < 0.5
    rows = torch.randint(height, (num_images,), generator=generator)
    columns = torch.randint(width, (num_images,), generator=generator)
    return Draws(crop, mirrored & flip, torch.stack((rows, columns), dim=1))


def crop_and_flip(images: torch.Tensor, draws: Draws, crop_padding: int) -> torch.Tensor:
    """Pads with black by ``crop_padding`` pixels on each side, crops back to the size, and mirrors.

    The same as torchvision's ``RandomCrop(size, padding=crop_padding)`` and ``RandomHorizontalFlip`` in this order.

    Args:
        images: uint8, shape (N, C, H, W); fastest where the memory is channels-last.

    Returns:
        uint8, shape (N, C, H, W), channels-last.
    """
    num_images, channels, height, width = images.shape
    padded = F.pad(images, (crop_padding,) * 4).permute(0, 2, 3, 1)
    padded_height, padded_width = padded.shape[1:3]
    image = torch.arange(num_images, device=images.device)
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    rows = row + draws.crop[:, :1]
    columns = torch.where(draws.mirrored[:, None], column.flip(0), column) + draws.crop[:, 1:]
    # One gather over all pixels of the batch, three times as fast as indexing by image, row and column.
    lines = image[:, None] * padded_height + rows
    pixels = lines[:, :, None] * padded_width + columns[:, None, :]
    gathered = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return gathered.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def normalize(images: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    """Standardises uint8 ``images`` of shape (N, C, H, W) to float32, as torchvision's ``ToTensor`` and ``Normalize``."""
    scale = 1 / (255 * statistics.std)
    shift = -statistics.mean / statistics.std
    return images * scale[:, None, None] + shift[:, None, None]


def cut_out(images: torch.Tensor, draws: Draws, side: int) -> torch.Tensor:
    """Sets a ``side`` x ``side`` square of each standardised image to 0, the mean: cutout (DeVries & Taylor, 2017).

    The square's centre is ``draws.hole``; what lies outside the image is lost.

    Args:
        images: float, shape (N, C, H, W).
    """
    top, left = (draws.hole - side // 2).unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    in_rows = (row >= top[:, None]) & (row < top[:, None] + side)
    in_columns = (column >= left[:, None]) & (column < left[:, None] + side)
    hole = in_rows[:, :, None] & in_columns[:, None, :]
    # The channels go last meanwhile: broadcasting along them would lose the memory format.
    return images.permute(0, 2, 3, 1).masked_fill(hole[:, :, :, None], 0.0).permute(0, 3, 1, 2)


def augment(
    images: torch.Tensor, draws: Draws, statistics: ChannelStatistics, *, crop_padding: int, cutout: int
) -> torch.Tensor:
    """Crop, flip, standardise and cut out, in this order: uint8 (N, C, H, W) to float32 (N, C, H, W), channels-last."""
    standardised = normalize(crop_and_flip(images, draws, crop_padding), statistics)
    return cut_out(standardised, draws, cutout) if cutout else standardised
