"""A plain network of depthwise-separable convolutions, as a baseline without a search.

It follows MobileNet (Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
2017): each block is a depthwise and a pointwise convolution, each with batch norm and ReLU. As in the residual network,
three stages double the channels and halve the height and the width.
"""

from __future__ import annotations

from torch import nn

from benchmarks.real_search.residual_network import conv3x3
from benchmarks.real_search.scaled_networks import ScaledNetworks, stage_widths
from nases_env.networks import NetworkSettings
from nases_env.networks.operations import GlobalAvgPool, batch_norm, he_initialize

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


class SeparableNetwork(nn.Sequential):
    """Stem, three stages of separable blocks, the second and third of which begin with stride 2, and a linear layer.

    Args:
        width: channels of the last stage; the stages before have a half and a quarter of it.
        blocks_per_stage: number of blocks in each stage.
        in_channels: channels of the images.
        num_classes: length of the logits.
    """

    def __init__(self, width: int, blocks_per_stage: int, *, in_channels: int, num_classes: int) -> None:
        widths = stage_widths(width)
        channels = widths[0]
        layers: list[nn.Module] = [conv3x3(in_channels, channels), batch_norm(channels), nn.ReLU(inplace=True)]
        for stage, stage_channels in enumerate(widths):
            for block in range(blocks_per_stage):
                layers.append(separable_block(channels, stage_channels, 2 if stage > 0 and block == 0 else 1))
                channels = stage_channels
        super().__init__(*layers, GlobalAvgPool(), nn.Flatten(), nn.Linear(channels, num_classes))
        he_initialize(self)


class SeparableNetworks(ScaledNetworks):
    """Networks of depthwise-separable convolutions with 2N blocks per stage."""

    name = "separable_network"

    def make(self, width: int, settings: NetworkSettings, *, num_classes: int, in_channels: int) -> nn.Module:
        num_blocks = BLOCKS_PER_CELL * settings.cells_per_stage
        return SeparableNetwork(width, num_blocks, in_channels=in_channels, num_classes=num_classes)
