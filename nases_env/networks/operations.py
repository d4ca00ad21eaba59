"""Building blocks of the cells of ENAS micro.

Shapes are (batch, channels, height, width). A stride of 2 reduces a side of ``s`` pixels to ``ceil(s / 2)``. Strided windows
are centered, as usual in PyTorch; TensorFlow's "same" padding shifts them by one pixel to the right and down. Batch norm has
the constants of ENAS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.networks import cpu_ops
from nases_env.networks.cpu_ops import depthwise_5x5, stride2_subsample, use_cpu_ops

OPERATORS = ("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
"""The five operators of ENAS micro; the number of an operator is its index."""


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Create a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with faster training on a CPU."""

    def forward(self, value: Tensor) -> Tensor:
        mean, var, num_batches, momentum = self.running_mean, self.running_var, self.num_batches_tracked, self.momentum
        if mean is None or var is None or num_batches is None or momentum is None:
            return super().forward(value)
        if not self.training or not use_cpu_ops(value):
            return super().forward(value)
        num_batches.add_(1)
        return cpu_ops.batch_norm(value, self.weight, self.bias, mean, var, momentum=momentum, eps=self.eps)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Create a batch norm with the constants of ENAS: epsilon 1e-3, momentum 0.1."""
    return BatchNorm(channels, eps=1e-3, momentum=0.1)


class FeatureMap:
    """A feature map that several operations read; its ReLU is computed once for all of them.

    Attributes:
        parts: one or several tensors along the channels, each of shape (batch, channels of the part, height, width).
    """

    def __init__(self, *parts: Tensor) -> None:
        self.parts = parts
        self._relu: FeatureMap | None = None

    def concatenated(self) -> Tensor:
        """Concatenate the parts into one tensor of shape (batch, channels, height, width), and keep it as the only part."""
        if len(self.parts) > 1:
            self.parts = (torch.cat(self.parts, dim=1),)
        return self.parts[0]

    def relu(self) -> FeatureMap:
        """Return the ReLU of each part."""
        if self._relu is None:
            self._relu = FeatureMap(*(F.relu(part) for part in self.parts))
        return self._relu


def pointwise(convolution: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """Apply a 1x1 convolution without bias to the concatenation of ``parts`` along the channels.

    The parts are not concatenated: each is multiplied with its columns of the weight, and the products are added.

    Args:
        convolution: a ``Conv2d`` with kernel size 1.
        parts: tensors of shape (batch, channels of the part, height, width).
    """
    if len(parts) == 1:
        output: Tensor = convolution(parts[0])
        return output
    weights = torch.split(convolution.get_parameter("weight"), [part.shape[1] for part in parts], dim=1)
    output = F.conv2d(parts[0], weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        output += F.conv2d(part, weight)
    return output


class ReluConvBn(nn.Sequential):
    """ReLU, 1x1 convolution, batch norm: adapts the number of channels of a cell input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReLU(), conv1x1(in_channels, out_channels), batch_norm(out_channels))

    def forward(self, value: FeatureMap) -> FeatureMap:
        _, convolution, norm = self
        return FeatureMap(norm(pointwise(convolution, value.relu().parts)))


class Depthwise5x5(nn.Conv2d):
    """A depthwise 5x5 convolution of stride 1 with the same height and width."""

    def forward(self, value: Tensor) -> Tensor:
        return depthwise_5x5(value, self.weight) if use_cpu_ops(value) else super().forward(value)


