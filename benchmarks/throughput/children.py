"""Children and images that both implementations train on, and the comparison of their losses."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.throughput.plain_network import PlainNetwork
from nases_env.errors import InputError
from nases_env.networks import EnasMicroNetwork, NetworkSettings
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator, seeded_torch, torch_generator
from nases_env.training import ImageSet, TrainingSettings, channel_statistics, load_images
from nases_env.training.augmentation import augment, draw_augmentation

NUM_CLASSES = 10
MAX_COMPARED = 32  # batch size of the loss comparison; float64 is slow and needs more memory
SPACE = get_search_space("enas_micro")

Data = Literal["synthetic", "cifar10"]


@dataclass(frozen=True)
class Configuration:
    """Size of the children: N and F."""

    cells_per_stage: int
    num_filters: int

    @property
    def name(self) -> str:
        return f"N={self.cells_per_stage} F={self.num_filters}"


CONFIGURATIONS = {
    "smoke": (Configuration(1, 2),),
    "cpu": (Configuration(1, 8), Configuration(2, 16)),
    "gpu": (Configuration(2, 20), Configuration(5, 40)),
}


def read_images(data: Data, num_images: int, image_size: int, seed: int) -> ImageSet:
    """Return ``num_images`` RGB images of ``image_size`` x ``image_size`` pixels.

    Raises:
        InputError: if ``data`` is "cifar10" and the data set is missing or has fewer images.
    """
    if data == "synthetic":
        generator = torch_generator(seed, "synthetic images")
        images = torch.randint(256, (num_images, 3, image_size, image_size), dtype=torch.uint8, generator=generator)
        labels = torch.randint(NUM_CLASSES, (num_images,), generator=generator)
        return ImageSet(images, labels, tuple(map(str, range(NUM_CLASSES))))
    all_images = load_images("cifar10", train=True, image_size=image_size, download=False)
    if num_images > len(all_images):
        raise InputError(f"--num-images must be at most {len(all_images)} with CIFAR-10, not {num_images}")
    chosen = torch.randperm(len(all_images), generator=torch_generator(seed, "chosen images"))[:num_images]
    return all_images.subset(chosen)


def random_architecture(seed: int, index: int) -> Architecture:
    """Return an architecture with uniformly random decisions."""
    return SPACE.sample(numpy_generator(seed, "cells", str(index)))


def make_network(architecture: Architecture, configuration: Configuration, image_size: int, seed: int) -> EnasMicroNetwork:
    """Return the child network with random weights that are determined by ``seed``."""
    settings = NetworkSettings(configuration.cells_per_stage, configuration.num_filters)
    with seeded_torch(seed, "weights"):
        network = SPACE.build(architecture, settings, num_classes=NUM_CLASSES, image_shape=(3, image_size, image_size))
    return cast(EnasMicroNetwork, network)


def compare_losses(
    network: EnasMicroNetwork,
    images: ImageSet,
    settings: TrainingSettings,
    device: torch.device,
    *,
    num_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Train both networks on the same augmented batches, in float32 and in float64, and compare their losses.

    Rounding errors grow from step to step. The difference between float32 and float64 of the plain network shows how large a
    difference between the networks is explained by rounding alone.

    Args:
        network: the child network; it is not changed.
        images: training images.
        settings: batch size and settings of SGD.
        device: device of the training.
        num_steps: number of training steps.
        seed: seed of the batches and their augmentation.

    Returns:
        ``float32`` and ``float64``: the losses of each step, by network. ``largest_difference``: the maximum between the
        networks, by precision. ``largest_rounding``: the maximum between the precisions, by network.
    """
    num_images = min(MAX_COMPARED, settings.batch_size)
    padding = images.image_shape[1] // 8
    generator = torch_generator(seed, "curves")
    batches = []
    for _ in range(num_steps):
        chosen = images.subset(torch.randint(len(images), (num_images,), generator=generator))
        draws = draw_augmentation(len(chosen), images.image_shape[1:], crop_padding=padding, flip=True, generator=generator)
        inputs = augment(chosen.images, draws, channel_statistics(images.images), crop_padding=padding, cutout_length=0)
        batches.append((inputs.to(device), chosen.labels.to(device)))
    curves: dict[str, dict[str, list[float]]] = {}
    for precision, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        plain = PlainNetwork(network).to(device, dtype)
        ours = copy.deepcopy(network).to(device, dtype).to(memory_format=torch.channels_last)
        curves[precision] = {
            "plain": _losses(plain, batches, settings, torch.contiguous_format, fused=False),
            "ours": _losses(ours, batches, settings, torch.channels_last, fused=True),
        }
    single, double = curves["float32"], curves["float64"]
    return {
        **curves,
        "largest_difference": {precision: _largest(*curve.values()) for precision, curve in curves.items()},
        "largest_rounding": {name: _largest(single[name], double[name]) for name in single},
    }


def _largest(losses: list[float], others: list[float]) -> float:
    return max(abs(loss - other) for loss, other in zip(losses, others, strict=True))


def _losses(
    network: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    settings: TrainingSettings,
    memory_format: torch.memory_format,
    *,
    fused: bool,
) -> list[float]:
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(
        parameters,
        settings.lr_max,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=fused or None,
    )
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        inputs = images.to(parameters[0].dtype).contiguous(memory_format=memory_format)
        loss = F.cross_entropy(network(inputs), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses
