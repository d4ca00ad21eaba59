"""The child network in the style of common PyTorch ports of DARTS and ENAS: one module per operation, each with its ReLU.

It has the same parameters as ``EnasMicroNetwork``, under the same names, so their state dicts are interchangeable. Loose
ends are concatenated, pooling uses the modules of torch, and factorized reductions use strided convolutions. The sides of
the images must be multiples of four.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from nases_env.networks import OPERATORS, Cell, EnasMicroNetwork
from nases_env.networks.enas_micro import MicroCell, loose_ends


def relu_conv_bn(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.1),
    )


class SepConv(nn.Module):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm; twice."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.layers = nn.Sequential(
            *self._convolve(channels, kernel_size, stride), nn.ReLU(), *self._convolve(channels, kernel_size, 1)
        )

    @staticmethod
    def _convolve(channels: int, kernel_size: int, stride: int) -> tuple[nn.Module, ...]:
        return (
            nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1),
        )

    def forward(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.layers(self.relu(value)))


class FactorizedReduce(nn.Module):
    """Two 1x1 convolutions of stride 2, one shifted by a pixel; concatenation; batch norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.shifted_conv = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.1)

    def forward(self, value: Tensor) -> Tensor:
        paths = [self.conv(value), self.shifted_conv(value[:, :, 1:, 1:])]
        return cast(Tensor, self.norm(torch.cat(paths, dim=1)))


def make_operation(operator: int, channels: int, stride: int) -> nn.Module:
    name = OPERATORS[operator]
    if name == "identity":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride=stride, padding=1)
    return SepConv(channels, 3 if name == "sep_conv_3x3" else 5, stride)


class PlainCell(nn.Module):
    def __init__(
        self, cell: Cell, in_channels: tuple[int, int], channels: int, *, stride: int, reduction_prev: bool
    ) -> None:
        super().__init__()
        prev_prev, prev = in_channels
        self.cell = cell
        if reduction_prev:
            self.preprocess0: nn.Module = nn.Sequential(nn.ReLU(), FactorizedReduce(prev_prev, channels))
        else:
            self.preprocess0 = nn.Identity() if prev_prev == channels else relu_conv_bn(prev_prev, channels)
        self.preprocess1 = nn.Sequential(
            nn.Identity() if prev == channels else relu_conv_bn(prev, channels), relu_conv_bn(channels, channels)
        )
        self.operations = nn.ModuleList(
            make_operation(operator, channels, stride if source < 2 else 1)
            for a, operator_a, b, operator_b in cell
            for source, operator in ((a, operator_a), (b, operator_b))
        )
        self.loose_ends = loose_ends(cell)
        self.reduce_loose_ends = nn.ModuleList(
            FactorizedReduce(channels, channels) if stride == 2 and end < 2 else nn.Identity() for end in self.loose_ends
        )
        self.out_channels = channels * len(self.loose_ends)

    def forward(self, prev_prev: Tensor, prev: Tensor) -> Tensor:
        values = [self.preprocess0(prev_prev), self.preprocess1(prev)]
        for node, (a, _, b, _) in enumerate(self.cell):
            values.append(self.operations[2 * node](values[a]) + self.operations[2 * node + 1](values[b]))
        return torch.cat(
            [reduce(values[end]) for end, reduce in zip(self.loose_ends, self.reduce_loose_ends, strict=True)], dim=1
        )


class PlainNetwork(nn.Module):
    """Conventional implementation of ``network`` with a copy of its weights, without drop-path and auxiliary head."""

    def __init__(self, network: EnasMicroNetwork) -> None:
        super().__init__()
        cells = [cast(MicroCell, cell) for cell in network.cells]
        stem = cast(nn.Conv2d, network.stem[0])
        prev_prev = prev = stem.out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(stem.in_channels, prev, 3, padding=1, bias=False), nn.BatchNorm2d(prev, eps=1e-3, momentum=0.1)
        )
        self.cells = nn.ModuleList()
        reduction_prev = False
        for index, cell in enumerate(cells):
            reduces = index in network.reductions
            channels = cell.out_channels // len(cell.loose_ends)
            plain = PlainCell(
                cell.cell, (prev_prev, prev), channels, stride=2 if reduces else 1, reduction_prev=reduction_prev
            )
            self.cells.append(plain)
            prev_prev, prev, reduction_prev = prev, plain.out_channels, reduces
        linear = cast(nn.Linear, network.classifier[3])
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(prev, linear.out_features, bias=False)
        )
        self.load_state_dict(network.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (batch, classes), for float images of shape (batch, channels, height, width)."""
        prev_prev = prev = self.stem(images)
        for cell in self.cells:
            prev_prev, prev = prev, cell(prev_prev, prev)
        return cast(Tensor, self.classifier(prev))
