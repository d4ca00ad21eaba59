"""Final trainings: on all training images, with one measurement on the test images at the end."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.searches import seconds_of_process
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.scaled_networks import ScaledNetworks
from benchmarks.real_search.separable_network import SeparableNetworks
from nases_env.atomic_io import write_atomically
from nases_env.devices import resolve_device
from nases_env.evaluation import ChildSettings
from nases_env.evaluation.training import TRAINING_VERSION
from nases_env.hashing import sha256_hex
from nases_env.retraining import FinalTraining
from nases_env.retraining.training import TrainingFailedError
from nases_env.search_spaces import SearchSpace, get_search_space
from nases_env.training import EpochRecord, load_images

BASELINE_SPACES: dict[str, ScaledNetworks] = {space.name: space for space in (ResidualNetworks(), SeparableNetworks())}
"""The networks without a search by name."""


@dataclass(frozen=True)
class Training:
    """One final training. Two methods that choose the same network with the same seed share it.

    Attributes:
        search_space: name of the search space, or of one in ``BASELINE_SPACES``.
        decisions: the decisions of the network.
        seed: seed of the training.
        dataset: name of the data set.
        settings: settings of the final training.
        data_dir: directory of the data set; None: ``NASES_DATA_DIR``.
        device: torch device.
        images: digest of the images; None for a fixed data set.
        work_dir: directory of the results.
    """

    search_space: str
    decisions: tuple[int, ...]
    seed: int
    dataset: str
    settings: ChildSettings
    data_dir: str | None
    device: str
    images: str | None
    work_dir: Path

    @property
    def space(self) -> SearchSpace:
        """The search space of the network."""
        baseline = BASELINE_SPACES.get(self.search_space)
        return get_search_space(self.search_space) if baseline is None else baseline

    @property
    def key(self) -> str:
        """The canonical key of the network."""
        return self.space.architecture(self.decisions).key

    @property
    def path(self) -> Path:
        """The file of the result, whose name depends on everything that determines it."""
        device = resolve_device(self.device).type
        identity = [TRAINING_VERSION, self.key, self.seed, self.dataset, dataclasses.asdict(self.settings), device]
        if self.images is not None:
            identity.append(self.images)
        return self.work_dir / "trainings" / f"{self.seed}-{sha256_hex(json.dumps(identity))[:16]}.json"

    @property
    def is_finished(self) -> bool:
        """Whether the training has ended, normally or not."""
        return self.read() is not None

    def read(self) -> dict[str, Any] | None:
        """Return the result, or None if the training is not finished."""
        values = self._read_file()
        return values if "status" in values else None

    def run(self) -> None:
        """Run the training in this process, or resume it after its last epoch, and write its result."""
        device = resolve_device(self.device)
        space = self.space
        final = FinalTraining(
            space,
            space.architecture(self.decisions),
            self.dataset,
            self.settings,
            data_dir=self.data_dir,
            device=self.device,
        )
        for train in (True, False):  # before the time is measured
            load_images(self.dataset, train=train, data_dir=self.data_dir, image_size=self.settings.image_size)
        seconds: dict[str, float] = self._read_file().get("seconds_at_epoch", {})
        values = {"key": self.key, "seed": self.seed, "seconds_at_epoch": seconds}
        start = seconds_of_process(device)

        def note(record: EpochRecord) -> None:
            nonlocal start
            now = seconds_of_process(device)
            # A resumed training counts on from its last recorded epoch.
            seconds[str(record.epoch)] = seconds.get(str(record.epoch - 1), 0.0) + now - start
            start = now
            self._write(values)

        checkpoint = self.path.with_suffix(".safetensors")
        try:
            _, result = final.run(self.seed, checkpoint, note)
        except TrainingFailedError as error:
            self._write({**values, "status": "failed", "reason": str(error)})
        else:
            self._write({**values, "status": "ok", "seconds": max(seconds.values()), "result": result.to_dict()})
        checkpoint.unlink(missing_ok=True)

    def _read_file(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return {}

    def _write(self, values: dict[str, Any]) -> None:
        write_atomically(self.path, (json.dumps(values) + "\n").encode())
