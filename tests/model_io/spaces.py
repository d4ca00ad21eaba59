"""Small custom search spaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture, SearchSpace


class TiedWidths(SearchSpace):
    """Networks that apply a convolution, of one of three widths, twice."""

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
    """A layer that adds noise to its input, also in evaluation mode."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


class Noisy(TiedWidths):
    """Networks with nondeterministic outputs."""

    name = "noisy"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)
        return nn.Sequential(Noise(), network)


class DataDependent(TiedWidths):
    """Networks with data-dependent control flow."""

    name = "data_dependent"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)

        class Branch(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return images if images.sum() > 0 else -images

        return nn.Sequential(Branch(), network)
