"""The network of ENAS micro for a given pair of cells.

It is the network that ENAS (Pham et al., 2018; https://github.com/melodyguan/enas, ``src/cifar10/micro_child.py``) builds
for a fixed architecture: each cell has its own weights and concatenates its loose ends.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from nases_env.errors import InputError
from nases_env.networks.cpu_ops import tuned_for_cpu
from nases_env.networks.operations import (
    OPERATORS,
    FactorizedReduction,
    GlobalAvgPool,
    ReluConvBn,
    ReluReduction,
    SeparableConv,
    Value,
    batch_norm,
    conv1x1,
    drop_path,
    he_initialize,
    make_operation,
)
from nases_env.networks.settings import NetworkSettings

Node: TypeAlias = tuple[int, int, int, int]
"""(input a, operator a, input b, operator b): its value is operator a of input a plus operator b of input b.

Inputs are 0, the cell before the last; 1, the last cell; and 2, 3, ... the nodes before this one. Operators are indices
into ``OPERATORS``."""

Cell: TypeAlias = tuple[Node, ...]

IDENTITY = OPERATORS.index("identity")
POOLINGS = (OPERATORS.index("avg_pool_3x3"), OPERATORS.index("max_pool_3x3"))


def check_cell(cell: Cell) -> None:
    """Raises ``InputError`` unless ``cell`` has a node and every node reads what comes before it, by a known operator."""
    if not cell:
        raise InputError("a cell needs at least one node; this one has none")
    for index, node in enumerate(cell):
        if len(node) != 4:
            raise InputError(f"node {index} of a cell has {len(node)} numbers; it needs (input, operator, input, operator)")
        for source, operator in (node[:2], node[2:]):
            if not 0 <= source < index + 2:
                raise InputError(f"node {index} of a cell reads input {source}; it may read 0..{index + 1}")
            if not 0 <= operator < len(OPERATORS):
                raise InputError(
                    f"node {index} of a cell uses operator {operator}; the operators are 0..{len(OPERATORS) - 1}"
                )


def loose_ends(cell: Cell) -> tuple[int, ...]:
    """The values (two inputs, then the nodes) that no node of ``cell`` reads, in order; the last node is always one."""
    read = {source for node in cell for source in (node[0], node[2])}
    return tuple(value for value in range(len(cell) + 2) if value not in read)


def fit_channels(in_channels: int, out_channels: int) -> nn.Module:
    """ReLU, 1x1 convolution and batch norm where the number of channels is wrong; nothing where it is right."""
    return nn.Identity() if in_channels == out_channels else ReluConvBn(in_channels, out_channels)


class MicroCell(nn.Module):
    """One cell with its own weights.

    Args:
        cell: its nodes.
        in_channels: channels of the older and of the newer input.
        channels: channels of each node.
        stride: 1 for a normal cell; 2 for a reduction cell, which halves what it reads from its two inputs.
        older_is_larger: whether the older input has twice the height and width of the newer.
    """

    def __init__(
        self, cell: Cell, in_channels: tuple[int, int], channels: int, *, stride: int, older_is_larger: bool
    ) -> None:
        super().__init__()
        self.cell = cell
        self.loose_ends = loose_ends(cell)
        self.out_channels = channels * len(self.loose_ends)
        older_channels, newer_channels = in_channels
        if older_is_larger:
            self.fit_older: nn.Module = ReluReduction(older_channels, channels)
        else:
            self.fit_older = fit_channels(older_channels, channels)
        self.fit_newer = nn.Sequential(fit_channels(newer_channels, channels), ReluConvBn(channels, channels))
        self.operations = nn.ModuleList(
            make_operation(operator, channels, stride=stride if source < 2 else 1)
            for node in cell
            for source, operator in (node[:2], node[2:])
        )
        self.fit_loose_ends = nn.ModuleList(
            FactorizedReduction(channels, channels) if stride == 2 and value < 2 else nn.Identity()
            for value in self.loose_ends
        )

    def forward(self, older: Value, newer: Value, keep_probability: float | Tensor = 1.0) -> Value:
        """The loose ends, one after the other along the channels.

        On a CPU they stay in parts: what reads them then costs less than to concatenate them and to divide the gradient
        again. Elsewhere fewer operations are better.

        ``keep_probability`` is the chance that drop-path keeps an operator's output; identities are never dropped.
        """
        values: list[Value] = [self.fit_older(older), self.fit_newer(newer)]
        pooled: dict[tuple[int, int], Tensor] = {}

        def branch(source: int, operator: int, operation: nn.Module) -> Tensor:
            value = values[source]
            if isinstance(operation, SeparableConv):
                output: Tensor = operation(value.rectified.whole)
            elif operator in POOLINGS:
                if (source, operator) not in pooled:
                    pooled[source, operator] = operation(value.whole)
                output = pooled[source, operator]
            else:
                output = operation(value.whole)
            return output if operator == IDENTITY else drop_path(output, keep_probability)

        operations = iter(self.operations)
        for a, operator_a, b, operator_b in self.cell:
            values.append(Value(branch(a, operator_a, next(operations)) + branch(b, operator_b, next(operations))))
        ends = [fit(values[end].whole) for end, fit in zip(self.loose_ends, self.fit_loose_ends, strict=True)]
        return Value(*ends) if tuned_for_cpu(ends[0]) else Value(torch.cat(ends, dim=1))


class AuxiliaryHead(nn.Sequential):
    """ENAS's second classifier, for maps of any size.

    ENAS pools windows of 5x5 at stride 3, which turns its 8x8 maps into 2x2. Here adaptive average pooling gives 2x2 maps
    whatever the size. The rest is ENAS's: 1x1 convolution to 128 channels, 2x2 convolution to 768 padded to keep 2x2, each
    followed by batch norm and ReLU, then global average pooling and a linear layer without bias.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            conv1x1(in_channels, 128),
            batch_norm(128),
            nn.ReLU(inplace=True),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(128, 768, kernel_size=2, bias=False),
            batch_norm(768),
            nn.ReLU(inplace=True),
            GlobalAvgPool(),
            nn.Flatten(),
            nn.Linear(768, num_classes, bias=False),
        )


