"""How many images a second a child trains on, its data pipeline included, against the usual way to write such a training.

    python -m benchmarks.throughput --configurations cpu --output throughput.json
    python -m benchmarks.throughput --configurations gpu --num-images 12800 --output throughput.json

"plain" is what ports of DARTS and ENAS do: PIL pictures through torchvision's transforms and a DataLoader (with workers and
pinned memory on a GPU), channels first, float32, a module an operation, unfused SGD, and a look at every loss. "ours" is
``train_classifier`` on the same cells, weights and images. Both take turns, an epoch each, so that other work on the machine
slows both alike; ratios are taken within a turn. Only whole epochs after a first one are timed.

Also measured: how far the losses of both differ on the same batches, how long the first step of a child takes, and what
share of the device's peak, as multiplying large matrices shows it, a training step reaches.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.env_overhead import spread
from benchmarks.throughput import first_step
from benchmarks.throughput.children import (
    CONFIGURATIONS,
    Configuration,
    Data,
    compare_losses,
    make_network,
    random_architecture,
    read_images,
)
from benchmarks.throughput.first_step import FirstStepEvaluator
from benchmarks.throughput.plain_network import PlainNetwork
from benchmarks.throughput.plain_training import MAX_GPU_WORKERS, PlainTraining
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.cpu import num_cores, torch_threads
from nases_env.devices import device_name, resolve_device
from nases_env.errors import InputError
from nases_env.networks import EnasMicroNetwork, count_flops
from nases_env.search_spaces import Architecture
from nases_env.training import EpochRecord, ImageSet, TrainingSettings, train_classifier

TRAINING_PASSES = 3  # a step takes the operations of three forward passes
PEAK_SIDE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices that show the peak
PEAK_PRODUCTS = 10


@dataclass(frozen=True)
class Args:
    """What is measured."""

    configurations: Literal["smoke", "cpu", "gpu"] = "cpu"
    """The children's sizes. cpu: N = 1, F = 8 and N = 2, F = 16. gpu: N = 2, F = 20 and N = 5, F = 40."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU where there is one."""
    data: Data = "synthetic"
    """synthetic: random pixels. cifar10: from the folder that NASES_DATA_DIR names."""
    num_architectures: int = 4
    """Random pairs of cells of each size."""
    num_repeats: int = 3
    """Turns of each architecture."""
    num_images: int = 384
    """Images of an epoch."""
    batch_size: int = 128
    """Images per step."""
    image_size: int = 32
    """Side of the images in pixels, a multiple of 4."""
    num_steps: int = 5
    """Steps in which the losses are compared."""
    num_threads: int = 1
    """CPU threads that torch computes with."""
    seed: int = 0
    """Decides cells, weights, images and augmentation."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        for option in ("num_architectures", "num_repeats", "num_steps"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        if self.batch_size < 2:
            raise InputError(f"--batch-size must be at least 2, not {self.batch_size}")
        if self.num_images < self.batch_size:
            raise InputError(f"--num-images must be at least a batch of {self.batch_size}, not {self.num_images}")
        if self.image_size < 4 or self.image_size % 4:
            raise InputError(f"--image-size must be a multiple of 4, not {self.image_size}")


def images_per_second(
    args: Args, network: EnasMicroNetwork, images: ImageSet, device: torch.device
) -> dict[str, list[float]]:
    """Images a second of the plain training and of ours, one figure a turn of each."""
    num_trained = args.num_images - args.num_images % args.batch_size
    settings = TrainingSettings(num_epochs=2, num_cycles=1, batch_size=args.batch_size)
    num_workers = min(MAX_GPU_WORKERS, num_cores()) if device.type == "cuda" else 0
    plain = PlainTraining(PlainNetwork(network), images, settings, device, num_workers=num_workers)
    valid = images.subset(torch.arange(args.batch_size))
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    plain.epoch()
    for repeat in range(args.num_repeats):
        rates["plain"].append(num_trained / plain.epoch())
        ends: list[float] = []

        def note(record: EpochRecord, ends: list[float] = ends) -> None:
            ends.append(time.perf_counter())

        result = train_classifier(network, images, valid, settings, seed=repeat, device=device, flip=True, on_epoch=note)
        if len(ends) != settings.num_epochs:
            raise RuntimeError(f"the training ended as {result.status} after {len(ends)} epochs")
        rates["ours"].append(num_trained / (ends[1] - ends[0]))
    return rates


def measure_child(
    args: Args, configuration: Configuration, architecture: Architecture, images: ImageSet, device: torch.device
) -> dict[str, Any]:
    """All figures of one child."""

    def fresh() -> EnasMicroNetwork:
        return make_network(architecture, configuration, args.image_size, args.seed)

    settings = TrainingSettings(batch_size=args.batch_size)
    losses = compare_losses(fresh(), images, settings, device, num_steps=args.num_steps, seed=args.seed)
    rates = images_per_second(args, fresh(), images, device)
    return {
        "configuration": configuration.name,
        "architecture": architecture.key,
        "flops_per_image": count_flops(fresh(), images.image_shape),
        "images_per_second": rates,
        "ratios": [ours / plain for plain, ours in zip(rates["plain"], rates["ours"], strict=True)],
        "losses": losses,
    }


def measure_peak(device: torch.device) -> float:
    """Floating-point operations a second of a large product of matrices: float32 on a CPU, bfloat16 on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    side = PEAK_SIDE[device.type]
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(PEAK_PRODUCTS):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def summarize(children: list[dict[str, Any]], peak: float) -> dict[str, dict[str, float]]:
    """The spreads over the children of one size: each counts with the median of its turns."""
    rates = {name: [float(np.median(child["images_per_second"][name])) for child in children] for name in ("plain", "ours")}
    ratios = [float(np.median(child["ratios"])) for child in children]
    shares = [
        TRAINING_PASSES * child["flops_per_image"] * rate / peak for child, rate in zip(children, rates["ours"], strict=True)
    ]
    summary = {**{name: spread(values) for name, values in rates.items()}, "ratio": spread(ratios)}
    return {**summary, "share_of_peak": spread(shares)}


