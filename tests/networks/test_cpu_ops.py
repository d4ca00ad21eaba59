from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nases_env.networks import cpu_ops
from nases_env.networks.cpu_ops import batch_norm, depthwise_5x5, memory_format_of, stride2_subsample

FORMATS = [torch.contiguous_format, torch.channels_last]


def make_value(*shape: int, memory_format: torch.memory_format) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 5), (1, 2), (1, 1)])
def test_stride2_subsample_equals_two_slices(size: tuple[int, int], memory_format: torch.memory_format) -> None:
    value = make_value(2, 3, *size, memory_format=memory_format)
    got = stride2_subsample(value)
    expected = value[:, :, ::2, ::2], F.pad(value, (0, 1, 0, 1))[:, :, 1::2, 1::2]
    torch.testing.assert_close(got, expected)
    weights = [torch.randn_like(pixels) for pixels in expected]
    (gradient,) = torch.autograd.grad(got, value, weights)
    (expected_gradient,) = torch.autograd.grad(expected, value, weights)
    assert torch.equal(gradient, expected_gradient)
    assert memory_format_of(gradient) == memory_format_of(value)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 11), (7, 9), (1, 1)])
def test_depthwise_5x5_equals_torch(size: tuple[int, int], channels: int, memory_format: torch.memory_format) -> None:
    value = make_value(2, channels, *size, memory_format=memory_format)
    weight = torch.randn(channels, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    got, expected = depthwise_5x5(value, weight), F.conv2d(value, weight, padding=2, groups=channels)
    assert torch.equal(got, expected)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad((got * weights).sum(), (value, weight))
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weights).sum(), (value, weight)))
    assert memory_format_of(gradients[0]) == memory_format_of(value)


@pytest.mark.parametrize("channels", [1, 2])
def test_gradients_of_depthwise_5x5_match_finite_differences(channels: int) -> None:
    value = make_value(1, channels, 8, 9, memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise_5x5, (value, weight))


def test_depthwise_5x5_computes_only_the_required_gradients() -> None:
    value = make_value(1, 2, 8, 8, memory_format=torch.channels_last)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    for inputs in ((value, weight.detach()), (value.detach(), weight)):
        torch.autograd.backward(depthwise_5x5(*inputs).sum())
    assert value.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[:, 0, 2, 2], value.detach().sum((0, 2, 3)))


def torch_and_own_batch_norm(value: Tensor, momentum: float = 0.3) -> list[list[Tensor]]:
    """Return output, gradients and running statistics of torch's batch norm and of ours."""
    channels = value.shape[1]
    weight, bias = (torch.randn(channels, dtype=value.dtype, requires_grad=True) for _ in range(2))
    weights = torch.randn_like(value)
    results = []
    for ours in (False, True):
        mean, var = torch.zeros(channels, dtype=value.dtype), torch.ones(channels, dtype=value.dtype)
        if ours:
            output = batch_norm(value, weight, bias, mean, var, momentum=momentum, eps=1e-3)
        else:
            output = F.batch_norm(value, mean, var, weight, bias, training=True, momentum=momentum, eps=1e-3)
        gradients = torch.autograd.grad((output * weights).sum(), (value, weight, bias))
        results.append([output, *gradients, mean, var])
    return results


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (3, 1, 8, 8), (2, 2, 1, 5), (1, 4, 2, 1)])
def test_batch_norm_equals_torch(
    shape: tuple[int, ...], memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_ops, "MIN_PIXELS", 2)
    value = make_value(*shape, memory_format=memory_format)
    expected, got = torch_and_own_batch_norm(value)
    torch.testing.assert_close(got, expected)
    assert [memory_format_of(tensor) for tensor in got[:2]] == [memory_format_of(value)] * 2


def test_gradients_of_batch_norm_match_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_ops, "MIN_PIXELS", 2)
    value = make_value(2, 2, 3, 4, memory_format=torch.channels_last)
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def normed(value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm(value, weight, bias, value.new_zeros(2), value.new_ones(2), momentum=0.1, eps=1e-3)

    assert torch.autograd.gradcheck(normed, (value, weight, bias))


def test_batch_norm_is_more_accurate_than_torch_on_many_pixels() -> None:
    torch.manual_seed(0)
    value = (1.0 + 2.0 * torch.randn(64, 4, 32, 32)).to(memory_format=torch.channels_last)
    mean = value.double().mean((0, 2, 3))
    torchs, ours = (
        (tensors[-2] - mean).abs().max() for tensors in torch_and_own_batch_norm(value.requires_grad_(), momentum=1.0)
    )
    assert 5 * ours < torchs
