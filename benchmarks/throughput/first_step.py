"""Startup latency: seconds from the submission of a child to the end of its first training step."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.throughput.children import SPACE, Configuration, make_network, random_architecture, read_images
from nases_env.cpu import torch_threads
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution import ExecutionSettings, make_executor
from nases_env.search_spaces import Architecture
from nases_env.training import EpochRecord, TrainingSettings, train_classifier


class _FirstStepEndedError(Exception):
    pass


@dataclass(frozen=True)
class FirstStepEvaluator(Evaluator):
    """Trains a child on one batch and stops; no accuracy is measured."""

    configuration: Configuration
    batch_size: int
    image_size: int
    device: str
    num_threads: int
    search_space: str = SPACE.name

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        def stop(record: EpochRecord) -> None:
            raise _FirstStepEndedError

        network = make_network(architecture, self.configuration, self.image_size, seed)
        images = read_images("synthetic", self.batch_size, self.image_size, 0)
        settings = TrainingSettings(num_epochs=1, num_cycles=1, batch_size=self.batch_size)
        with torch_threads(self.num_threads), contextlib.suppress(_FirstStepEndedError):
            train_classifier(
                network, images, images, settings, seed=seed, device=torch.device(self.device), flip=True, on_epoch=stop
            )
        return Evaluation(architecture.key, seed, Status.OK, device=self.device)


def measure(evaluator: FirstStepEvaluator, folder: Path, *, num_repeats: int, seed: int) -> dict[str, list[float]]:
    """Measure the latency in this process (serial), in a running worker (warm) and in a worker that has to start (cold).

    Args:
        evaluator: evaluator of the child.
        folder: directory for the files of the workers.
        num_repeats: number of measurements of each kind.
        seed: seed of the architecture.

    Returns:
        Seconds of each repeat, by kind.
    """
    architecture = random_architecture(seed, 0)
    seconds: dict[str, list[float]] = {"serial": [], "warm worker": [], "cold worker": []}

    for repeat in range(num_repeats):
        for name in ("serial", "processes"):
            settings = (
                ExecutionSettings(executor="serial")
                if name == "serial"
                else ExecutionSettings(executor="processes", num_workers=1, work_dir=str(folder / f"workers-{repeat}"))
            )
            executor = make_executor(evaluator, settings, max_in_flight=1, describe=SPACE.to_json)
            try:
                times = []
                for child in range(2):
                    start = time.perf_counter()
                    executor.submit(architecture, child).result()
                    times.append(time.perf_counter() - start)
            finally:
                executor.shutdown()
            if name == "serial":
                seconds["serial"].append(times[1])
            else:
                seconds["cold worker"].append(times[0])
                seconds["warm worker"].append(times[1])
    return seconds
