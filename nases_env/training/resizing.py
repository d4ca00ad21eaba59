"""Resizing of whole batches of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 images of shape (N, C, H, W) stretched to ``size`` (height, width), bilinear and antialiased."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def shrink(images: torch.Tensor, side: int | None) -> torch.Tensor:
    """uint8 images of shape (N, C, H, W), shrunk in proportion where their longer side exceeds ``side`` pixels."""
    longer = max(images.shape[2:])
    if side is None or longer <= side:
        return images
    height, width = (max(round(length * side / longer), 1) for length in images.shape[2:])
    return resize(images, (height, width))
