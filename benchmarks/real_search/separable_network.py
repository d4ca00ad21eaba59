"""A plain network of depthwise-separable convolutions, as a baseline without a search.

It follows MobileNet (Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
2017): each block is a depthwise and a pointwise convolution, each with batch norm and ReLU. As in the residual network,
three stages double the channels and halve the height and the width.
"""

from __future__ import annotations

from torch import nn

from benchmarks.real_search.scaled_networks import ScaledNetworks, StagedNetwork
from nases_env.networks import NetworkSettings
from nases_env.networks.operations import batch_norm

BLOCKS_PER_CELL = 2  # a residual block also has two convolutions


def separable_block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Create a depthwise 3x3 convolution and a pointwise convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False),
        batch_norm(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        batch_norm(out_channels),
        nn.ReLU(inplace=True),
    )


class SeparableNetworks(ScaledNetworks):
    """Networks of depthwise-separable convolutions with 2N blocks per stage."""

    name = "separable_network"

    def make(self, width: int, settings: NetworkSettings, *, num_classes: int, in_channels: int) -> nn.Module:
        num_blocks = BLOCKS_PER_CELL * settings.cells_per_stage
        return StagedNetwork(width, num_blocks, separable_block, in_channels=in_channels, num_classes=num_classes)
