"""The cell that ENAS found on CIFAR-10 (Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", 2018)."""

from __future__ import annotations

from typing import Any

from nases_env.networks.genotype import CELLS, NUM_NODES

ENAS_ARC = (
    *(0, 2, 0, 0, 0, 4, 0, 1, 0, 4, 1, 1, 1, 0, 0, 1, 0, 2, 1, 1),
    *(1, 0, 1, 0, 0, 3, 0, 2, 1, 1, 3, 1, 1, 0, 0, 4, 0, 3, 1, 1),
)
"""``fixed_arc`` in ``scripts/cifar10_micro_final.sh`` of https://github.com/melodyguan/enas: the normal cell, then the
reduction cell; each node is (input, operator, input, operator)."""

ENAS_OPERATORS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
"""The operators by their numbers in ``src/cifar10/micro_child.py``, which differ from ``nases_env.networks.OPERATORS``."""


def enas_genotype() -> dict[str, Any]:
    """Return ENAS's cells as a genotype of ``enas_micro``. The numbers of the inputs are equal in both."""
    values = iter(ENAS_ARC)
    nodes = [[[ENAS_OPERATORS[op_a], a], [ENAS_OPERATORS[op_b], b]] for a, op_a, b, op_b in zip(*[values] * 4, strict=True)]
    return {name: nodes[index * NUM_NODES : (index + 1) * NUM_NODES] for index, name in enumerate(CELLS)}
