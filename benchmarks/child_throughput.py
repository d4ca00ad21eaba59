"""How many training images per second a child network sees, against the same network written plainly.

    python benchmarks/child_throughput.py --output throughput.json

Both networks have the same cells and the same weights. "fast" is the library's network in channels-last order. "plain" is in
channels-first order, applies a ReLU for every convolution that reads a value, and leaves average pooling to torch. The two
take turns, step by step, so that other work on the machine slows both alike.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.commands import run_command
from nases_env.files import write_atomically
from nases_env.networks import OPERATORS, Cell, EnasMicroNetwork, NetworkSettings
from nases_env.networks.operations import AvgPool3x3, SeparableConv
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

NUM_NODES = 5
NUM_CLASSES = 10


@dataclass(frozen=True)
class Args:
    """What is measured."""

    num_architectures: int = 5
    """Random pairs of cells."""
    num_steps: int = 5
    """Timed training steps per network, after one that is not timed."""
    cells_per_stage: int = 1
    """N."""
    num_filters: int = 8
    """F."""
    batch_size: int = 128
    """Images per step."""
    image_size: int = 32
    """Side of the images in pixels."""
    num_threads: int = 1
    """Threads that torch uses."""
    device: str = "cpu"
    """Where the networks train."""
    seed: int = 0
    """Decides cells, weights and images."""
    output: Path | None = None
    """Write the result to this JSON file."""


def random_cell(rng: np.random.Generator) -> Cell:
    """A cell whose every choice is uniform."""
    nodes = []
    for index in range(NUM_NODES):
        a, b = rng.integers(index + 2, size=2).tolist()
        operator_a, operator_b = rng.integers(len(OPERATORS), size=2).tolist()
        nodes.append((a, operator_a, b, operator_b))
    return tuple(nodes)


def plain_copy(network: EnasMicroNetwork) -> nn.Module:
    """A copy with the same weights whose operations are written plainly."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, operation in module.named_children():
            if isinstance(operation, SeparableConv):
                setattr(module, name, nn.Sequential(nn.ReLU(), *operation.layers))
            elif isinstance(operation, AvgPool3x3):
                setattr(module, name, nn.AvgPool2d(3, operation.stride, padding=1, count_include_pad=False))
    return plain


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """The seconds that one step of SGD takes."""
    start = time.perf_counter()
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(network(images), labels))
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(args: Args, index: int) -> dict[str, float]:
    """The images per second of both variants of one random architecture: medians over the steps."""
    rng = numpy_generator(args.seed, "cells", str(index))
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(args.seed, "weights", str(index)))
        network = EnasMicroNetwork(
            random_cell(rng),
            random_cell(rng),
            NetworkSettings(args.cells_per_stage, args.num_filters),
            num_classes=NUM_CLASSES,
            image_shape=(3, args.image_size, args.image_size),
        ).to(args.device)
    generator = torch_generator(args.seed, "images", str(index))
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, generator=generator).to(args.device)
    labels = torch.randint(NUM_CLASSES, (args.batch_size,), generator=generator).to(args.device)
    variants = {
        "plain": (plain_copy(network), images),
        "fast": (network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)),
    }
    optimizers = {
        name: torch.optim.SGD(variant.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        for name, (variant, _) in variants.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for step in range(args.num_steps + 1):
        for name, (variant, batch) in variants.items():
            elapsed = train_step(variant, optimizers[name], batch, labels)
            if step > 0:
                seconds[name].append(elapsed)
    return {name: args.batch_size / statistics.median(times) for name, times in seconds.items()}


def main(args: Args) -> None:
    """Measure training images per second against the same network written plainly."""
    torch.set_num_threads(args.num_threads)
    rows = []
    print(f"{'architecture':>12} {'plain img/s':>12} {'fast img/s':>12} {'ratio':>6}")
    for index in range(args.num_architectures):
        row = measure(args, index)
        row["ratio"] = row["fast"] / row["plain"]
        rows.append(row)
        print(f"{index:>12} {row['plain']:>12.0f} {row['fast']:>12.0f} {row['ratio']:>6.2f}", flush=True)
    summary = {}
    for name in ("plain", "fast", "ratio"):
        values = [row[name] for row in rows]
        summary[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        print(f"{name}: median {summary[name]['median']:.2f} (least {min(values):.2f}, most {max(values):.2f})")
    if args.output is not None:
        settings = {name: value for name, value in asdict(args).items() if name != "output"}
        record = {"settings": settings, "torch": torch.__version__, "architectures": rows, "summary": summary}
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
