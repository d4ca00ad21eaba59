"""The latency of networks on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from nases_env.cpu import torch_threads

NUM_ROUNDS, ROUND_SECONDS = 5, 0.2
NUM_WARM_UP_PASSES, MIN_PASSES = 5, 5  # in each round


class Latency(NamedTuple):
    """The seconds of a forward pass of one image.

    Attributes:
        low: first quartile of all passes.
        median: their median.
        high: their third quartile.
        best_round: lowest median of a round. Other work on the machine makes passes slower, so this differs less between two
            measurements than ``median``.
        num_passes: number of passes.
    """

    low: float
    median: float
    high: float
    best_round: float
    num_passes: int


def measure_latencies(
    models: Sequence[nn.Module],
    image_shape: tuple[int, int, int],
    *,
    num_rounds: int = NUM_ROUNDS,
    round_seconds: float = ROUND_SECONDS,
) -> list[Latency]:
    """Measure the latency of ``models`` in evaluation mode, with one image, on the CPU with one thread.

    The models take turns, so that other work on the machine affects all of them. Each round begins with a warm-up.

    Args:
        models: image classifiers on the CPU; their memory layout and their mode are changed.
        image_shape: (channels, height, width).
        num_rounds: number of rounds.
        round_seconds: minimum duration of a round of one model.
    """
    image = torch.zeros(1, *image_shape).contiguous(memory_format=torch.channels_last)
    prepared = [model.eval().to(memory_format=torch.channels_last) for model in models]
    rounds: list[list[list[float]]] = [[] for _ in prepared]
    with torch_threads(1), torch.inference_mode():
        for _ in range(num_rounds):
            for model, measured in zip(prepared, rounds, strict=True):
                for _ in range(NUM_WARM_UP_PASSES):
                    model(image)
                measured.append(_passes(model, image, round_seconds))
    return [_summarize(each) for each in rounds]


def _passes(model: nn.Module, image: torch.Tensor, round_seconds: float) -> list[float]:
    """Return the seconds of each pass in a round."""
    seconds: list[float] = []
    now = start = time.perf_counter()
    while len(seconds) < MIN_PASSES or now - start < round_seconds:
        before = now
        model(image)
        now = time.perf_counter()
        seconds.append(now - before)
    return seconds


def _summarize(rounds: Sequence[Sequence[float]]) -> Latency:
    seconds = np.concatenate(rounds)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Latency(low, median, high, min(map(statistics.median, rounds)), len(seconds))