class Classifier(nn.Sequential):
    """ReLU, global average pooling and a linear layer without bias."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(nn.ReLU(), GlobalAvgPool(), nn.Flatten(), nn.Linear(in_channels, num_classes, bias=False))

    def forward(self, value: Value) -> Tensor:
        _, pool, flatten, linear = self
        logits: Tensor = linear(flatten(torch.cat([pool(part) for part in value.rectified.parts], dim=1)))
        return logits


class EnasMicroNetwork(nn.Module):
    """ENAS micro's network: three stages of N normal cells, a reduction cell between two stages.

    The stem is a 3x3 convolution to 3F channels and batch norm; both inputs of the first cell are its output. Nodes have F
    channels in the first stage and twice as many after each reduction. After the last cell: ReLU, global average pooling and
    a linear layer without bias. Initial weights are He et al.'s, from torch's default generator.

    Args:
        normal: the nodes of the normal cells.
        reduction: the nodes of the reduction cells.
        settings: N, F, drop-path and auxiliary head.
        num_classes: length of the logits.
        image_shape: (channels, height, width) of the images; the network takes any height and width.

    Raises:
        InputError: if a cell reads what does not come before it or uses an unknown operator, or a number is not positive.
    """

    def __init__(
        self,
        normal: Cell,
        reduction: Cell,
        settings: NetworkSettings,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        check_cell(normal)
        check_cell(reduction)
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; it must be at least 1")
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise InputError(f"image_shape is {tuple(image_shape)}; it must be (channels, height, width), all at least 1")

        self.drop_path_keep = settings.drop_path_keep
        self._progress: float | Tensor = 0.0
        stage = settings.cells_per_stage
        self.reductions = reductions = (stage, 2 * stage + 1)
        num_cells = 3 * stage + 2
        self.auxiliary_index = reductions[1] + 1

        channels = settings.num_filters
        stem_channels = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], stem_channels, kernel_size=3, padding=1, bias=False), batch_norm(stem_channels)
        )
        self.cells = nn.ModuleList()
        self.auxiliary_head: AuxiliaryHead | None = None
        older_channels = newer_channels = stem_channels
        for index in range(num_cells):
            reduces = index in reductions
            if reduces:
                channels *= 2
            cell = MicroCell(
                reduction if reduces else normal,
                (older_channels, newer_channels),
                channels,
                stride=2 if reduces else 1,
                older_is_larger=index - 1 in reductions,
            )
            self.cells.append(cell)
            older_channels, newer_channels = newer_channels, cell.out_channels
            if settings.auxiliary_head and index == self.auxiliary_index:
                self.auxiliary_head = AuxiliaryHead(cell.out_channels, num_classes)
        self.classifier = Classifier(newer_channels, num_classes)
        he_initialize(self)

    def set_progress(self, fraction: float | Tensor) -> None:
        """Tells drop-path how much of the training is done: 0 at its start, 1 at its end; what is beyond 1 counts as 1.

        Args:
            fraction: a number, or a float tensor without dimensions on the network's device, whose value is read by every
                pass through the network and may be changed in place between them. Nothing waits for it.

        Raises:
            InputError: if ``fraction`` is a number and negative or none.
        """
        if not isinstance(fraction, Tensor) and not fraction >= 0.0:
            raise InputError(f"the training progress is {fraction}; it must be at least 0")
        self._progress = fraction

    def keep_probability(self, cell_index: int) -> float | Tensor:
        """The chance that drop-path keeps a branch of a cell: falls with depth and progress in training, is 1 else."""
        if not self.training or self.drop_path_keep == 1.0:
            return 1.0
        progress = self._progress
        progress = progress.clamp(max=1.0) if isinstance(progress, Tensor) else min(1.0, progress)
        depth = (cell_index + 1) / len(self.cells)
        return 1.0 - (1.0 - self.drop_path_keep) * depth * progress

    def forward(self, images: Tensor) -> Tensor:
        """The logits, shape (batch, num_classes), of images of shape (batch, channels, height, width)."""
        return self._logits(images, with_auxiliary=False)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits and the auxiliary head's logits, both of shape (batch, num_classes).

        The latter are None where there is no auxiliary head and, since it serves training only, in evaluation mode.
        """
        return self._logits(images, with_auxiliary=self.training)

    def _logits(self, images: Tensor, *, with_auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        auxiliary_logits: Tensor | None = None
        older = newer = Value(self.stem(images))
        for index, cell in enumerate(self.cells):
            older, newer = newer, cell(older, newer, self.keep_probability(index))
            if with_auxiliary and self.auxiliary_head is not None and index == self.auxiliary_index:
                auxiliary_logits = self.auxiliary_head(newer.whole)
        return self.classifier(newer), auxiliary_logits
