from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nases_env.errors import InputError
from nases_env.networks import NasBench201Network, NetworkSettings, count_flops, count_parameters
from nases_env.networks.nasbench201 import OPERATORS, NasBench201Cell, ResidualBlock, count_nasbench201_parameters

CONVOLUTIONS = ("nor_conv_3x3",) * 6
NOTHING = ("none",) * 6


def build(
    cell: tuple[str, ...] = CONVOLUTIONS,
    settings: NetworkSettings = NetworkSettings(1, 4),  # noqa: B008 - frozen
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 8, 8),
) -> NasBench201Network:
    torch.manual_seed(0)
    return NasBench201Network(cell, settings, num_classes=num_classes, image_shape=image_shape)


def random_cell(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(rng.choice(OPERATORS, 6).tolist())


@pytest.mark.parametrize(
    ("cell", "num_classes", "side", "num_parameters", "mega_flops"),
    [
        (NOTHING, 10, 32, 73_306, 7.78305),
        (CONVOLUTIONS, 10, 32, 1_531_546, 220.11969),
        (NOTHING, 100, 32, 79_156, 7.7889),
        (CONVOLUTIONS, 100, 32, 1_537_396, 220.12554),
        (NOTHING, 120, 16, 80_456, 1.9534),
        (CONVOLUTIONS, 120, 16, 1_538_696, 55.03756),
    ],
)
def test_smallest_and_largest_networks_match_the_published_sizes(
    cell: tuple[str, ...], num_classes: int, side: int, num_parameters: int, mega_flops: float
) -> None:
    """The published sizes are for CIFAR-10, CIFAR-100 and ImageNet16-120, with N = 5 and F = 16.

    NAS-Bench-201 counts a multiply-add as one operation, and the addition of the bias in the classifier as one per class.
    """
    with torch.device("meta"):
        network = NasBench201Network(cell, NetworkSettings(5, 16), num_classes=num_classes, image_shape=(3, side, side))
    assert count_parameters(network) == num_parameters
    assert count_flops(network, (3, side, side)) / 2 + num_classes == pytest.approx(1e6 * mega_flops, abs=1)


@pytest.mark.parametrize("seed", range(8))
def test_parameters_match_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = random_cell(rng)
    cells, filters, classes, image_channels = (int(rng.integers(1, high)) for high in (4, 9, 12, 4))
    expected = 9 * image_channels * filters + 2 * filters
    for stage in range(3):
        width = filters * 2**stage
        weights = {"nor_conv_1x1": width**2 + 2 * width, "nor_conv_3x3": 9 * width**2 + 2 * width}
        expected += cells * sum(weights.get(name, 0) for name in cell)
        if stage:
            half = width // 2
            expected += 9 * half * width + 9 * width**2 + 4 * width + half * width
    expected += 2 * 4 * filters + (4 * filters + 1) * classes
    network = build(cell, NetworkSettings(cells, filters), classes, (image_channels, 8, 8))
    assert count_parameters(network) == expected
    counted = count_nasbench201_parameters(
        cell, NetworkSettings(cells, filters), num_classes=classes, image_shape=(image_channels, 8, 8)
    )
    assert counted == expected


def batch_norm(norm: nn.Module, value: Tensor) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
    return F.batch_norm(value, None, None, norm.weight, norm.bias, training=True, eps=1e-5)


def convolution(layers: nn.Module, value: Tensor, stride: int = 1) -> Tensor:
    assert isinstance(layers, nn.Sequential)
    _, conv, norm = layers
    assert isinstance(conv, nn.Conv2d)
    return batch_norm(norm, F.conv2d(F.relu(value), conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2))


def reference_edge(name: str, module: nn.Module, value: Tensor) -> Tensor:
    """Apply an operator as NAS-Bench-201 defines it."""
    if name == "none":
        return 0 * value
    if name == "skip_connect":
        return value
    if name == "avg_pool_3x3":
        return F.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False)
    return convolution(module, value)


