"""The largest of many random cells: the baseline for rewards that depend on the size of a network."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from nases_env.atomic_io import write_atomically
from nases_env.evaluation import ChildSettings
from nases_env.hashing import sha256_hex
from nases_env.networks import count_flops
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator


@dataclass(frozen=True)
class LargestCell:
    """The choice of the random cell whose network has the most FLOPs. No network is trained.

    Attributes:
        search_space: name of the search space.
        settings: size of the networks.
        num_classes: number of classes.
        image_shape: (channels, height, width).
        num_cells: number of random cells.
        seed: seed of the cells.
        work_dir: directory of the results.
    """

    search_space: str
    settings: ChildSettings
    num_classes: int
    image_shape: tuple[int, int, int]
    num_cells: int
    seed: int
    work_dir: Path

    @property
    def path(self) -> Path:
        """The file with the decisions of the cell."""
        identity = [self.search_space, dataclasses.asdict(self.settings), self.num_classes, self.image_shape, self.num_cells]
        return self.work_dir / "largest" / f"{self.seed}-{sha256_hex(json.dumps(identity))[:16]}.json"

    @property
    def is_finished(self) -> bool:
        """Whether the cell is known."""
        return self.path.exists()

    def read(self) -> Architecture | None:
        """Return the cell; None if it is not known."""
        if not self.is_finished:
            return None
        return get_search_space(self.search_space).architecture(json.loads(self.path.read_text())["decisions"])

    def run(self) -> None:
        """Choose the cell, and write it to its file."""
        space, rng = get_search_space(self.search_space), numpy_generator(self.seed, "real search", "largest cell")

        def flops(cell: Architecture) -> int:
            with torch.device("meta"):
                network = space.build(cell, self.settings, num_classes=self.num_classes, image_shape=self.image_shape)
            return count_flops(network, self.image_shape)

        cell = max((space.sample(rng) for _ in range(self.num_cells)), key=flops)
        write_atomically(self.path, (json.dumps({"decisions": cell.decisions}) + "\n").encode())