class SeparableConv(nn.Module):
    """Separable convolution of ENAS: [ReLU, depthwise kxk, 1x1, batch norm] twice; the first depthwise has the stride.

    The caller applies the first ReLU, once for all convolutions that read the same feature map.

    Args:
        channels: number of input and of output channels.
        kernel_size: 3 or 5.
        stride: 1 or 2.
        expansion: the channels between the two halves are this many times ``channels``; 1 in ENAS.
    """

    def __init__(self, channels: int, kernel_size: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.layers = nn.Sequential(
            self._depthwise(channels, kernel_size, stride),
            conv1x1(channels, inner),
            batch_norm(inner),
            nn.ReLU(inplace=True),
            self._depthwise(inner, kernel_size, 1),
            conv1x1(inner, channels),
            batch_norm(channels),
        )

    @staticmethod
    def _depthwise(channels: int, kernel_size: int, stride: int) -> nn.Conv2d:
        kind = Depthwise5x5 if (kernel_size, stride) == (5, 1) else nn.Conv2d
        return kind(channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=False)

    def forward(self, rectified: Tensor) -> Tensor:
        """Convolve the output of a ReLU."""
        output: Tensor = self.layers(rectified)
        return output


class FactorizedReduction(nn.Module):
    """Halves height and width: 1x1 convolutions of every second pixel and of its lower right neighbor, then batch norm.

    Each convolution returns half of the channels, the second rounded down. Neighbors beyond the border are zero.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, out_channels - out_channels // 2)
        self.shifted_conv = conv1x1(in_channels, out_channels // 2)
        self.norm = batch_norm(out_channels)

    def forward(self, *parts: Tensor) -> Tensor:
        """Reduce the concatenation of ``parts`` along the channels."""
        # Not a convolution of stride 2: on channels-last maps of few channels, oneDNN's gradient of its weight writes out of
        # bounds (https://github.com/uxlfoundation/oneDNN/issues/6035).
        pixels, neighbors = zip(*map(stride2_subsample, parts), strict=True)
        paths = [pointwise(self.conv, pixels), pointwise(self.shifted_conv, neighbors)]
        output: Tensor = self.norm(torch.cat(paths, dim=1))
        return output


class ReluReduction(nn.Sequential):
    """ReLU and factorized reduction: adapts an input with twice the height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReLU(), FactorizedReduction(in_channels, out_channels))

    def forward(self, value: FeatureMap) -> FeatureMap:
        return FeatureMap(self[1](*value.relu().parts))


class AvgPool3x3(nn.Module):
    """3x3 average pooling that excludes the padding from the average."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, value: Tensor) -> Tensor:
        if self.stride == 1 and use_cpu_ops(value):
            return self._as_convolution(value)
        return F.avg_pool2d(value, 3, self.stride, padding=1, count_include_pad=False)

    def _as_convolution(self, value: Tensor) -> Tensor:
        """Pool with a depthwise convolution of ones, divided by the number of pixels: up to twice as fast on a CPU."""
        channels, height, width = value.shape[1:]
        sums = F.conv2d(value, value.new_ones(channels, 1, 3, 3), padding=1, groups=channels)
        counts = F.conv2d(value.new_ones(1, 1, height, width), value.new_ones(1, 1, 3, 3), padding=1)
        return sums.div_(counts)


def make_operation(operator: int, channels: int, *, stride: int, expansion: int) -> nn.Module:
    """Create the module of operator number ``operator``; an identity of stride 2 is a factorized reduction.

    Args:
        operator: index into ``OPERATORS``.
        channels: number of input and of output channels.
        stride: 1 or 2.
        expansion: of a separable convolution.
    """
    name = OPERATORS[operator]
    if name == "identity":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels)
    if name == "sep_conv_3x3":
        return SeparableConv(channels, 3, stride=stride, expansion=expansion)
    if name == "sep_conv_5x5":
        return SeparableConv(channels, 5, stride=stride, expansion=expansion)
    if name == "avg_pool_3x3":
        return AvgPool3x3(stride=stride)
    return nn.MaxPool2d(3, stride=stride, padding=1)


class GlobalAvgPool(nn.Module):
    """Mean over all pixels: (batch, channels, height, width) to (batch, channels)."""

    def forward(self, value: Tensor) -> Tensor:
        # Channels-last, so that the gradient is also channels-last; the gradient of AdaptiveAvgPool2d is not.
        return value.permute(0, 2, 3, 1).mean(dim=(1, 2))


def drop_path(value: Tensor, drop_prob: float | Tensor) -> Tensor:
    """Set ``value`` to zero with probability ``drop_prob`` per sample, and divide the others by ``1 - drop_prob``.

    Random numbers are drawn from torch's default generator of the device of ``value``.

    Args:
        value: shape (batch, channels, height, width).
        drop_prob: in [0, 1); the number 0 draws no random numbers. A tensor of shape () is never synchronized.
    """
    if not isinstance(drop_prob, Tensor) and drop_prob == 0.0:
        return value
    keep_prob = 1.0 - drop_prob
    drawn = torch.rand(value.shape[0], 1, 1, 1, device=value.device)  # float32: bfloat16 is too coarse for probabilities
    return value * (drawn < keep_prob).to(value.dtype).div(keep_prob)


def he_initialize(network: nn.Module) -> None:
    """Initialize all convolution and linear weights of ``network`` by He et al. (2015): normal, variance 2 / fan-in.

    Random numbers are drawn from torch's default generator. Biases and batch norm are not changed. Weights on the device
    ``meta``, which have no values, are skipped.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
