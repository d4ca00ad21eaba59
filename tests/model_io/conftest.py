"""A small trained network with every operator and an auxiliary head."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nases_env.model_io import TrainedModel
from nases_env.model_io.export import VerifiedExport, verified_export
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import get_search_space
from nases_env.seeding import torch_generator
from nases_env.training import ImageSet, TrainingSettings, channel_statistics, train_classifier
from nases_env.training.image_io import read_image

CIFAR10 = Path(os.environ.get("NASES_DATA_DIR", "absent"), "cifar10").absolute()  # read before a fixture unsets it
CLASSES = tuple(f"class {label}" for label in range(10))

# Every operator, on inputs of the cell and on nodes; the nodes are not in canonical order.
CELL = [
    [["max_pool_3x3", 1], ["avg_pool_3x3", 0]],
    [["identity", 0], ["sep_conv_3x3", 1]],
    [["identity", 2], ["sep_conv_5x5", 3]],
    [["avg_pool_3x3", 3], ["max_pool_3x3", 4]],
    [["identity", 5], ["identity", 2]],
]
# Every operator on inputs, where its stride is 2; on nodes, it is that of a normal cell.
REDUCTION = [
    [["max_pool_3x3", 1], ["avg_pool_3x3", 0]],
    [["identity", 0], ["sep_conv_3x3", 1]],
    [["sep_conv_5x5", 0], ["identity", 3]],
    [["identity", 3], ["identity", 4]],
    [["identity", 5], ["identity", 2]],
]
GENOTYPE = {"normal": CELL, "reduction": REDUCTION}
SIZES = {"stem_stride": 2, "width": 0.5, "growth": [3, 1], "depth": [1, 1, 1], "expansion": 2}
SIZED = {**SIZES, **GENOTYPE}
NASBENCH201 = {"cell": "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"}


def cifar10(half: str, per_class: int) -> ImageSet:
    """Return the first images of each class of CIFAR-10, or random images if the data set is missing."""
    labels = torch.arange(10).repeat_interleave(per_class)
    if CIFAR10.is_dir():
        folders = sorted((CIFAR10 / half).iterdir())
        images = torch.stack([read_image(file, None) for folder in folders for file in sorted(folder.iterdir())[:per_class]])
    else:
        images = torch.randint(256, (len(labels), 3, 32, 32), dtype=torch.uint8, generator=torch_generator(0, half))
    return ImageSet(images, labels, CLASSES)


@pytest.fixture(scope="session")
def model() -> TrainedModel:
    """A trained model, shared by all tests; do not modify it."""
    space = get_search_space("enas_micro")
    train = cifar10("train", 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TrainedModel(
            space,
            space.from_genotype(GENOTYPE),
            NetworkSettings(cells_per_stage=1, num_filters=3, auxiliary_head=True),
            class_names=CLASSES,
            image_shape=train.image_shape,
            statistics=channel_statistics(train.images),
            description={"seed": 0, "test_accuracy": 0.25},
        )
    settings = TrainingSettings(num_epochs=2, num_cycles=1, batch_size=20)
    train_classifier(model.network, train, train, settings, seed=0, device=torch.device("cpu"), flip=True)
    return model.eval()


@pytest.fixture(scope="session")
def onnx_export(model: TrainedModel) -> VerifiedExport:
    """The ONNX export of ``model``, shared because it takes seconds."""
    return verified_export(model, "onnx", None)


@pytest.fixture(scope="session")
def fixed_export() -> VerifiedExport:
    """The ONNX export of a network with a stem of stride 2 and an expansion, for batches of four images of odd sizes."""
    return verified_export(tiny_model("enas_micro_sized", genotype=SIZED), "onnx", 4)


@pytest.fixture
def images() -> torch.Tensor:
    """Five random images of the model's shape, with values in [0, 1]."""
    return torch.rand((5, 3, 32, 32), generator=torch_generator(0, "images"))


def tiny_model(
    space_name: str = "nasbench201", image_shape: tuple[int, int, int] = (1, 7, 9), genotype: object = NASBENCH201
) -> TrainedModel:
    """Return a small untrained model."""
    space = get_search_space(space_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TrainedModel(
            space,
            space.from_genotype(genotype),
            NetworkSettings(cells_per_stage=1, num_filters=2),
            class_names=("cat", "dog", "eel"),
            image_shape=image_shape,
            statistics=channel_statistics(torch.arange(256, dtype=torch.uint8).repeat(1, image_shape[0], 1, 1)),
        ).eval()