def make_table(title: str, children: list[dict[str, Any]]) -> Table:
    """One row a child: medians of its turns, and how far the losses of both sides differ."""
    table = Table(title=title, title_justify="left")
    for heading in ("child", "plain", "ours", "ours / plain", "losses differ", "in float64"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, child in enumerate(children):
        rates, ratios, differences = child["images_per_second"], child["ratios"], child["losses"]["largest_difference"]
        table.add_row(
            str(index),
            *(f"{np.median(rates[name]):,.0f}" for name in ("plain", "ours")),
            f"{np.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            *(f"{differences[precision]:.0e}" for precision in ("float32", "float64")),
        )
    return table


def describe_summary(summary: dict[str, dict[str, float]], latency: dict[str, dict[str, float]], peak: float) -> str:
    ratio, share = summary["ratio"], summary["share_of_peak"]["median"]
    seconds = ", ".join(f"{kind} {figures['median']:.2f}" for kind, figures in latency.items())
    return (
        f"ours / plain: {ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f}); {share:.1%} of the peak of "
        f"{peak / 1e9:,.0f} GFLOP/s\nseconds from submission to the first step's end: {seconds}"
    )


def main(args: Args) -> None:
    """Measure how many images a second a child trains on against the usual way to write such a training."""
    device = resolve_device(args.device)
    if device.type not in PEAK_SIDE:
        raise InputError(f"--device must be cpu, cuda or auto, not {args.device}")
    images = read_images(args.data, args.num_images, args.image_size, args.seed)
    console = Console()
    children: list[dict[str, Any]] = []
    summary, latency = {}, {}
    with torch_threads(args.num_threads), tempfile.TemporaryDirectory(prefix="nases-") as folder:
        peak = measure_peak(device)
        for configuration in CONFIGURATIONS[args.configurations]:
            own = [
                measure_child(args, configuration, random_architecture(args.seed, index), images, device)
                for index in range(args.num_architectures)
            ]
            evaluator = FirstStepEvaluator(configuration, args.batch_size, args.image_size, str(device), args.num_threads)
            seconds = first_step.measure(
                evaluator, Path(folder, configuration.name), num_repeats=args.num_repeats, seed=args.seed
            )
            children += own
            summary[configuration.name] = summarize(own, peak)
            latency[configuration.name] = {kind: spread(values) for kind, values in seconds.items()}
            console.print(make_table(f"{configuration.name}: images a second in training, {device_name(device)}", own))
            console.print(describe_summary(summary[configuration.name], latency[configuration.name], peak))
    if args.output is not None:
        settings = {option: value for option, value in asdict(args).items() if option != "output"}
        record = {
            "benchmark": "child_throughput",
            "settings": settings,
            "torch": torch.__version__,
            "device": device_name(device),
            "num_cores": os.cpu_count(),
            "peak_flops_per_second": peak,
            "summary": summary,
            "seconds_to_first_step": latency,
            "children": children,
        }
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
