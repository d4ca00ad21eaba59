"""The network of ENAS micro for a given pair of cells.

It is the network of ENAS (Pham et al., 2018; https://github.com/melodyguan/enas, ``src/cifar10/micro_child.py``) for a fixed
architecture: each cell has its own weights and concatenates its loose ends.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from nases_env.errors import InputError
from nases_env.networks.cpu_ops import use_cpu_ops
from nases_env.networks.operations import (
    OPERATORS,
    FactorizedReduction,
    FeatureMap,
    GlobalAvgPool,
    ReluConvBn,
    ReluReduction,
    SeparableConv,
    batch_norm,
    conv1x1,
    drop_path,
    he_initialize,
    make_operation,
)
from nases_env.networks.settings import NetworkSettings, check_shapes

Node: TypeAlias = tuple[int, int, int, int]
"""(input a, operator a, input b, operator b): the sum of operator a applied to input a and operator b applied to input b.

Input 0 is the output of the cell before the previous one, 1 is the output of the previous cell, and 2, 3, ... are earlier
nodes. Operators are indices into ``OPERATORS``."""

Cell: TypeAlias = tuple[Node, ...]

IDENTITY = OPERATORS.index("identity")
POOLINGS = (OPERATORS.index("avg_pool_3x3"), OPERATORS.index("max_pool_3x3"))


class Skeleton(NamedTuple):
    """What surrounds and scales the cells of a network.

    Attributes:
        channels: channels of the nodes in each of the three stages.
        depths: normal cells in each stage, at least one.
        stem_stride: stride of the convolution before the first cell.
        expansion: expansion of the separable convolutions; see ``SeparableConv``.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    stem_stride: int = 1
    expansion: int = 1


def enas_skeleton(settings: NetworkSettings) -> Skeleton:
    """Return the skeleton of ENAS: N cells in each stage, and F, 2F and 4F channels."""
    channels, depth = settings.num_filters, settings.cells_per_stage
    return Skeleton((channels, 2 * channels, 4 * channels), (depth, depth, depth))


def check_cell(cell: Cell) -> None:
    """Raise ``InputError`` unless ``cell`` has a node, and all nodes read earlier values with known operators."""
    if not cell:
        raise InputError("a cell needs at least one node, but this cell has none")
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
    """Return the values (two inputs, then the nodes) that no node of ``cell`` reads, in order."""
    read = {source for node in cell for source in (node[0], node[2])}
    return tuple(value for value in range(len(cell) + 2) if value not in read)


def match_channels(in_channels: int, out_channels: int) -> nn.Module:
    """Create a module that changes the number of channels: ReLU, 1x1 convolution and batch norm, or the identity."""
    return nn.Identity() if in_channels == out_channels else ReluConvBn(in_channels, out_channels)