def reference_network(network: NasBench201Network, cell: tuple[str, ...], images: Tensor) -> Tensor:
    """Compute the logits without optimizations, with the weights of ``network``."""
    value = network.stem(images)
    for block in network.cells:
        if isinstance(block, NasBench201Cell):
            apply = [partial(reference_edge, name, module) for name, module in zip(cell, block.operations, strict=True)]
            one = apply[0](value)
            two = apply[1](value) + apply[2](one)
            value = apply[3](value) + apply[4](one) + apply[5](two)
        else:
            assert isinstance(block, ResidualBlock)
            height, width = value.shape[2:]
            padded = F.pad(value, (0, width % 2, 0, height % 2), mode="replicate")
            shortcut = F.conv2d(F.avg_pool2d(padded, 2), block.shortcut[1].weight)  # type: ignore[arg-type]
            value = convolution(block.body[1], convolution(block.body[0], value, stride=2)) + shortcut
    norm, *_, classifier = network.classifier
    logits: Tensor = classifier(F.relu(batch_norm(norm, value)).mean((2, 3)))
    return logits


@pytest.mark.parametrize("seed", range(8))
def test_outputs_and_gradients_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = NOTHING if seed == 7 else random_cell(rng)
    size = (9, 7) if seed % 2 else (8, 8)
    network = build(cell, NetworkSettings(1 + seed % 2, 3), image_shape=(3, *size)).double()
    # Random scales and biases, so that batch norm is not the identity and a node of zeros has an effect.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    images = torch.randn(4, 3, *size, dtype=torch.float64)
    logits, expected = network(images), reference_network(network, cell, images)
    torch.testing.assert_close(logits, expected)
    weights = torch.randn_like(expected)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad((logits * weights).sum(), parameters, materialize_grads=True)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), parameters, materialize_grads=True)
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 7, 9), (3, 2, 2), (5, 1, 1), (1, 1, 3)])
@pytest.mark.parametrize("num_filters", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_image_size_can_be_trained(
    image_shape: tuple[int, int, int], num_filters: int, memory_format: torch.memory_format
) -> None:
    cell = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    network = build(cell, NetworkSettings(1, num_filters), 2, image_shape).to(memory_format=memory_format)
    images = torch.randn(4, *image_shape).contiguous(memory_format=memory_format)
    logits = network(images)
    assert logits.shape == (4, 2)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_pointwise_convolutions_have_stride_1() -> None:
    convolutions = [module for module in build().modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 6 + 2 * 3
    assert all(conv.stride == (1, 1) for conv in convolutions if conv.kernel_size == (1, 1))


def test_cell_without_edges_outputs_zero_and_the_classifier_is_trained() -> None:
    value = torch.randn(2, 4, 5, 5)
    assert torch.equal(NasBench201Cell(NOTHING, 4)(value), torch.zeros_like(value))
    network = build(NOTHING)
    logits = network(torch.randn(4, 3, 8, 8))
    assert torch.equal(logits, logits[:1].expand_as(logits))
    logits.sum().backward()
    linear = network.classifier[-1]
    assert isinstance(linear, nn.Linear)
    assert linear.bias.grad is not None
    assert linear.bias.grad.abs().sum() > 0


def test_cell_with_a_single_skip_connection_is_the_identity() -> None:
    value = torch.randn(2, 4, 5, 5)
    assert torch.equal(NasBench201Cell(("none", "none", "none", "skip_connect", "none", "none"), 4)(value), value)


def test_he_initialization_draws_from_the_global_generator() -> None:
    network = build(settings=NetworkSettings(1, 32))
    conv = network.cells[0].operations[0][1]  # type: ignore[index]
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.var().item() * 9 * 32 / 2 == pytest.approx(1, abs=0.05)
    linear = network.classifier[-1]
    assert isinstance(linear, nn.Linear)
    assert not linear.bias.any()
    again = build(settings=NetworkSettings(1, 32)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": CONVOLUTIONS[:5]}, "has 6 operators, one for each edge, not 5"),
        ({"cell": (*CONVOLUTIONS[:5], "nor_conv_3x4")}, r"unknown operator 'nor_conv_3x4' \(did you mean 'nor_conv_3x3'"),
        ({"settings": NetworkSettings(drop_path_prob=0.1)}, "has no drop-path; leave drop_path_prob at 0"),
        ({"settings": NetworkSettings(auxiliary_head=True)}, "has no auxiliary head; leave auxiliary_head off"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"image_shape": (3, 0, 8)}, "image_shape is"),
    ],
)
def test_unsupported_options_are_one_line_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(**options)
    assert "\n" not in str(caught.value)
