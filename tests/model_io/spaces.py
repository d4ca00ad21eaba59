"""Small search spaces of one's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture, SearchSpace


class TiedWidths(SearchSpace):
    """A convolution of one of three widths, applied twice."""

    name = "tied_widths"
    decision_sizes = (3, 2)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        width = 2 + architecture.decisions[0]
        conv = nn.Conv2d(width, width, 3, padding=1)
        first = nn.Conv2d(image_shape[0], width, 1)
        return nn.Sequential(
            first, conv, nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
        )


class Noise(nn.Module):
    """Adds noise to what it reads, also when it is not trained."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


class Noisy(TiedWidths):
    """Networks whose answers are never the same twice."""

    name = "noisy"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)
        return nn.Sequential(Noise(), network)


class Choosy(TiedWidths):
    """Networks that do another thing for another image."""

    name = "choosy"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)

        class Choice(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return images if images.sum() > 0 else -images

        return nn.Sequential(Choice(), network)