class MicroCell(nn.Module):
    """One cell with its own weights.

    Args:
        cell: its nodes.
        in_channels: channels of the outputs of the cell before the previous one and of the previous cell.
        channels: channels of each node.
        stride: 1 for a normal cell; 2 for a reduction cell, whose operations on the two inputs halve height and width.
        reduction_prev: whether the previous cell is a reduction cell, so that ``prev_prev`` has twice the height and width
            of ``prev``.
        expansion: expansion of the separable convolutions.
    """

    def __init__(
        self,
        cell: Cell,
        in_channels: tuple[int, int],
        channels: int,
        *,
        stride: int,
        reduction_prev: bool,
        expansion: int,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.loose_ends = loose_ends(cell)
        self.out_channels = channels * len(self.loose_ends)
        prev_prev_channels, prev_channels = in_channels
        if reduction_prev:
            self.preprocess0: nn.Module = ReluReduction(prev_prev_channels, channels)
        else:
            self.preprocess0 = match_channels(prev_prev_channels, channels)
        self.preprocess1 = nn.Sequential(match_channels(prev_channels, channels), ReluConvBn(channels, channels))
        self.operations = nn.ModuleList(
            make_operation(operator, channels, stride=stride if source < 2 else 1, expansion=expansion)
            for node in cell
            for source, operator in (node[:2], node[2:])
        )
        self.reduce_loose_ends = nn.ModuleList(
            FactorizedReduction(channels, channels) if stride == 2 and value < 2 else nn.Identity()
            for value in self.loose_ends
        )

    def forward(self, prev_prev: FeatureMap, prev: FeatureMap, drop_path_prob: float | Tensor = 0.0) -> FeatureMap:
        """Return the loose ends, concatenated along the channels.

        On a CPU they remain separate parts, because concatenating them and splitting the gradient is slower. On a GPU fewer
        operations are faster.

        Args:
            prev_prev: output of the cell before the previous one.
            prev: output of the previous cell.
            drop_path_prob: probability that drop-path drops the output of an operator; identities are never dropped.
        """
        values: list[FeatureMap] = [self.preprocess0(prev_prev), self.preprocess1(prev)]
        pooled: dict[tuple[int, int], Tensor] = {}

        def branch(source: int, operator: int, operation: nn.Module) -> Tensor:
            value = values[source]
            if isinstance(operation, SeparableConv):
                output: Tensor = operation(value.relu().concatenated())
            elif operator in POOLINGS:
                if (source, operator) not in pooled:
                    pooled[source, operator] = operation(value.concatenated())
                output = pooled[source, operator]
            else:
                output = operation(value.concatenated())
            return output if operator == IDENTITY else drop_path(output, drop_path_prob)

        operations = iter(self.operations)
        for a, operator_a, b, operator_b in self.cell:
            values.append(FeatureMap(branch(a, operator_a, next(operations)) + branch(b, operator_b, next(operations))))
        ends = [fit(values[end].concatenated()) for end, fit in zip(self.loose_ends, self.reduce_loose_ends, strict=True)]
        return FeatureMap(*ends) if use_cpu_ops(ends[0]) else FeatureMap(torch.cat(ends, dim=1))


class AuxiliaryHead(nn.Sequential):
    """The auxiliary classifier of ENAS, for feature maps of any size.

    ENAS pools windows of 5x5 at stride 3, from 8x8 to 2x2. Here adaptive average pooling returns 2x2 for any size. The rest
    is identical to ENAS: 1x1 convolution to 128 channels, 2x2 convolution to 768 padded to keep 2x2, each followed by batch
    norm and ReLU, then global average pooling and a linear layer without bias.
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

    def forward(self, value: FeatureMap) -> Tensor:
        _, pool, flatten, linear = self
        logits: Tensor = linear(flatten(torch.cat([pool(part) for part in value.relu().parts], dim=1)))
        return logits


class EnasMicroNetwork(nn.Module):
    """The network of ENAS micro: three stages of N normal cells, with a reduction cell between two stages.

    The stem is a 3x3 convolution to 3F channels and batch norm; both inputs of the first cell are its output. Nodes have F
    channels in the first stage and twice as many after each reduction. After the last cell: ReLU, global average pooling and
    a linear layer without bias. Weights are initialized by He et al. (2015) from torch's default generator. A ``skeleton``
    replaces N and F.

    Args:
        normal: the nodes of the normal cells.
        reduction: the nodes of the reduction cells.
        settings: N, F, drop-path and auxiliary head.
        num_classes: length of the logits.
        image_shape: (channels, height, width) of the images; any height and width are supported.
        skeleton: channels and number of cells of each stage; None: those of ENAS.

    Raises:
        InputError: if a cell reads a later value or uses an unknown operator, or a number is not positive.
    """

    def __init__(
        self,
        normal: Cell,
        reduction: Cell,
        settings: NetworkSettings,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        skeleton: Skeleton | None = None,
    ) -> None:
        super().__init__()
        check_cell(normal)
        check_cell(reduction)
        check_shapes(num_classes, image_shape)

        self.max_drop_path_prob = settings.drop_path_prob
        self._progress: float | Tensor = 0.0
        skeleton = skeleton or enas_skeleton(settings)
        first, second, third = skeleton.depths
        self.reductions = reductions = (first, first + second + 1)
        num_cells = first + second + third + 2
        self.auxiliary_index = reductions[1] + 1

        stage_channels = iter(skeleton.channels)
        channels = next(stage_channels)
        stem_channels = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], stem_channels, kernel_size=3, stride=skeleton.stem_stride, padding=1, bias=False),
            batch_norm(stem_channels),
        )
        self.cells = nn.ModuleList()
        self.auxiliary_head: AuxiliaryHead | None = None
        prev_prev_channels = prev_channels = stem_channels
        for index in range(num_cells):
            reduces = index in reductions
            if reduces:
                channels = next(stage_channels)
            cell = MicroCell(
                reduction if reduces else normal,
                (prev_prev_channels, prev_channels),
                channels,
                stride=2 if reduces else 1,
                reduction_prev=index - 1 in reductions,
                expansion=skeleton.expansion,
            )
            self.cells.append(cell)
            prev_prev_channels, prev_channels = prev_channels, cell.out_channels
            if settings.auxiliary_head and index == self.auxiliary_index:
                self.auxiliary_head = AuxiliaryHead(cell.out_channels, num_classes)
        self.classifier = Classifier(prev_channels, num_classes)
        he_initialize(self)

    def set_drop_path_progress(self, fraction: float | Tensor) -> None:
        """Set the completed fraction of the training, which scales the drop-path probability.

        Args:
            fraction: from 0 at the start to 1 at the end; larger values are clipped to 1. A number, or a float tensor of
                shape () on the device of the network, which every forward pass reads without synchronization and which may
                be changed in place.

        Raises:
            InputError: if ``fraction`` is a negative number or NaN.
        """
        if not isinstance(fraction, Tensor) and not fraction >= 0.0:
            raise InputError(f"the training progress is {fraction}; it must be at least 0")
        self._progress = fraction

    def drop_path_prob(self, cell_index: int) -> float | Tensor:
        """Return the drop-path probability of a cell, which grows with depth and training progress; 0 in evaluation mode."""
        if not self.training or self.max_drop_path_prob == 0.0:
            return 0.0
        progress = self._progress
        progress = progress.clamp(max=1.0) if isinstance(progress, Tensor) else min(1.0, progress)
        depth = (cell_index + 1) / len(self.cells)
        return self.max_drop_path_prob * depth * progress

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape (batch, num_classes) for images of shape (batch, channels, height, width)."""
        return self._logits(images, with_auxiliary=False)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and the logits of the auxiliary head, both of shape (batch, num_classes).

        The latter are None in evaluation mode, and if there is no auxiliary head.
        """
        return self._logits(images, with_auxiliary=self.training)

    def _logits(self, images: Tensor, *, with_auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        auxiliary_logits: Tensor | None = None
        prev_prev = prev = FeatureMap(self.stem(images))
        for index, cell in enumerate(self.cells):
            prev_prev, prev = prev, cell(prev_prev, prev, self.drop_path_prob(index))
            if with_auxiliary and self.auxiliary_head is not None and index == self.auxiliary_index:
                auxiliary_logits = self.auxiliary_head(prev.concatenated())
        return self.classifier(prev), auxiliary_logits
