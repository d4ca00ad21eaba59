"""Functions that torch computes slowly, and faster ways to the same values and gradients.

Their gradients have the memory format of the values. Torch's own gradient of a strided slice does not: where it meets a
channels-last value, batch norm and ReLU take five to fifteen times as long.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAST_PIXELS = 16_384  # of a batch, from which on batch norm is faster by columns
LEAST_SIDE = 8  # pixels of a map from which on a 5x5 weight gradient is faster in three parts


def tuned_for_cpu(value: Tensor) -> bool:
    """Whether to compute with ``value`` in the way that is fastest on a CPU.

    Not so under autocast, which casts what torch's own operators are given, nor while torch traces a graph to compile or
    export it, which had better show plain operators.
    """
    return value.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def memory_format_of(value: Tensor) -> torch.memory_format:
    """Channels-last if ``value``, of shape (batch, channels, height, width), is stored so, else contiguous."""
    last = torch.channels_last
    return last if value.is_contiguous(memory_format=last) else torch.contiguous_format


def every_second_pixel(value: Tensor) -> tuple[Tensor, Tensor]:
    """Every second pixel in each direction, and the lower right neighbour of each, which is zero beyond the border.

    Args:
        value: shape (batch, channels, height, width).

    Returns:
        Two tensors of shape (batch, channels, ceil(height / 2), ceil(width / 2)).
    """
    if torch.compiler.is_compiling():
        return value[:, :, ::2, ::2], F.pad(value, (-1, 1, -1, 1))[:, :, ::2, ::2]
    pixels: tuple[Tensor, Tensor] = _EverySecondPixel.apply(value)
    return pixels


class _EverySecondPixel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.memory_format = value.shape, memory_format_of(value)
        height, width = value.shape[2:]
        pixels = value[:, :, ::2, ::2].contiguous(memory_format=ctx.memory_format)
        neighbours = value[:, :, 1::2, 1::2]
        if height % 2 or width % 2:
            neighbours = F.pad(neighbours, (0, width % 2, 0, height % 2))
        return pixels, neighbours.contiguous(memory_format=ctx.memory_format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_pixels: Tensor, of_neighbours: Tensor) -> Tensor:
        gradient = torch.empty(
            ctx.shape, dtype=of_pixels.dtype, device=of_pixels.device, memory_format=ctx.memory_format
        ).zero_()
        gradient[:, :, ::2, ::2] = of_pixels
        inside = gradient[:, :, 1::2, 1::2]
        inside.copy_(of_neighbours[:, :, : inside.shape[2], : inside.shape[3]])
        return gradient


def depthwise_5x5(value: Tensor, weight: Tensor) -> Tensor:
    """The depthwise convolution of stride 1 that keeps height and width.

    oneDNN has no fast gradient of a 5x5 weight. Here it is computed by columns: the three in the middle as that of a 5x3
    weight, either outer one as that of a 5x1 weight on a map that is shifted by two pixels.

    Args:
        value: shape (batch, channels, height, width), on a CPU.
        weight: shape (channels, 1, 5, 5).
    """
    if min(value.shape[2:]) < LEAST_SIDE:
        return F.conv2d(value, weight, padding=2, groups=len(weight))
    output: Tensor = _Depthwise5x5.apply(value, weight)
    return output


class _Depthwise5x5(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(value, weight)
        return F.conv2d(value, weight, padding=2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        value, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=memory_format_of(value))
        of_value = of_weight = None
        if ctx.needs_input_grad[0]:
            of_value = _convolution_backward(gradient, value, weight, 2, of_weight=False)
        if ctx.needs_input_grad[1]:
            columns = [
                _convolution_backward(gradient, F.pad(value, (2, -2)), weight[..., :1], 0, of_weight=True),
                _convolution_backward(gradient, value, weight[..., 1:4], 1, of_weight=True),
                _convolution_backward(gradient, F.pad(value, (-2, 2)), weight[..., 4:], 0, of_weight=True),
            ]
            of_weight = torch.cat(columns, dim=3)
        return of_value, of_weight


def _convolution_backward(
    gradient: Tensor, value: Tensor, weight: Tensor, columns_padded: int, *, of_weight: bool
) -> Tensor:
    """The gradient of a depthwise convolution's weight or value; of ``weight``, the former needs the shape alone."""
    stride = dilation = [1, 1]
    gradients = torch.ops.aten.convolution_backward(
        gradient,
        value,
        weight,
        None,  # no bias
        stride,
        [2, columns_padded],
        dilation,
        False,  # not transposed
        [0, 0],
        len(weight),
        [not of_weight, of_weight, False],
    )
    wanted: Tensor = gradients[1 if of_weight else 0]
    return wanted


def batch_norm(
    value: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm in training, which updates the running statistics in place.

    Torch sums a channel of a channels-last map pixel by pixel, in vectors that few channels do not fill and in float32,
    whose means over 100,000 pixels are wrong in the fifth digit. Here each column of the map is summed for itself first,
    which loses a tenth as much or less and takes half of the time at 8 channels.

    Args:
        value: shape (batch, channels, height, width), on a CPU.
        weight, bias, running_mean, running_var: shape (channels,).
    """
    by_columns = memory_format_of(value) == torch.channels_last and value.numel() // len(weight) >= LEAST_PIXELS
    if not by_columns:
        return F.batch_norm(value, running_mean, running_var, weight, bias, True, momentum, eps)
    output: Tensor = _BatchNormByColumns.apply(value, weight, bias, running_mean, running_var, momentum, eps)
    return output


class _BatchNormByColumns(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        batch, channels, height, width = value.shape
        means, variances = torch.ops.aten.batch_norm_update_stats(_rows(value), None, None, momentum)
        means, variances = means.view(width, channels), variances.view(width, channels)
        mean = means.mean(0)
        var = variances.mean(0) + means.var(0, correction=0)
        num_pixels = batch * height * width
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (num_pixels / (num_pixels - 1)), momentum)
        inverse_std = (var + eps).rsqrt()
        ctx.save_for_backward(value, weight, mean, inverse_std)
        ctx.eps = eps
        output, unused = torch.empty_like(value), value.new_empty(0)
        torch.native_batch_norm(
            _rows(value),
            (weight * inverse_std).repeat(width),
            bias.repeat(width),
            mean.repeat(width),
            torch.ones_like(mean).repeat(width),
            training=False,
            momentum=0.0,
            eps=0.0,
            out=(_rows(output), unused, unused),
        )
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, weight, mean, inverse_std = ctx.saved_tensors
        gradients: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=torch.channels_last),
            value,
            weight,
            None,  # running statistics serve evaluation only
            None,
            mean,
            inverse_std,
            True,
            ctx.eps,
            list(ctx.needs_input_grad[:3]),
        )
        return *gradients, None, None, None, None


def _rows(value: Tensor) -> Tensor:
    """A view of a channels-last map, (N, C, H, W), as one of single columns, (N, W * C, H, 1), channels-last too."""
    batch, channels, height, width = value.shape
    return value.permute(0, 2, 3, 1).view(batch, height, 1, width * channels).permute(0, 3, 1, 2)
