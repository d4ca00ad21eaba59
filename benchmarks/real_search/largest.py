"""The largest of many random cells: the baseline for rewards that depend on the size of a network."""

from __future__ import annotations

from functools import cache

import torch

from nases_env.evaluation import ChildSettings
from nases_env.networks import count_flops
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator


@cache
def largest_cell(
    search_space: str,
    settings: ChildSettings,
    num_classes: int,
    image_shape: tuple[int, int, int],
    num_cells: int,
    seed: int,
) -> Architecture:
    """Return the random cell whose network has the most FLOPs; no network is trained.

    Args:
        search_space: name of the search space.
        settings: size of the networks.
        num_classes: number of classes.
        image_shape: (channels, height, width).
        num_cells: number of random cells.
        seed: seed of the cells.
    """
    space, rng = get_search_space(search_space), numpy_generator(seed, "real search", "largest cell")

    def flops(cell: Architecture) -> int:
        with torch.device("meta"):
            network = space.build(cell, settings, num_classes=num_classes, image_shape=image_shape)
        return count_flops(network, image_shape)

    return max((space.sample(rng) for _ in range(num_cells)), key=flops)
