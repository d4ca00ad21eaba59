"""Signals: what a search could use as the reward, computed from the measurements of short trainings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from torch import nn

from benchmarks.fidelity.techniques import DISTILLATION, GROWING_IMAGES, LABEL_SMOOTHING
from nases_env.evaluation import scale_odds
from nases_env.networks import count_flops, count_parameters

Numbers = NDArray[np.float64]
Measurements = Mapping[str, Any]
"""The values of one training after one epoch, or of one whole training."""

FINAL = "final"

SHORT_TRAININGS: dict[str, dict[str, Any]] = {
    "preset": {},
    "lr_0.05": {"lr_max": 0.05},
    "lr_0.2": {"lr_max": 0.2},
    "batch_32": {"batch_size": 32},
    "batch_128": {"batch_size": 128},
    "cosine": {"schedule": "cosine", "lr_max": 0.05, "num_cycles": 1},
    "images_3000": {"num_epochs": 4, "num_train_images": 3000},
    "images_12000": {"num_epochs": 1, "num_train_images": 12_000},
    "half": {"num_epochs": 1},
    LABEL_SMOOTHING: {},
    DISTILLATION: {"num_train_images": 4400},
    GROWING_IMAGES: {"num_epochs": 3, "cuda_graphs": False},
    "image_size_12": {"image_size": 12, "num_train_images": 8400},
    "image_size_8": {"image_size": 8, "num_train_images": 10_800},
}
"""Changes of the preset, by training; the names in ``TECHNIQUES`` also change the loss or the network.

