"""The building blocks of ENAS micro's cells.

Shapes are (batch, channels, height, width). A stride of 2 turns a side of ``s`` pixels into ``ceil(s / 2)``. Strided
windows are centred as is usual in PyTorch, where TensorFlow's "same" padding puts them one pixel further to the right and
down. Batch norm has ENAS's constants.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPERATORS = ("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
"""The five operators of ENAS micro; an operator's number is its index here."""


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A pointwise convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with ENAS's epsilon of 1e-3 and moving average of 0.9 old and 0.1 new."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def relu_conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch norm: what fits the inputs of a cell to its number of channels."""
    return nn.Sequential(nn.ReLU(), conv1x1(in_channels, out_channels), batch_norm(out_channels))


class SeparableConv(nn.Module):
    """ENAS's separable convolution: twice [ReLU, depthwise kxk, 1x1, batch norm], the stride on the first depthwise.

    The first ReLU is left to the caller, who applies it once for all the convolutions that read the same value.
    """

    def __init__(self, channels: int, kernel_size: int, *, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            self._depthwise(channels, kernel_size, stride),
            conv1x1(channels, channels),
            batch_norm(channels),
            nn.ReLU(inplace=True),
            self._depthwise(channels, kernel_size, 1),
            conv1x1(channels, channels),
            batch_norm(channels),
        )

    @staticmethod
    def _depthwise(channels: int, kernel_size: int, stride: int) -> nn.Conv2d:
        return nn.Conv2d(
            channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=False
        )

    def forward(self, rectified: Tensor) -> Tensor:
        """The convolution of a value that has been through a ReLU."""
        output: Tensor = self.layers(rectified)
        return output


class FactorizedReduction(nn.Module):
    """Halves height and width: 1x1 convolutions of every second pixel and of its lower right neighbour, then batch norm.

    Each gives half of the channels, the second rounded down; beyond the right and lower border the neighbour is zero.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, out_channels - out_channels // 2)
        self.shifted_conv = conv1x1(in_channels, out_channels // 2)
        self.norm = batch_norm(out_channels)

    def forward(self, value: Tensor) -> Tensor:
        # Not a convolution of stride 2: on channels-last maps of few channels, oneDNN's gradient of its weight writes out of
        # bounds (https://github.com/uxlfoundation/oneDNN/issues/6035).
        shifted = F.pad(value, (-1, 1, -1, 1))
        paths = [self.conv(value[:, :, ::2, ::2]), self.shifted_conv(shifted[:, :, ::2, ::2])]
        output: Tensor = self.norm(torch.cat(paths, dim=1))
        return output


class AvgPool3x3(nn.Module):
    """3x3 average pooling that counts only the pixels inside the map."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, value: Tensor) -> Tensor:
        if value.device.type == "cpu" and self.stride == 1:
            return self._as_convolution(value)
        return F.avg_pool2d(value, 3, self.stride, padding=1, count_include_pad=False)

    def _as_convolution(self, value: Tensor) -> Tensor:
        """The same as a depthwise convolution with ones, over the number of pixels: up to twice as fast on a CPU."""
        channels, height, width = value.shape[1:]
        sums = F.conv2d(value, value.new_ones(channels, 1, 3, 3), padding=1, groups=channels)
        counts = F.conv2d(value.new_ones(1, 1, height, width), value.new_ones(1, 1, 3, 3), padding=1)
        return sums.div_(counts)


def make_operation(operator: int, channels: int, *, stride: int) -> nn.Module:
    """The module of operator number ``operator``, with as many channels out as in.

    An identity of stride 2 is a factorised reduction.
    """
    name = OPERATORS[operator]
    if name == "identity":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    if name == "sep_conv_3x3":
        return SeparableConv(channels, 3, stride=stride)
    if name == "sep_conv_5x5":
        return SeparableConv(channels, 5, stride=stride)
    if name == "avg_pool_3x3":
        return AvgPool3x3(stride=stride)
    return nn.MaxPool2d(3, stride=stride, padding=1)


def drop_path(value: Tensor, keep_probability: float) -> Tensor:
    """Sets ``value`` to zero for each sample with chance ``1 - keep_probability`` and scales what is kept by its inverse.

    The draws come from torch's default generator of the value's device: seed it, within ``torch.random.fork_rng`` where its
    state must stay as it was.

    Args:
        value: shape (batch, channels, height, width).
        keep_probability: in (0, 1]; 1 draws nothing.
    """
    if keep_probability == 1.0:
        return value
    kept = torch.empty(value.shape[0], 1, 1, 1, dtype=value.dtype, device=value.device).bernoulli_(keep_probability)
    return value * kept.div_(keep_probability)


def he_initialize(network: nn.Module) -> None:
    """Draws every convolution and linear weight of ``network`` by He et al. (2015): normal, variance 2 / fan-in.

    The draws come from torch's default generator. No bias is expected; batch norm keeps its scale of 1 and shift of 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
