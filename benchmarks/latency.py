"""Measure the latency of random networks in several processes, one after another, and compare the results.

    python -m benchmarks.latency --output latency.json

Each process measures the same networks as ``--max-latency`` does in a search, in a different order. The difference of a
network is its highest minus its lowest latency, divided by the mean of these two. Close other programs first.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.common.report import TextTable
from benchmarks.common.searches import require_trained_children
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.devices import device_name
from nases_env.envs import ImageEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs, make_env
from nases_env.seeding import numpy_generator


@dataclass
class Args:
    """Options of the benchmark."""

    env_id: str = "NASES-Digits-v0"
    """Id of an environment that trains children."""
    preset: str = "cpu"
    """Preset of the networks."""
    search_space: str = "enas_micro_sized"
    """Search space of the networks."""
    num_architectures: int = 20
    """Number of random networks."""
    num_processes: int = 3
    """Number of processes, which run one after another; at least 2."""
    seed: int = 0
    """Seed of the networks and of the orders."""
    data_dir: str | None = None
    """Directory with the data; unset: NASES_DATA_DIR."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        for option in ("num_architectures", "num_processes"):
            if getattr(self, option) < 2:
                raise InputError(f"--{option.replace('_', '-')} must be at least 2, not {getattr(self, option)}")

    def make_env(self) -> ImageEnv:
        """Make the environment.

        Raises:
            InputError: if it trains no children, or an option is not valid.
        """
        options = SearchArgs(
            env_id=self.env_id,
            preset=self.preset,
            search_space=self.search_space,
            data_dir=self.data_dir,
            device="cpu",
        )
        return require_trained_children(make_env(options), self.env_id)


def measure(args: Args, process: int) -> list[float]:
    """Measure the latency of each network in this process, in seconds."""
    env = args.make_env()
    rng = numpy_generator(args.seed, "latency", "networks")
    networks = [env.search_space.sample(rng) for _ in range(args.num_architectures)]
    latencies = [0.0] * len(networks)
    for index in numpy_generator(args.seed, "latency", "order", str(process)).permutation(len(networks)):
        latencies[index] = env.evaluator.measure_latency(networks[index], seed=0)
    return latencies


def analyze(latencies: NDArray[np.float64]) -> dict[str, Any]:
    """Compare the processes.

    Args:
        latencies: seconds, shape (processes, networks).
    """
    differences = (latencies.max(0) - latencies.min(0)) / ((latencies.max(0) + latencies.min(0)) / 2)
    pairs = itertools.combinations(latencies, 2)
    return {
        "difference": dict(zip(("median", "p90", "max"), np.quantile(differences, (0.5, 0.9, 1.0)).tolist(), strict=True)),
        "lowest_spearman": min(float(scipy.stats.spearmanr(*pair).statistic) for pair in pairs),
        "latency_ms": {"min": 1e3 * float(latencies.min()), "max": 1e3 * float(latencies.max())},
    }


def make_table(report: dict[str, Any]) -> TextTable:
    """Return the table of the differences."""
    settings, metrics = report["settings"], report["metrics"]
    title = f"{settings['num_architectures']} networks of {settings['search_space']}, {settings['num_processes']} processes"
    row: Sequence[str] = [
        "{min:.3g} to {max:.3g}".format(**metrics["latency_ms"]),
        *(f"{100 * metrics['difference'][name]:.1f}" for name in ("median", "p90", "max")),
        f"{metrics['lowest_spearman']:.3f}",
    ]
    headings = ["latency in ms", "median difference in %", "90% quantile", "maximum", "lowest Spearman correlation"]
    return TextTable(title, headings, [list(row)])


def main(args: Args) -> None:
    """Compare the latencies that several processes measure for the same networks."""
    args.make_env()  # a wrong option is an error of this process
    latencies = []
    context = multiprocessing.get_context("spawn")
    for process in range(args.num_processes):
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            latencies.append(executor.submit(measure, args, process).result())
    report = {
        "benchmark": "latency",
        "settings": dataclasses.asdict(args),
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "latencies": latencies,
        "metrics": analyze(np.array(latencies)),
    }
    Console(width=120).print(make_table(report).to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
