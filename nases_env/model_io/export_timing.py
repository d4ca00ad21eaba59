"""The latency of exports on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nases_env.cpu import torch_threads

NUM_ROUNDS, ROUND_SECONDS, MIN_PASSES = 5, 0.1, 5
NUM_WARM_UP_PASSES = 3  # in each round


def median_seconds(functions: Sequence[Callable[[Tensor], Tensor]], shape: tuple[int, ...]) -> list[float]:
    """Return the median duration of a pass of each function in seconds, with one thread of torch.

    The functions take turns, so that other work on the machine affects all of them. Each turn begins with a warm-up.

    Args:
        functions: functions of images.
        shape: the shape of the images, including the batch size.
    """
    images, seconds = torch.zeros(shape), [list[float]() for _ in functions]
    with torch_threads(1), torch.inference_mode():
        for _ in range(NUM_ROUNDS):
            for function, measured in zip(functions, seconds, strict=True):
                for _ in range(NUM_WARM_UP_PASSES):
                    function(images)
                start, num_passes = time.perf_counter(), 0
                while num_passes < MIN_PASSES or time.perf_counter() - start < ROUND_SECONDS:
                    before = time.perf_counter()
                    function(images)
                    measured.append(time.perf_counter() - before)
                    num_passes += 1
    return [float(np.median(each)) for each in seconds]
