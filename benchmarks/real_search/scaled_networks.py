"""Networks without a search, whose only decision is their number of parameters."""

from __future__ import annotations

import functools
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import nn

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings, count_parameters
from nases_env.networks.operations import GlobalAvgPool, batch_norm, he_initialize
from nases_env.search_spaces import Architecture, SearchSpace

MAX_WIDTH = 4096  # channels of the last stage


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Create a 3x3 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class StagedNetwork(nn.Sequential):
    """Stem, three stages of blocks, the second and third of which begin with stride 2, and a linear layer.

    Args:
        width: channels of the last stage; the stages before have a half and a quarter of it.
        blocks_per_stage: number of blocks in each stage.
        block: makes a block from its input channels, output channels and stride.
        in_channels: channels of the images.
        num_classes: length of the logits.
    """

    def __init__(
        self,
        width: int,
        blocks_per_stage: int,
        block: Callable[[int, int, int], nn.Module],
        *,
        in_channels: int,
        num_classes: int,
    ) -> None:
        widths = [max(1, round(width / divisor)) for divisor in (4, 2, 1)]
        channels = widths[0]
        layers: list[nn.Module] = [conv3x3(in_channels, channels), batch_norm(channels), nn.ReLU(inplace=True)]
        for stage, stage_channels in enumerate(widths):
            for number in range(blocks_per_stage):
                layers.append(block(channels, stage_channels, 2 if stage > 0 and number == 0 else 1))
                channels = stage_channels
        super().__init__(*layers, GlobalAvgPool(), nn.Flatten(), nn.Linear(channels, num_classes))
        he_initialize(self)


class ScaledNetworks(SearchSpace):
    """Networks of one family as a search space, so that ``FinalTraining`` trains them exactly as it trains cells.

    The only decision is the number of parameters; the network is the one closest to it.
    """

    decision_sizes = (10**9,)

    @abstractmethod
    def make(self, width: int, settings: NetworkSettings, *, num_classes: int, in_channels: int) -> nn.Module:
        """Create the network whose last stage has ``width`` channels."""

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        def count(width: int) -> int:
            return _count(self, width, settings, num_classes, image_shape[0])

        (num_params,) = architecture.decisions
        smaller = self._widest(num_params, settings, num_classes, image_shape[0])
        width = min((max(1, smaller), smaller + 1), key=lambda width: abs(count(width) - num_params))
        if width == MAX_WIDTH:
            raise InputError(f"the {self.label} cannot have {num_params:,} parameters; search smaller networks")
        return self.make(width, settings, num_classes=num_classes, in_channels=image_shape[0])

    @property
    def label(self) -> str:
        """The name of the family in a table."""
        return self.name.replace("_", " ")

    def largest(self, max_params: int, settings: NetworkSettings, num_classes: int, in_channels: int) -> Architecture:
        """Return the widest network with at most ``max_params`` parameters.

        Raises:
            InputError: if every network is larger.
        """
        width = self._widest(max_params, settings, num_classes, in_channels)
        if width == 0:
            raise InputError(f"no {self.label} has at most {max_params:,} parameters; pass a higher limit")
        return self.architecture((_count(self, width, settings, num_classes, in_channels),))

    def _widest(self, max_params: int, settings: NetworkSettings, num_classes: int, in_channels: int) -> int:
        """Return the largest width with at most ``max_params`` parameters; 0 if there is none."""
        return bisect_right(
            range(1, MAX_WIDTH), max_params, key=lambda width: _count(self, width, settings, num_classes, in_channels)
        )


@functools.cache
def _count(space: ScaledNetworks, width: int, settings: NetworkSettings, num_classes: int, in_channels: int) -> int:
    """Return the number of parameters of the network whose last stage has ``width`` channels."""
    with torch.device("meta"):
        return count_parameters(space.make(width, settings, num_classes=num_classes, in_channels=in_channels))
