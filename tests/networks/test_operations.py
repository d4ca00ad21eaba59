from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nases_env.networks.operations import (
    OPERATORS,
    AvgPool3x3,
    FactorizedReduction,
    FeatureMap,
    GlobalAvgPool,
    ReluConvBn,
    ReluReduction,
    drop_path,
    he_initialize,
    make_operation,
)


def test_operators_are_in_the_order_of_the_paper() -> None:
    assert OPERATORS == ("identity", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")


@pytest.mark.parametrize("operator", range(len(OPERATORS)))
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 3), (1, 1)])
def test_stride_2_halves_the_size_rounded_up(operator: int, size: tuple[int, int]) -> None:
    images = torch.rand(2, 4, *size)
    assert make_operation(operator, 4, stride=1, expansion=1)(images).shape == images.shape
    halved = (-(-size[0] // 2), -(-size[1] // 2))
    assert make_operation(operator, 4, stride=2, expansion=1)(images).shape == (2, 4, *halved)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operator", range(len(OPERATORS)))
def test_expansion_widens_separable_convolutions_only(operator: int, stride: int) -> None:
    images = torch.rand(2, 4, 6, 6)
    plain, expanded = (make_operation(operator, 4, stride=stride, expansion=expansion) for expansion in (1, 3))
    assert expanded(images).shape == plain(images).shape
    widths = [layer.num_features for layer in expanded.modules() if isinstance(layer, nn.BatchNorm2d)]
    is_convolution = OPERATORS[operator].startswith("sep_conv")
    assert widths == ([12, 4] if is_convolution else [4] if OPERATORS[operator] == "identity" and stride == 2 else [])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 2), (1, 4), (1, 1)])
def test_average_pool_excludes_padding(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, *size, dtype=torch.float64, requires_grad=True)
    pooled = AvgPool3x3(stride=stride)(images)
    expected = F.avg_pool2d(images, 3, stride, padding=1, count_include_pad=False)
    torch.testing.assert_close(pooled, expected)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((pooled * weights).sum(), images)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), images)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("out_channels", [2, 5, 6])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_factorized_reduction_equals_two_strided_convolutions(out_channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reduction = FactorizedReduction(3, out_channels).double()
    images = torch.randn(4, 3, *size, dtype=torch.float64)
    shifted = F.pad(images, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [
        F.conv2d(images, reduction.conv.weight, stride=2),
        F.conv2d(shifted, reduction.shifted_conv.weight, stride=2),
    ]
    assert reduction.conv.out_channels - reduction.shifted_conv.out_channels == out_channels % 2
    expected = F.batch_norm(torch.cat(halves, dim=1), None, None, training=True, eps=1e-3)
    torch.testing.assert_close(reduction(images), expected)


def test_feature_map_in_parts_equals_a_concatenated_one() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(4, channels, 5, 3, dtype=torch.float64, requires_grad=True) for channels in (1, 3, 2)]
    concatenated = torch.cat(parts, dim=1)
    for module in (ReluConvBn(6, 5).double(), ReluReduction(6, 5).double()):
        inputs = [*parts, *module.parameters()]
        results = []
        for value in (FeatureMap(*parts), FeatureMap(concatenated)):
            output = module(value).concatenated()
            gradients = torch.autograd.grad(output.pow(3).sum(), inputs, retain_graph=True)
            results.append([output, *gradients])
        torch.testing.assert_close(results[0], results[1])


def test_relu_of_a_feature_map_is_cached() -> None:
    value = FeatureMap(torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4))
    assert value.relu() is value.relu()
    assert torch.equal(value.relu().concatenated(), F.relu(value.concatenated()))


def test_global_average_pool_is_the_mean_and_keeps_the_memory_format() -> None:
    value = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    pooled = GlobalAvgPool()(value)
    torch.testing.assert_close(pooled, value.mean((2, 3)))
    (gradient,) = torch.autograd.grad((2.0 * pooled).sum(), value)
    torch.testing.assert_close(gradient, torch.full_like(value, 0.1))
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_drop_path_drops_whole_samples_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    value = torch.rand(20_000, 2, 2, 1) + 1.0
    ratio = (drop_path(value, 0.3) / value).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    kept = ratio[:, 0] > 0
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.7))
    assert abs(kept.double().mean().item() - 0.7) < 5 * (0.7 * 0.3 / 20_000) ** 0.5


def test_drop_path_with_probability_0_uses_no_random_numbers() -> None:
    state = torch.get_rng_state()
    value = torch.ones(3, 1, 1, 1)
    assert drop_path(value, 0.0) is value
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("drop_prob", [0.7, 0.0])
def test_drop_path_accepts_a_tensor_or_a_number(drop_prob: float) -> None:
    value = torch.rand(64, 1, 2, 2)
    outputs = []
    for probability in (drop_prob, torch.tensor(drop_prob)):
        torch.manual_seed(0)
        outputs.append(drop_path(value, probability))
    torch.testing.assert_close(*outputs)


def test_he_initialization_has_variance_2_over_fan_in() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 3, bias=False),
        nn.Conv2d(2048, 2048, 3, groups=2048, bias=False),
        nn.Conv2d(128, 128, 1, bias=False),
        nn.Linear(128, 128, bias=False),
    )
    he_initialize(network)
    for module, fan_in in zip(network, (64 * 9, 9, 128, 128), strict=True):
        assert isinstance(module, nn.Conv2d | nn.Linear)
        assert module.weight.var().item() * fan_in / 2 == pytest.approx(1.0, abs=0.06)
        assert module.weight.mean().item() == pytest.approx(0.0, abs=0.01)
