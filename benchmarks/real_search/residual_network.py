"""A plain residual network with a given number of parameters, as a baseline without a search.

It follows the networks for CIFAR-10 of He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2: three
stages of basic blocks. With one block per stage and 64 channels in the last one, it has the size of MLPerf Tiny's ResNet-8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.real_search.scaled_networks import ScaledNetworks, stage_widths
from nases_env.networks import NetworkSettings
from nases_env.networks.operations import GlobalAvgPool, batch_norm, he_initialize


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Create a 3x3 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut without parameters.

    The shortcut of a block of stride 2 averages 2x2 pixels; missing channels are zero.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.num_new_channels = out_channels - in_channels
        self.layers = nn.Sequential(
            conv3x3(in_channels, out_channels, stride),
            batch_norm(out_channels),
            nn.ReLU(inplace=True),
            conv3x3(out_channels, out_channels),
            batch_norm(out_channels),
        )

    def forward(self, value: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(value, 2, ceil_mode=True) if self.stride == 2 else value
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.num_new_channels))
        return F.relu(self.layers(value) + shortcut)


class ResidualNetwork(nn.Sequential):
    """Stem, three stages of basic blocks, the second and third of which begin with stride 2, and a linear layer.

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
                layers.append(BasicBlock(channels, stage_channels, 2 if stage > 0 and block == 0 else 1))
                channels = stage_channels
        super().__init__(*layers, GlobalAvgPool(), nn.Flatten(), nn.Linear(channels, num_classes))
        he_initialize(self)


class ResidualNetworks(ScaledNetworks):
    """Residual networks with N blocks per stage."""

    name = "residual_network"

    def make(self, width: int, settings: NetworkSettings, *, num_classes: int, in_channels: int) -> nn.Module:
        return ResidualNetwork(width, settings.cells_per_stage, in_channels=in_channels, num_classes=num_classes)
