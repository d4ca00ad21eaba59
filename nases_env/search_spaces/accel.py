"""The search space of Accel-NASBench (Ahmad et al., 2024): MnasNet-like networks of seven blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nases_env.errors import InputError, shown
from nases_env.search_spaces.base import Architecture, SearchSpace

NUM_BLOCKS = 7
FIELDS = ("expansion", "kernel_size", "num_layers", "squeeze_excitation")
"""The decisions of a block."""

_EXPANSIONS, _KERNEL_SIZES, _OFF_ON = (1, 4, 6), (3, 5), (0, 1)
_NUM_LAYERS = ((1, 2, 3),) * 5 + ((1, 2, 3, 4), (1, 2, 3))  # by block

CHOICES: tuple[tuple[int, ...], ...] = tuple(
    choices for num_layers in _NUM_LAYERS for choices in (_EXPANSIONS, _KERNEL_SIZES, num_layers, _OFF_ON)
)
"""The values of the choices of each decision."""

_WIDTHS = (16, 24, 40, 80, 112, 192, 320)  # channels of the output of each block, as in EfficientNet-B0

_EXAMPLE = '{"expansion": 6, "kernel_size": 3, "num_layers": 2, "squeeze_excitation": 0}'


class Accel(SearchSpace):
    """The search space of Accel-NASBench, m = 28: four decisions for each of the seven blocks of a MnasNet-like network.

    The decisions of a block are the expansion factor of its inverted residual layers (1, 4 or 6), their kernel size (3 or
    5), their number (1, 2 or 3; also 4 in block 5) and whether they have squeeze-and-excitation (0 or 1). Blocks are
    numbered from 0. There are 36^6 · 48 = 1.0e11 networks. They have no cells.

    A genotype is ``{"blocks": [block, …]}`` with seven blocks such as
    ``{"expansion": 6, "kernel_size": 3, "num_layers": 2, "squeeze_excitation": 0}``. In a table, an architecture is written
    as these 28 numbers, separated by commas.
    """

    name = "accel"
    decision_sizes = tuple(map(len, CHOICES))
    decisions_per_timestep = len(FIELDS)
    decision_names = tuple(f"block {block} {field.replace('_', ' ')}" for block in range(NUM_BLOCKS) for field in FIELDS)
    choice_names = CHOICES

    def values(self, architecture: Architecture) -> tuple[int, ...]:
        """Return the value of each decision, such as the kernel size."""
        return tuple(choices[choice] for choices, choice in zip(CHOICES, architecture.decisions, strict=True))

    def from_values(self, values: Sequence[int]) -> Architecture:
        """Return the architecture with these values of the decisions.

        Raises:
            InputError: if there are not 28 of them, or one is not possible.
        """
        if len(values) != len(CHOICES):
            raise InputError(f"an architecture of accel has {len(CHOICES)} values, not {len(values)}")
        for name, value, choices in zip(self.decision_names, values, CHOICES, strict=True):
            if value not in choices:
                raise InputError(f"{name} is {shown(value)}; it must be one of {', '.join(map(str, choices))}")
        return self.architecture([choices.index(value) for choices, value in zip(CHOICES, values, strict=True)])

    def size(self, architecture: Architecture) -> float:
        """Return about the number of weights in the convolutions of all blocks, as if a block did not change the width."""
        values = self.values(architecture)
        size = 0
        for block, width in enumerate(_WIDTHS):
            expansion, kernel_size, num_layers, _ = values[len(FIELDS) * block : len(FIELDS) * (block + 1)]
            size += num_layers * expansion * width * (2 * width + kernel_size**2)
        return float(size)

    def to_string(self, architecture: Architecture) -> str:
        return ",".join(map(str, self.values(architecture)))

    def from_string(self, text: str) -> Architecture:
        try:
            values = [int(value) for value in text.split(",")]
        except ValueError:
            raise InputError(
                f"an architecture of accel is written as {len(CHOICES)} integers separated by commas, not {shown(text)}"
            ) from None
        return self.from_values(values)

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        values = self.values(architecture)
        starts = range(0, len(values), len(FIELDS))
        return {"blocks": [dict(zip(FIELDS, values[start : start + len(FIELDS)], strict=True)) for start in starts]}

    def from_genotype(self, genotype: Any) -> Architecture:
        blocks = genotype.get("blocks") if isinstance(genotype, dict) and len(genotype) == 1 else None
        if not isinstance(blocks, (list, tuple)) or len(blocks) != NUM_BLOCKS:
            raise InputError(
                f'a genotype of accel must be {{"blocks": [block, ...]}} with {NUM_BLOCKS} blocks, not {shown(genotype)}'
            )
        for number, block in enumerate(blocks):
            is_block = isinstance(block, dict) and block.keys() == set(FIELDS)
            if not is_block or any(type(value) is not int for value in block.values()):
                raise InputError(f"block {number} of a genotype of accel must be such as {_EXAMPLE}, not {shown(block)}")
        return self.from_values([block[name] for block in blocks for name in FIELDS])
