"""A plain residual network with a given number of parameters, as a baseline without a search.

It follows the networks for CIFAR-10 of He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2: three
stages of basic blocks. With one block per stage and 64 channels in the last one, it has the size of MLPerf Tiny's ResNet-8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.real_search.scaled_networks import ScaledNetworks, StagedNetwork, conv3x3
from nases_env.networks import NetworkSettings
from nases_env.networks.operations import batch_norm


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


class ResidualNetworks(ScaledNetworks):
    """Residual networks with N blocks per stage."""

    name = "residual_network"

    def make(self, width: int, settings: NetworkSettings, *, num_classes: int, in_channels: int) -> nn.Module:
        return StagedNetwork(width, settings.cells_per_stage, BasicBlock, in_channels=in_channels, num_classes=num_classes)