All take about as many seconds as the preset ``cpu`` on a CPU, except ``batch_32``, which takes more, and ``half``, which is
used twice.
"""

MEASURES: dict[str, tuple[str, int]] = {
    "valid_accuracy_few": ("valid_accuracy_few", 1),
    "valid_accuracy": ("valid_accuracy", 1),
    "valid_loss": ("valid_loss", -1),
    "ema_accuracy": ("ema_valid_accuracy", 1),
    "train_accuracy": ("train_accuracy", 1),
}
"""Measures after the last epoch: key and sign."""


FLOPS_EXPONENTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Signal:
    """A value per cell that is correlated with its final accuracy.

    Attributes:
        name: the training and the measure.
        values: one value per cell, larger is better, shape (cells,).
        seconds: mean CPU seconds per cell.
    """

    name: str
    values: Numbers
    seconds: float


def signals_of_training(name: str, results: Sequence[Measurements]) -> list[Signal]:
    """Return all signals of one training per cell, each measured after its last epoch."""
    epochs = [list(result["epochs"].values()) for result in results]
    seconds = float(np.mean([records[-1]["seconds"] for records in epochs]))

    def signal(measure: str, value: Callable[[list[Any]], float]) -> Signal:
        return Signal(f"{name}: {measure}", np.array([value(records) for records in epochs]), seconds)

    signals = [
        signal(measure, lambda records, key=key, sign=sign: sign * records[-1][key])  # type: ignore[misc]
        for measure, (key, sign) in MEASURES.items()
        if key in epochs[0][-1]
    ]
    signals.append(signal("sum_of_train_losses", lambda records: -sum(record["train_loss"] for record in records)))
    return signals


def signals_of_rungs(results: Sequence[Measurements], rungs: Sequence[int]) -> list[Signal]:
    """Return the signals of the final training after each of the epochs ``rungs``, and after its last epoch.

    From the second rung, they include the mean of the validation accuracies after this rung and the one before, and before
    the last epoch, its validation accuracy extrapolated from the rungs so far.
    """
    num_epochs = len(results[0]["epochs"])
    ends = [*rungs, num_epochs]
    signals = []
    for index, end in enumerate(ends):
        name = f"epoch {end} of the final training"
        prefixes = [{"epochs": dict(itertools.islice(result["epochs"].items(), end))} for result in results]
        signals += signals_of_training(name, prefixes)
        if index > 0:
            seconds = signals[-1].seconds
            accuracies = np.array(
                [[result["epochs"][str(each)]["valid_accuracy"] for each in ends[: index + 1]] for result in results]
            )
            mean_name = f"{name}: mean_accuracy of epochs {ends[index - 1]} and {end}"
            signals.append(Signal(mean_name, accuracies[:, -2:].mean(axis=1), seconds))
            if end < num_epochs:
                values = extrapolate(ends[: index + 1], accuracies, num_epochs)
                signals.append(Signal(f"{name}: extrapolated_accuracy", values, seconds))
    return signals


def signals_of_sizes(networks: Sequence[nn.Module], image_shape: tuple[int, int, int]) -> list[Signal]:
    """Return the signals that need no training: the number of parameters and of FLOPs of each network.

    Args:
        networks: one network per cell.
        image_shape: (channels, height, width).
    """
    params = np.array([count_parameters(network) for network in networks], dtype=np.float64)
    flops = np.array([count_flops(network, image_shape) for network in networks], dtype=np.float64)
    return [Signal("number of parameters", params, 0.0), Signal("FLOPs", flops, 0.0)]


def extrapolate(epochs: Sequence[int], accuracies: Numbers, last_epoch: int) -> Numbers:
    """Extrapolate learning curves: the least-squares line of the accuracy over log(epoch), at ``last_epoch``.

    Args:
        epochs: at least two numbers of epochs. After all of them, the learning rate should be equally low.
        accuracies: accuracy after each of these epochs, shape (cells, epochs).
        last_epoch: number of the epoch to predict.

    Returns:
        The predicted accuracies, shape (cells,).
    """
    slopes, intercepts = np.polyfit(np.log(epochs), accuracies.T, 1)
    predicted: Numbers = intercepts + slopes * np.log(last_epoch)
    return predicted


def rewards_of_training(name: str, results: Sequence[Measurements], num_flops: Numbers) -> list[Signal]:
    """Return the rewards that a search could compute from one training per cell; see ``nases_env.evaluation.scale_odds``.

    Args:
        name: name of the training.
        results: its result for each cell.
        num_flops: FLOPs of each cell, shape (cells,).
    """
    epochs = [list(result["epochs"].values()) for result in results]
    seconds = float(np.mean([records[-1]["seconds"] for records in epochs]))
    scores = {
        "valid_accuracy": [records[-1]["valid_accuracy_few"] for records in epochs],
        "training_speed": [np.exp(-np.mean([record["train_loss"] for record in records])) for records in epochs],
    }
    return [
        Signal(
            f"{name}: {signal}, exponent {exponent:g}",
            np.array([scale_odds(score, flops, exponent) for score, flops in zip(values, num_flops, strict=True)]),
            seconds,
        )
        for signal, values in scores.items()
        for exponent in FLOPS_EXPONENTS
    ]


def scores_of_epochs(
    valid_accuracies: Numbers, train_losses: Numbers, num_flops: Numbers, exponent: float
) -> dict[str, Numbers]:
    """Return what rungs could rank networks by, after each epoch of a training, each of shape (cells, epochs).

    Args:
        valid_accuracies: after each epoch, shape (cells, epochs).
        train_losses: the mean of each epoch, shape (cells, epochs).
        num_flops: FLOPs of each cell, shape (cells,).
        exponent: exponent of the number of MFLOPs in the reward; see ``nases_env.evaluation.scale_odds``.
    """
    speeds = np.exp(-np.cumsum(train_losses, axis=1) / np.arange(1, train_losses.shape[1] + 1))
    rewards = [
        [scale_odds(speed, flops, exponent) for speed in of_cell] for of_cell, flops in zip(speeds, num_flops, strict=True)
    ]
    return {"valid_accuracy": valid_accuracies, f"training_speed, exponent {exponent:g}": np.array(rewards)}


def average(name: str, signals: Sequence[Signal]) -> Signal:
    """Return the mean of a signal over several seeds."""
    return Signal(name, np.mean([signal.values for signal in signals], axis=0), sum(signal.seconds for signal in signals))


def describe(
    signal: Signal,
    accuracies: Numbers,
    rng: np.random.Generator,
    num_resamples: int,
    metrics: Sequence[str] = ("spearman", "kendall", "regret_1", "regret_3"),
) -> dict[str, list[float | None]]:
    """Return rank correlations and regrets of a signal, each with its 95% bootstrap interval over cells.

    Args:
        signal: the signal.
        accuracies: the final accuracy of each cell, in [0, 1], shape (cells,).
        rng: generator of the bootstrap.
        num_resamples: number of bootstrap samples.
        metrics: names in ``METRICS``.

    Returns:
        A list for each metric: value, low, high. All are None if the signal or the accuracy is the same for all cells, low
        and high without samples.
    """
    if not (np.ptp(signal.values) > 0 and np.ptp(accuracies) > 0):
        return {name: [None, None, None] for name in metrics}
    rows = np.arange(len(accuracies))
    samples = [rows, *(rng.choice(rows, len(rows)) for _ in range(num_resamples))]
    # A rank correlation of equal values is undefined.
    samples = [sample for sample in samples if np.ptp(signal.values[sample]) > 0 and np.ptp(accuracies[sample]) > 0]
    report: dict[str, list[float | None]] = {}
    for name in metrics:
        values = np.array([METRICS[name](signal.values[sample], accuracies[sample]) for sample in samples])
        bounds = np.quantile(values[1:], [0.025, 0.975]).tolist() if len(values) > 1 else [None, None]
        report[name] = [float(values[0]), *bounds]
    return report


def regret(signal: Numbers, accuracies: Numbers, k: int) -> float:
    """Return how much worse than the best cell the best of the ``k`` cells with the highest signal is, in [0, 1]."""
    chosen = np.argsort(-signal, kind="stable")[:k]
    return float(accuracies.max() - accuracies[chosen].max())


METRICS: dict[str, Callable[[Numbers, Numbers], float]] = {
    "spearman": lambda signal, accuracies: float(scipy.stats.spearmanr(signal, accuracies).statistic),
    "kendall": lambda signal, accuracies: float(scipy.stats.kendalltau(signal, accuracies).statistic),
    "regret_1": lambda signal, accuracies: regret(signal, accuracies, 1),
    "regret_3": lambda signal, accuracies: regret(signal, accuracies, 3),
}
"""Rank correlations, and the best final accuracy minus that of the best of the 1 or 3 cells with the highest signal."""


def ceiling(accuracies: Numbers) -> dict[str, float | None]:
    """Return how far the seeds of the final training agree, which limits every signal.

    Args:
        accuracies: final accuracies, shape (cells, seeds), in [0, 1].

    Returns:
        ``between_seeds``: the mean Spearman correlation of two seeds; None if all accuracies of a seed are equal.
        ``with_mean``: that of a perfect signal with the mean of the seeds, the square root of the reliability of the mean
        (Spearman-Brown); None if the seeds do not agree.
    """
    if not np.all(np.ptp(accuracies, axis=0) > 0):
        return {"between_seeds": None, "with_mean": None}
    num_seeds = accuracies.shape[1]
    pairs = itertools.combinations(range(num_seeds), 2)
    between = float(np.mean([scipy.stats.spearmanr(accuracies[:, i], accuracies[:, j]).statistic for i, j in pairs]))
    if between <= 0:
        return {"between_seeds": between, "with_mean": None}
    return {"between_seeds": between, "with_mean": float(np.sqrt(num_seeds * between / (1 + (num_seeds - 1) * between)))}
