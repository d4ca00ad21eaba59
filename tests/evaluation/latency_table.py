"""A table of NAS-Bench-201 with accuracies and latencies, whose Pareto front is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces.nasbench201 import NasBench201

HEADER = "arch,valid_accuracy_200_epochs_cifar10,ms_phone,ms_server"
SPACE = NasBench201()
STRINGS = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*cell) for cell in itertools.product(OPERATORS, repeat=6)]


def accuracy_and_latency(text: str) -> tuple[float, float]:
    """Return the accuracy in percent and the milliseconds on the phone: convolutions add both, pooling latency."""
    large, small, pools = (text.count(name) for name in ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"))
    return 10.0 + 12.0 * large + 5.0 * small - pools, 1.0 + 4.0 * large + 1.0 * small + 2.0 * pools


LINES = [HEADER, *(f"{text},{accuracy_and_latency(text)[0]},{accuracy_and_latency(text)[1]},7" for text in STRINGS)]


def write_latency_table(path: Path, lines: list[str] = LINES) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def all_points() -> np.ndarray:
    """Return the accuracy in [0, 1] and the value of the latency of all cells, shape (15625, 2)."""
    values = np.array([accuracy_and_latency(text) for text in STRINGS])
    return np.stack([values[:, 0] / 100, -np.log10(values[:, 1] * 1e6)], axis=1)
