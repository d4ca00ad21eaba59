"""The sizes of the networks of ``enas_micro_sized``, and their numbers of parameters without building them."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from nases_env.errors import InputError, shown
from nases_env.networks.enas_micro import IDENTITY, Cell, Skeleton, enas_skeleton, loose_ends
from nases_env.networks.operations import OPERATORS
from nases_env.networks.settings import NetworkSettings

MIN_CHANNELS = 2
"""A factorized reduction computes half of its channels from every second pixel and half from its neighbor."""

KERNEL_SIZES = {OPERATORS.index("sep_conv_3x3"): 3, OPERATORS.index("sep_conv_5x5"): 5}
"""Kernel size of each operator that has one and parameters, by its number."""

SIZE_CHOICES: dict[str, tuple[Any, ...]] = {
    "stem_stride": (1, 2),
    "width": (0.25, 0.5, 1, 2, 4),
    "growth": (1, 2, 3),
    "depth": (1, 2, 3),
    "expansion": (1, 2),
}
"""The possible values of each of the ``Sizes``."""

SIZE_LENGTHS = {"growth": 2, "depth": 3}
"""The sizes that are lists, and their lengths."""


class Sizes(NamedTuple):
    """The size of a network relative to N and F.

    Attributes:
        stem_stride: stride of the convolution before the first cell.
        width: channels of the first stage, as a multiple of F.
        growth: channels of the second and of the third stage, as a multiple of those of the previous stage.
        depth: normal cells in each of the three stages, as a multiple of N.
        expansion: expansion of the separable convolutions; see ``SeparableConv``.
    """

    stem_stride: int
    width: float
    growth: tuple[int, ...]
    depth: tuple[int, ...]
    expansion: int

    def skeleton(self, settings: NetworkSettings) -> Skeleton:
        """Return the size of the network for N and F of ``settings``.

        The channels of the first stage are rounded up and at least ``MIN_CHANNELS``.
        """
        first = max(MIN_CHANNELS, math.ceil(self.width * settings.num_filters))
        channels = itertools.accumulate((first, *self.growth), operator.mul)
        depths = (settings.cells_per_stage * depth for depth in self.depth)
        return Skeleton(tuple(channels), tuple(depths), self.stem_stride, self.expansion)


def read_sizes(values: Mapping[str, Any]) -> Sizes:
    """Return the sizes with these values by name, where ``growth`` and ``depth`` are lists.

    Raises:
        InputError: if a value is not one of ``SIZE_CHOICES``.
    """
    found: dict[str, Any] = {}
    for name, choices in SIZE_CHOICES.items():
        value = values[name]
        numbers = value if name in SIZE_LENGTHS else [value]
        is_list = isinstance(numbers, (list, tuple)) and len(numbers) == SIZE_LENGTHS.get(name, 1)
        if not is_list or any(type(number) not in (int, float) or number not in choices for number in numbers):
            kind = f"a list of {SIZE_LENGTHS[name]} numbers out of" if name in SIZE_LENGTHS else "one of"
            raise InputError(f"the {name} of a genotype is {shown(value)}; it must be {kind} {', '.join(map(str, choices))}")
        numbers = tuple(choices[choices.index(number)] for number in numbers)  # 1 in place of 1.0
        found[name] = numbers if name in SIZE_LENGTHS else numbers[0]
    return Sizes(**found)


def has_separable_conv(*cells: Cell) -> bool:
    """Return whether a node of the cells has a separable convolution."""
    return any(number in KERNEL_SIZES for cell in cells for node in cell for number in (node[1], node[3]))


def count_enas_micro_parameters(
    normal: Cell,
    reduction: Cell,
    settings: NetworkSettings,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    skeleton: Skeleton | None = None,
) -> int:
    """Return ``count_parameters`` of the ``EnasMicroNetwork`` with these arguments, without building it."""
    skeleton = skeleton or enas_skeleton(settings)
    prev_prev = prev = 3 * skeleton.channels[0]
    total = 9 * image_shape[0] * prev + 2 * prev
    follows_reduction = False
    for stage, (channels, depth) in enumerate(zip(skeleton.channels, skeleton.depths, strict=True)):
        cells = ([(reduction, 2)] if stage else []) + [(normal, 1)] * depth
        for index, (cell, stride) in enumerate(cells):
            inputs = (prev_prev, prev)
            total += _count_cell(cell, inputs, channels, stride, follows_reduction, skeleton.expansion)
            prev_prev, prev = prev, channels * len(loose_ends(cell))
            follows_reduction = stride == 2
            if settings.auxiliary_head and stage == 2 and index == 1:
                total += _conv_bn(prev, 128) + _conv_bn(4 * 128, 768) + 768 * num_classes
    return total + prev * num_classes


def _conv_bn(in_channels: int, out_channels: int) -> int:
    """Return the parameters of a 1x1 convolution and batch norm, which are also those of a factorized reduction."""
    return in_channels * out_channels + 2 * out_channels


def _count_cell(
    cell: Cell, in_channels: tuple[int, int], channels: int, stride: int, follows_reduction: bool, expansion: int
) -> int:
    square = _conv_bn(channels, channels)
    prev_prev, prev = in_channels
    total = square
    if follows_reduction or prev_prev != channels:
        total += _conv_bn(prev_prev, channels)
    if prev != channels:
        total += _conv_bn(prev, channels)
    inner = expansion * channels
    for node in cell:
        for source, number in (node[:2], node[2:]):
            if number in KERNEL_SIZES:
                depthwise = KERNEL_SIZES[number] ** 2 * (channels + inner)
                total += depthwise + _conv_bn(channels, inner) + _conv_bn(inner, channels)
            elif number == IDENTITY and stride == 2 and source < 2:
                total += square
    if stride == 2:
        total += square * sum(value < 2 for value in loose_ends(cell))
    return total
