"""Training throughput of a child, including its data pipeline, compared with a conventional PyTorch implementation.

    python -m benchmarks.throughput --configurations cpu --output throughput.json
    python -m benchmarks.throughput --configurations gpu --num-images 12800 --output throughput.json

"plain" is the style of common ports of DARTS and ENAS: PIL images, torchvision's transforms and a DataLoader (with workers
and pinned memory on a GPU), channels first, float32, one module per operation, unfused SGD, ``loss.item()`` in every step.
"ours" is ``train_classifier`` on the same cells, weights and images. Both train one epoch in turn, so that other load on the
machine slows both equally; ratios are computed within a turn. The first epoch of each is a warm-up and is not timed.

The benchmark also measures the difference between the losses of both on the same batches, the latency of the first training
step of a child, and the share of the peak performance of the device, as reached by products of large matrices.
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

from benchmarks.env_overhead import median_and_range
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
from benchmarks.throughput.peak import PEAK_SIDE, measure_peak
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

TRAINING_PASSES = 3  # a training step needs about as many operations as three forward passes


@dataclass(frozen=True)
class Args:
    """Options of the benchmark."""

    configurations: Literal["smoke", "cpu", "gpu"] = "cpu"
    """Sizes of the children. cpu: N = 1, F = 8 and N = 2, F = 16. gpu: N = 2, F = 20 and N = 5, F = 40."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU if there is one."""
    data: Data = "synthetic"
    """synthetic: random pixels. cifar10: read from the directory in NASES_DATA_DIR."""
    num_architectures: int = 4
    """Number of random architectures of each size."""
    num_repeats: int = 3
    """Number of turns of each architecture."""
    num_images: int = 384
    """Images per epoch."""
    batch_size: int = 128
    """Images per step."""
    image_size: int = 32
    """Height and width of the images in pixels, a multiple of 4."""
    num_steps: int = 5
    """Number of training steps in which the losses are compared."""
    num_threads: int = 1
    """Number of CPU threads of torch."""
    seed: int = 0
    """Seed of architectures, weights, images and augmentation."""
    output: Path | None = None
    """JSON file for the measurements."""

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
    """Measure the images per second of both implementations; return one value per turn for each."""
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
    """Return all measurements of one child."""

    def make_child() -> EnasMicroNetwork:
        return make_network(architecture, configuration, args.image_size, args.seed)

    settings = TrainingSettings(batch_size=args.batch_size)
    losses = compare_losses(make_child(), images, settings, device, num_steps=args.num_steps, seed=args.seed)
    rates = images_per_second(args, make_child(), images, device)
    return {
        "configuration": configuration.name,
        "architecture": architecture.key,
        "flops_per_image": count_flops(make_child(), images.image_shape),
        "images_per_second": rates,
        "ratios": [ours / plain for plain, ours in zip(rates["plain"], rates["ours"], strict=True)],
        "losses": losses,
    }


def summarize(children: list[dict[str, Any]], peak: float) -> dict[str, dict[str, float]]:
    """Return median and range over the children of one size; each child is represented by the median of its turns."""
    rates = {name: [float(np.median(child["images_per_second"][name])) for child in children] for name in ("plain", "ours")}
    ratios = [float(np.median(child["ratios"])) for child in children]
    shares = [
        TRAINING_PASSES * child["flops_per_image"] * rate / peak for child, rate in zip(children, rates["ours"], strict=True)
    ]
    summary = {**{name: median_and_range(values) for name, values in rates.items()}, "ratio": median_and_range(ratios)}
    return {**summary, "share_of_peak": median_and_range(shares)}


def make_table(title: str, children: list[dict[str, Any]]) -> Table:
    """Return a table with one row per child: medians of its turns, and the largest difference between the losses."""
    table = Table(title=title, title_justify="left")
    for heading in ("child", "plain", "ours", "ours / plain", "loss difference", "in float64"):
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
    seconds = ", ".join(f"{kind} {values['median']:.2f}" for kind, values in latency.items())
    return (
        f"ours / plain: {ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f}); {share:.1%} of the peak of "
        f"{peak / 1e9:,.0f} GFLOP/s\nseconds from submission to the end of the first step: {seconds}"
    )


def main(args: Args) -> None:
    """Compare the training throughput of a child with a conventional implementation."""
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
            latency[configuration.name] = {kind: median_and_range(values) for kind, values in seconds.items()}
            console.print(make_table(f"{configuration.name}: training images per second, {device_name(device)}", own))
            console.print(describe_summary(summary[configuration.name], latency[configuration.name], peak))
    if args.output is not None:
        settings = {option: value for option, value in asdict(args).items() if option != "output"}
        record = {
            "benchmark": "throughput",
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
