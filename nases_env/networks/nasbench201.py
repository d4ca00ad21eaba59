"""The network of NAS-Bench-201 for a given cell.

It is the network that NAS-Bench-201 (Dong and Yang, 2020; https://github.com/D-X-Y/AutoDL-Projects) trained for each of its
15,625 cells, with N = 5 and F = 16. Batch norm has the default constants of PyTorch, as in that code.
"""

from __future__ import annotations

import operator as op
from functools import reduce

import torch
from torch import Tensor, nn

from nases_env.errors import InputError, did_you_mean
from nases_env.networks.operations import AvgPool3x3, conv1x1, he_initialize
from nases_env.networks.settings import NetworkSettings, check_shapes

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The five operators of NAS-Bench-201; ``none`` removes the edge."""

TRANSNAS_OPERATORS = OPERATORS[:4]
"""The four operators of TransNAS-Bench-101, micro."""

NUM_NODES = 3  # without the input
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""The edges of a cell as (node, source), in the order of NAS-Bench-201's strings; node 0 is the input of the cell."""


def check_cell(cell: tuple[str, ...]) -> None:
    """Raise ``InputError`` unless ``cell`` has a known operator for every edge."""
    if len(cell) != len(EDGES):
        raise InputError(f"a cell of NAS-Bench-201 has {len(EDGES)} operators, one for each edge, not {len(cell)}")
    for name in cell:
        if name not in OPERATORS:
            raise InputError(f"unknown operator {name!r}{did_you_mean(name, OPERATORS)}; known: {', '.join(OPERATORS)}")


def _relu_conv_bn(in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> nn.Sequential:
    """Create ReLU, convolution and batch norm. A stride of 2 reduces a side of ``s`` pixels to ``ceil(s / 2)``."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _make_operation(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return _relu_conv_bn(channels, channels, 1)
    if name == "nor_conv_3x3":
        return _relu_conv_bn(channels, channels, 3)
    return AvgPool3x3(stride=1) if name == "avg_pool_3x3" else nn.Identity()


class NasBench201Cell(nn.Module):
    """One cell with its own weights: each node is the sum of its edges; the last node is the output.

    Args:
        cell: the operators of its edges, in the order of ``EDGES``.
        channels: number of channels of the input and of every node.
    """

    def __init__(self, cell: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.cell = cell
        self.operations = nn.ModuleList(_make_operation(name, channels) for name in cell)

    def forward(self, value: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape. A node without edges is zero."""
        values = [value]
        for node in range(1, NUM_NODES + 1):
            terms = [
                operation(values[source])
                for (target, source), name, operation in zip(EDGES, self.cell, self.operations, strict=True)
                if target == node and name != "none"
            ]
            values.append(reduce(op.add, terms) if terms else torch.zeros_like(value))
        return values[-1]


def count_nasbench201_parameters(
    cell: tuple[str, ...], settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
) -> int:
    """Return ``count_parameters`` of the ``NasBench201Network`` with these arguments, without building it."""
    num_1x1, num_3x3 = cell.count("nor_conv_1x1"), cell.count("nor_conv_3x3")
    channels = settings.num_filters
    total = 9 * image_shape[0] * channels + 2 * channels
    for stage in range(3):
        if stage > 0:  # the residual block
            total += (9 + 1) * channels * 2 * channels + 9 * (2 * channels) ** 2 + 2 * 2 * 2 * channels
            channels *= 2
        of_cell = (num_1x1 + 9 * num_3x3) * channels**2 + (num_1x1 + num_3x3) * 2 * channels
        total += settings.cells_per_stage * of_cell
    return total + 2 * channels + (channels + 1) * num_classes


class ResidualBlock(nn.Module):
    """The block between two stages: doubles the channels and halves height and width.

    A side of ``s`` pixels becomes ``ceil(s / 2)``; if ``s`` is odd, the last window of the average pooling has one row or
    column.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _relu_conv_bn(in_channels, out_channels, 3, stride=2), _relu_conv_bn(out_channels, out_channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), conv1x1(in_channels, out_channels))

    def forward(self, value: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, ceil(height / 2), ceil(width / 2))."""
        output: Tensor = self.body(value) + self.shortcut(value)
        return output


class NasBench201Network(nn.Module):
    """The network of NAS-Bench-201: three stages of N cells, with a residual block of stride 2 between two stages.

    The stem is a 3x3 convolution to F channels and batch norm; the channels double at each residual block. After the last
    cell: batch norm, ReLU, global average pooling and a linear layer with bias. Weights are initialized by He et
    al. (2015) from torch's default generator; the bias is 0.

    Args:
        cell: the operators of the cell's edges, in the order of ``EDGES``.
        settings: N and F. This network has neither drop-path nor an auxiliary head.
        num_classes: length of the logits.
        image_shape: (channels, height, width) of the images; any height and width are supported.

    Raises:
        InputError: if the cell is not valid, the settings enable drop-path or an auxiliary head, or a number is too small.
    """

    def __init__(
        self, cell: tuple[str, ...], settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        check_cell(cell)
        if settings.drop_path_prob > 0.0:
            raise InputError("the network of nasbench201 has no drop-path; leave drop_path_prob at 0")
        if settings.auxiliary_head:
            raise InputError("the network of nasbench201 has no auxiliary head; leave auxiliary_head off")
        check_shapes(num_classes, image_shape)

        channels = settings.num_filters
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], channels, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells = nn.Sequential()
        for stage in range(3):
            if stage > 0:
                self.cells.append(ResidualBlock(channels, 2 * channels))
                channels *= 2
            self.cells.extend(NasBench201Cell(cell, channels) for _ in range(settings.cells_per_stage))
        classifier = nn.Linear(channels, num_classes)
        self.classifier = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier
        )
        he_initialize(self)
        nn.init.zeros_(classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (batch, num_classes), for images of shape (batch, channels, height, width)."""
        logits: Tensor = self.classifier(self.cells(self.stem(images)))
        return logits
