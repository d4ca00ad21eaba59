"""Signal and noise of the validation accuracy: its variance between architectures and its variance between seeds.

Random architectures are each trained with several seeds, with the preset of a search. A one-way random-effects analysis of
variance splits the variance of the validation accuracy into a component between architectures (the signal of a search) and a
component between seeds (noise). The ICC (intraclass correlation) is the share of the first component.

    python -m benchmarks.reward_signal --env-ids NASES-Digits-v0 NASES-CIFAR10-v0
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.stats
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.common.searches import require_trained_children
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.evaluation import Evaluation, TrainingEvaluator
from nases_env.search import SearchArgs, make_env
from nases_env.search.option_checks import require_at_least
from nases_env.search_spaces import Architecture
from nases_env.seeding import derive_seed, numpy_generator


@dataclass
class Args:
    """Options of the benchmark."""

    env_ids: tuple[str, ...] = ("NASES-Digits-v0", "NASES-CIFAR10-v0")
    """Ids of the environments."""
    preset: str = "cpu"
    """Preset of the children."""
    num_architectures: int = 12
    """Number of random architectures."""
    num_seeds: int = 3
    """Number of trainings of each architecture."""
    seed: int = 0
    """Seed of the architectures and of their trainings."""
    data_dir: str | None = None
    """Directory with the data; unset: NASES_DATA_DIR."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel trainings, with one thread each."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "num_architectures", "num_seeds")
        require_at_least(self, 1, "num_processes")


def evaluate(job: tuple[TrainingEvaluator, Architecture, int]) -> Evaluation:
    evaluator, architecture, seed = job
    return evaluator.evaluate(architecture, seed)


def analyze(accuracies: np.ndarray) -> dict[str, float]:
    """Estimate the variance components of ``accuracies``, shape (architectures, seeds), in [0, 1].

    Returns:
        Mean and standard deviations in percentage points, and the ICC; it is NaN if all accuracies are equal.
    """
    num_seeds = accuracies.shape[1]
    within = accuracies.var(axis=1, ddof=1).mean()
    between = max(0.0, accuracies.mean(axis=1).var(ddof=1) - within / num_seeds)
    return {
        "mean": float(100 * accuracies.mean()),
        "sd_between_architectures": 100 * math.sqrt(between),
        "sd_between_seeds": 100 * math.sqrt(within),
        "icc": float(between / (between + within)) if np.ptp(accuracies) > 0 else math.nan,
    }


def icc_interval(accuracies: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the ICC, from resampled architectures; NaN if all accuracies are equal."""
    if np.ptp(accuracies) == 0:
        return math.nan, math.nan
    result = scipy.stats.bootstrap(
        (np.arange(len(accuracies)),),
        lambda rows: analyze(accuracies[rows])["icc"],
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=rng,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def measure(env_id: str, args: Args, pool: ProcessPoolExecutor) -> dict[str, Any]:
    options = SearchArgs(env_id=env_id, preset=args.preset, data_dir=args.data_dir)
    nases = require_trained_children(make_env(options), env_id)
    evaluator = cast(TrainingEvaluator, nases.evaluator)
    evaluator.prepare()
    rng = numpy_generator(args.seed, "reward signal", "architectures")
    architectures = [nases.search_space.sample(rng) for _ in range(args.num_architectures)]
    jobs = [
        (evaluator, architecture, derive_seed(args.seed, "reward signal", str(repeat), architecture.key))
        for architecture in architectures
        for repeat in range(args.num_seeds)
    ]
    evaluations = list(tqdm(pool.map(evaluate, jobs), total=len(jobs), desc=env_id, unit="child"))
    accuracies = np.array([evaluation.valid_accuracy for evaluation in evaluations]).reshape(-1, args.num_seeds)
    low, high = icc_interval(accuracies, numpy_generator(args.seed, "reward signal", "bootstrap"))
    return {
        "env_id": env_id,
        "preset": nases.preset,
        "settings": dataclasses.asdict(nases.settings),
        **analyze(accuracies),
        "icc_low": low,
        "icc_high": high,
        "median_seconds_per_child": statistics.median(evaluation.seconds for evaluation in evaluations),
        "keys": [architecture.key for architecture in architectures],
        "accuracies": accuracies.tolist(),
    }


def main(args: Args) -> None:
    """Measure the shares of architecture and seed in the variance of the validation accuracy."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.num_processes, mp_context=context) as pool:
        results = [measure(env_id, args, pool) for env_id in args.env_ids]
    title = f"{args.num_architectures} architectures × {args.num_seeds} seeds: validation accuracy in %, mean and sd"
    table = Table(title=title)
    for heading in ("environment", "preset", "mean", "sd of architectures", "sd of seeds", "ICC (95%)", "s/child"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result["env_id"],
            result["preset"],
            f"{result['mean']:.1f}",
            f"{result['sd_between_architectures']:.2f}",
            f"{result['sd_between_seeds']:.2f}",
            f"{result['icc']:.2f} ({result['icc_low']:.2f}–{result['icc_high']:.2f})",
            f"{result['median_seconds_per_child']:.1f}",
        )
    Console().print(table)
    if args.output is not None:
        write_atomically(
            args.output, (json.dumps({"benchmark": "reward_signal", "results": results}, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    run_command(Args, main)
