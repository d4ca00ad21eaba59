"""The peak performance of a device."""

from __future__ import annotations

import time

import torch

PEAK_SIDE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices that are multiplied
PEAK_PRODUCTS = 10


def measure_peak(device: torch.device) -> float:
    """Return floating-point operations per second of large matrix products: float32 on a CPU, bfloat16 on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    side = PEAK_SIDE[device.type]
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(PEAK_PRODUCTS):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)
