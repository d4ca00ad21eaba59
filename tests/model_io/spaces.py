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


class Mixed(nn.Module):
    """Layers whose names are not identifiers or have a meaning in Python, and operators that few networks use."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "1x1": nn.Conv2d(channels, 4, 1),
                "a-b": nn.Conv2d(4, 4, (1, 3), padding=(0, 1), dilation=(1, 1)),
                "class": nn.Conv2d(4, 4, 3, padding="same"),
                "a_b": nn.BatchNorm2d(4, affine=False),
                "normal": nn.GroupNorm(2, 4),
            }
        )
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, 1.0, -1.0]))
        self.register_buffer("shift", torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64))
        self.forward_ = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        value = images
        for layer in self.layers.values():
            value = layer(value)
        batch, channels = value.shape[:2]
        left = nn.functional.gelu(value[:, :, 1:-1, -3:]) - 2 * value[..., 1:-1, :3]
        folded = left.reshape(batch * channels, -1).cumsum(dim=1).mean(dim=1).view(batch, channels)
        shifted = (folded + (folded - 1.0).abs() / 3).double() * self.scale + self.get_buffer("shift")
        logits: Tensor = self.forward_(shifted.float().clamp(min=-float("inf")))
        return logits


class Unusual(TiedWidths):
    """Networks with names and operators that few networks have."""

    name = "unusual"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        return Mixed(image_shape[0], num_classes)


class Counting(TiedWidths):
    """Networks that count their calls."""

    name = "counting"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)

        class Counter(nn.Module):
            num_calls: Tensor

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("num_calls", torch.zeros(()))

            def forward(self, images: Tensor) -> Tensor:
                self.num_calls += 1
                return images

        return nn.Sequential(Counter(), network)


class Conditional(TiedWidths):
    """Networks with a condition that ``torch.export`` supports."""

    name = "conditional"

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        network = super().build(architecture, settings, num_classes=num_classes, image_shape=image_shape)

        class Branch(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                chosen: Tensor = torch.cond(images.sum() > 0, torch.relu, torch.neg, (images,))
                return chosen

        return nn.Sequential(Branch(), network)
