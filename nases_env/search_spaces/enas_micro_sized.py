"""ENAS's micro search space with the size of the network: its width, depth, stem stride and expansion."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import nn

from nases_env.networks import Cell, EnasMicroNetwork, NetworkSettings
from nases_env.networks.enas_micro_sized import (
    SIZE_CHOICES,
    SIZE_LENGTHS,
    Sizes,
    count_enas_micro_parameters,
    has_separable_conv,
)
from nases_env.networks.genotype import canonical_cell, read_enas_micro_sized
from nases_env.search_spaces.base import Architecture
from nases_env.search_spaces.enas_micro import EnasMicro, split_cells

_CHOICES = tuple(choices for name, choices in SIZE_CHOICES.items() for _ in range(SIZE_LENGTHS.get(name, 1)))
NUM_SIZES = len(_CHOICES)

SIZE_SETTINGS = NetworkSettings(cells_per_stage=1, num_filters=8)
"""The settings of ``size``, which are those of the presets ``cpu`` and ``small``."""


class EnasMicroSized(EnasMicro):
    """The search space ``enas_micro`` with eight further decisions on the size of the network, m = 48.

    | decision | choices |
    | --- | --- |
    | stride of the stem | 1, 2 |
    | width: channels of the first stage, as a multiple of F (``num_filters``), rounded up, at least 2 | 0.25, 0.5, 1, 2, 4 |
    | growth of the second and of the third stage: channels as a multiple of those of the stage before | 1, 2, 3 (each) |
    | depth of each of the three stages: normal cells, as a multiple of N (``cells_per_stage``) | 1, 2, 3 (each) |
    | expansion of the separable convolutions: channels between their two halves, as a multiple of the others | 1, 2 |

    These decisions precede the 40 decisions of ``enas_micro``, whose networks have the stride 1, the width 1, the growth 2
    and 2, the depth 1, 1 and 1, and the expansion 1. The expansion is not less than 1, because a bottleneck would leave one
    or two channels in a narrow network.

    N and F scale all networks: with N = 2 and F = 20 (the preset ``gpu``), the median number of parameters is 8 times as
    large as with N = 1 and F = 8.

    With N = 1 and F = 8 (the presets ``cpu`` and ``small``), color images and 10 classes, 1,000 random networks have 1,566
    to 9.1 million parameters: 5% have fewer than 5,700, a quarter fewer than 20,000, half fewer than 83,000, a quarter more
    than 370,000, and 5% more than 2.0 million.

    Images may have any size. A side of s pixels has ceil(s / 2) after a stem of stride 2 and after each of the two
    reduction cells. There is no larger stride, because the 3x3 convolution of the stem would skip pixels: images of 8x8
    pixels have 4x4, 2x2 and 1x1 pixels in the three stages with stride 2, and 8x8, 4x4 and 2x2 with stride 1.

    Two architectures with the same key have the same network. The expansion has no effect without a separable convolution
    and is then not part of the key. Two architectures with different keys have different networks if F is at least 5 and
    the images have more than one pixel. With F = 2, as in the preset ``smoke``, three widths are rounded to the same two
    channels.

    A genotype is that of ``enas_micro`` with the additional keys in ``{"stem_stride": 1, "width": 0.5, "growth": [2, 2],
    "depth": [1, 1, 1], "expansion": 1}``.
    """

    name = "enas_micro_sized"
    flops_exponent = 0.0

    @cached_property
    def decision_sizes(self) -> tuple[int, ...]:
        """The number of choices of each size, followed by those of ``enas_micro``."""
        return (*map(len, _CHOICES), *EnasMicro().decision_sizes)

    def sizes(self, architecture: Architecture) -> Sizes:
        """Return the size of the network relative to N and F."""
        values = [choices[choice] for choices, choice in zip(_CHOICES, architecture.decisions, strict=False)]
        stem_stride, width, *_, expansion = values
        return Sizes(stem_stride, width, tuple(values[2:4]), tuple(values[4:7]), expansion)

    def cells(self, architecture: Architecture) -> tuple[Cell, Cell]:
        return split_cells(architecture.decisions[NUM_SIZES:])

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the decisions with canonical cells, and without an expansion if there is no separable convolution."""
        sizes, cells = decisions[:NUM_SIZES], decisions[NUM_SIZES:]
        if not has_separable_conv(*split_cells(cells)):
            sizes = (*sizes[:-1], 0)
        return sizes + super().canonicalize(cells)

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        values = self.sizes(architecture)._asdict()
        sizes = {name: list(value) if name in SIZE_LENGTHS else value for name, value in values.items()}
        return {**sizes, **super().genotype(architecture)}

    def from_genotype(self, genotype: Any) -> Architecture:
        sizes, *cells = read_enas_micro_sized(genotype)
        values = [number for size in sizes for number in (size if isinstance(size, tuple) else (size,))]
        choices = [choices.index(value) for choices, value in zip(_CHOICES, values, strict=True)]
        return self.architecture([*choices, *(number for cell in cells for node in cell for number in node)])

    def summary(self, architecture: Architecture) -> str:
        sizes = self.sizes(architecture)
        growth, depth = (" ".join(map(str, numbers)) for numbers in (sizes.growth, sizes.depth))
        return (
            f"stem stride {sizes.stem_stride}, width {sizes.width}, growth {growth}, depth {depth}, "
            f"expansion {sizes.expansion}"
        )

    def size(self, architecture: Architecture) -> float:
        """Return the number of parameters for N = 1, F = 8, color images and 10 classes."""
        return float(self.count_parameters(architecture, SIZE_SETTINGS, num_classes=10, image_shape=(3, 32, 32)))

    def count_parameters(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> int:
        """Return the number of parameters of the network; see ``SearchSpace.count_parameters``."""
        normal, reduction = self.cells(architecture)
        skeleton = self.sizes(architecture).skeleton(settings)
        return count_enas_micro_parameters(
            normal, reduction, settings, num_classes=num_classes, image_shape=image_shape, skeleton=skeleton
        )

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        """Build the network; see ``SearchSpace.build``. N and F of ``settings`` scale the sizes of the architecture."""
        normal, reduction = map(canonical_cell, self.cells(architecture))
        skeleton = self.sizes(architecture).skeleton(settings)
        return EnasMicroNetwork(
            normal, reduction, settings, num_classes=num_classes, image_shape=image_shape, skeleton=skeleton
        )
