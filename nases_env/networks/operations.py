"""The building blocks of ENAS micro's cells.

Shapes are (batch, channels, height, width). A stride of 2 turns a side of ``s`` pixels into ``ceil(s / 2)``. Strided
windows are centred as is usual in PyTorch, where TensorFlow's "same" padding puts them one pixel further to the right and
down. Batch norm has ENAS's constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.networks import cpu_ops
from nases_env.networks.cpu_ops import depthwise_5x5, every_second_pixel, tuned_for_cpu

OPERATORS = ("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
"""The five operators of ENAS micro; an operator's number is its index here."""


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A pointwise convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d``, trained faster on a CPU."""

    def forward(self, value: Tensor) -> Tensor:
        mean, var, num_batches, momentum = self.running_mean, self.running_var, self.num_batches_tracked, self.momentum
        if mean is None or var is None or num_batches is None or momentum is None:
            return super().forward(value)
        if not self.training or not tuned_for_cpu(value):
            return super().forward(value)
        num_batches.add_(1)
        return cpu_ops.batch_norm(value, self.weight, self.bias, mean, var, momentum=momentum, eps=self.eps)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with ENAS's epsilon of 1e-3 and moving average of 0.9 old and 0.1 new."""
    return BatchNorm(channels, eps=1e-3, momentum=0.1)


class Value:
    """What several operations read: its ReLU is computed once for all of them.

    Attributes:
        parts: its channels, in order: one tensor or several, each of shape (batch, channels of the part, height, width).
    """

    def __init__(self, *parts: Tensor) -> None:
        self.parts = parts
        self._rectified: Value | None = None

    @property
    def whole(self) -> Tensor:
        """Shape (batch, channels, height, width); it is the only part from then on."""
        if len(self.parts) > 1:
            self.parts = (torch.cat(self.parts, dim=1),)
        return self.parts[0]

    @property
    def rectified(self) -> Value:
        """Its ReLU, in the same parts."""
        if self._rectified is None:
            self._rectified = Value(*(F.relu(part) for part in self.parts))
        return self._rectified


def pointwise(convolution: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """A 1x1 convolution without bias of ``parts`` along the channels.

    They need not be concatenated: each is multiplied with its own columns of the weight, and the products are added.
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
    """ReLU, 1x1 convolution, batch norm: what fits the inputs of a cell to its number of channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReLU(), conv1x1(in_channels, out_channels), batch_norm(out_channels))

    def forward(self, value: Value) -> Value:
        _, convolution, norm = self
        return Value(norm(pointwise(convolution, value.rectified.parts)))


class Depthwise5x5(nn.Conv2d):
    """A depthwise 5x5 convolution of stride 1 that keeps height and width."""

    def forward(self, value: Tensor) -> Tensor:
        return depthwise_5x5(value, self.weight) if tuned_for_cpu(value) else super().forward(value)


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
        kind = Depthwise5x5 if (kernel_size, stride) == (5, 1) else nn.Conv2d
        return kind(channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=channels, bias=False)

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

    def forward(self, *parts: Tensor) -> Tensor:
        """The reduction of the value whose channels are those of ``parts``, in order."""
        # Not a convolution of stride 2: on channels-last maps of few channels, oneDNN's gradient of its weight writes out of
        # bounds (https://github.com/uxlfoundation/oneDNN/issues/6035).
        pixels, neighbours = zip(*map(every_second_pixel, parts), strict=True)
        paths = [pointwise(self.conv, pixels), pointwise(self.shifted_conv, neighbours)]
        output: Tensor = self.norm(torch.cat(paths, dim=1))
        return output


class ReluReduction(nn.Sequential):
    """ReLU and factorised reduction: what fits a cell's older input where it is twice as large as the newer."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReLU(), FactorizedReduction(in_channels, out_channels))

    def forward(self, value: Value) -> Value:
        return Value(self[1](*value.rectified.parts))


class AvgPool3x3(nn.Module):
    """3x3 average pooling that counts only the pixels inside the map."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, value: Tensor) -> Tensor:
        if self.stride == 1 and tuned_for_cpu(value):
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


class GlobalAvgPool(nn.Module):
    """The mean over all pixels: (batch, channels, height, width) to (batch, channels)."""

    def forward(self, value: Tensor) -> Tensor:
        # Channels last, so that the gradient is stored so too; AdaptiveAvgPool2d's is not.
        return value.permute(0, 2, 3, 1).mean(dim=(1, 2))


def drop_path(value: Tensor, keep_probability: float | Tensor) -> Tensor:
    """Sets ``value`` to zero for each sample with chance ``1 - keep_probability`` and scales what is kept by its inverse.

    The draws come from torch's default generator of the value's device: seed it, within ``torch.random.fork_rng`` where its
    state must stay as it was.

    Args:
        value: shape (batch, channels, height, width).
        keep_probability: in (0, 1]; the number 1 draws nothing. A tensor without dimensions is never looked at by Python.
    """
    if not isinstance(keep_probability, Tensor) and keep_probability == 1.0:
        return value
    drawn = torch.rand(value.shape[0], 1, 1, 1, device=value.device)  # float32: bfloat16 has too few digits for chances
    return value * (drawn < keep_probability).to(value.dtype).div(keep_probability)


def he_initialize(network: nn.Module) -> None:
    """Draws every convolution and linear weight of ``network`` by He et al. (2015): normal, variance 2 / fan-in.

    The draws come from torch's default generator. No bias is expected; batch norm keeps its scale of 1 and shift of 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
