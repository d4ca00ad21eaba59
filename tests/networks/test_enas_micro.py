from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nases_env.errors import InputError
from nases_env.networks import Cell, EnasMicroNetwork, NetworkSettings, cpu_ops
from nases_env.networks.cpu_ops import use_cpu_ops
from nases_env.networks.enas_micro import MicroCell, loose_ends
from nases_env.networks.operations import FactorizedReduction, FeatureMap, ReluConvBn, SeparableConv
from tests.networks.cells import ENAS_NORMAL, ENAS_REDUCTION, random_cell


def build(
    normal: Cell = ENAS_NORMAL,
    reduction: Cell = ENAS_REDUCTION,
    settings: NetworkSettings = NetworkSettings(1, 4),  # noqa: B008 - frozen
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 8, 8),
) -> EnasMicroNetwork:
    torch.manual_seed(0)
    return EnasMicroNetwork(normal, reduction, settings, num_classes=num_classes, image_shape=image_shape)


@pytest.mark.parametrize(("num_classes", "memory_format"), [(2, torch.contiguous_format), (10, torch.channels_last)])
@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 8, 8), (3, 7, 9), (1, 4, 4), (3, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("num_filters", [1, 3, 4])
def test_any_image_size_can_be_trained(
    num_classes: int, image_shape: tuple[int, int, int], num_filters: int, memory_format: torch.memory_format
) -> None:
    network = build(
        settings=NetworkSettings(1, num_filters, 0.4, True), num_classes=num_classes, image_shape=image_shape
    ).to(memory_format=memory_format)
    network.set_drop_path_progress(1.0)
    images = torch.randn(4, *image_shape).contiguous(memory_format=memory_format)
    logits, auxiliary_logits = network.forward_with_auxiliary(images)
    assert auxiliary_logits is not None
    assert logits.shape == auxiliary_logits.shape == (4, num_classes)
    torch.autograd.backward(logits.square().sum() + auxiliary_logits.square().sum())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def weight_of(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight


def reference_reduction(module: FactorizedReduction, value: Tensor) -> Tensor:
    shifted = F.pad(value, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [F.conv2d(value, module.conv.weight, stride=2), F.conv2d(shifted, module.shifted_conv.weight, stride=2)]
    output: Tensor = module.norm(torch.cat(halves, 1))
    return output


def reference_edge(operator: int, stride: int, module: nn.Module, value: Tensor) -> Tensor:
    """Apply an operator as ENAS defines it, with a separate ReLU for each convolution."""
    if operator == 0:
        return reference_reduction(module, value) if isinstance(module, FactorizedReduction) else value
    if operator == 3:
        return F.avg_pool2d(value, 3, stride, padding=1, count_include_pad=False)
    if operator == 4:
        return F.max_pool2d(value, 3, stride, padding=1)
    assert isinstance(module, SeparableConv)
    depthwise1, pointwise1, norm1, _, depthwise2, pointwise2, norm2 = module.layers
    pad, channels = (1 if operator == 1 else 2), value.shape[1]
    value = F.conv2d(F.relu(value), weight_of(depthwise1), stride=stride, padding=pad, groups=channels)
    value = norm1(F.conv2d(value, weight_of(pointwise1)))
    value = F.conv2d(F.relu(value), weight_of(depthwise2), padding=pad, groups=channels)
    output: Tensor = norm2(F.conv2d(value, weight_of(pointwise2)))
    return output


def reference_preprocess(module: nn.Module, value: Tensor) -> Tensor:
    """Preprocess an input of a cell: identity, ReLU-convolution, ReLU-factorized reduction, or a sequence of these."""
    if isinstance(module, nn.Identity):
        return value
    if isinstance(module, FactorizedReduction):
        return reference_reduction(module, value)
    if isinstance(module, nn.ReLU):
        return F.relu(value)
    if isinstance(module, ReluConvBn):
        output: Tensor = module[2](F.conv2d(F.relu(value), weight_of(module[1])))
        return output
    for part in module.children():
        value = reference_preprocess(part, value)
    return value


def reference_network(network: EnasMicroNetwork, normal: Cell, reduction: Cell, images: Tensor) -> Tensor:
    """Compute the logits without optimizations, with the weights of ``network``."""
    prev_prev = prev = network.stem(images)
    stages = (len(network.cells) - 2) // 3
    for index, module in enumerate(network.cells):
        assert isinstance(module, MicroCell)
        stride = 2 if index in (stages, 2 * stages + 1) else 1
        cell = reduction if stride == 2 else normal
        values = [reference_preprocess(module.preprocess0, prev_prev), reference_preprocess(module.preprocess1, prev)]
        for node, (a, operator_a, b, operator_b) in enumerate(cell):
            values.append(
                reference_edge(operator_a, stride if a < 2 else 1, module.operations[2 * node], values[a])
                + reference_edge(operator_b, stride if b < 2 else 1, module.operations[2 * node + 1], values[b])
            )
        read = {source for node_ in cell for source in (node_[0], node_[2])}
        loose = [value for value in range(len(values)) if value not in read]
        ends = []
        for value, fit in zip(loose, module.reduce_loose_ends, strict=True):
            ends.append(reference_reduction(fit, values[value]) if isinstance(fit, FactorizedReduction) else values[value])
            assert isinstance(fit, FactorizedReduction) == (stride == 2 and value < 2)
        prev_prev, prev = prev, torch.cat(ends, 1)
    logits: Tensor = F.relu(prev).mean((2, 3)) @ weight_of(network.classifier[-1]).T
    return logits


IMAGE_SHAPES = [(3, 8, 8), (1, 7, 9), (3, 11, 9), (1, 16, 16), (3, 1, 2), (3, 9, 8)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("seed", "image_shape"), list(enumerate(IMAGE_SHAPES)))
def test_outputs_gradients_and_running_statistics_equal_the_reference(
    seed: int, image_shape: tuple[int, int, int], memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_ops, "MIN_PIXELS", 100)  # feature maps on both sides of the limit
    rng = np.random.default_rng(seed)
    normal, reduction = random_cell(rng), random_cell(rng)
    filters = 1 if seed == 1 else 3
    network = build(normal, reduction, NetworkSettings(1, filters), image_shape=image_shape).double()
    network.to(memory_format=memory_format)
    images = torch.randn(4, *image_shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    weights = torch.randn(4, 10, dtype=torch.float64)
    results: list[list[Tensor]] = []
    for copied in (copy.deepcopy(network), copy.deepcopy(network)):
        logits = reference_network(copied, normal, reduction, images) if results else copied(images)
        gradients = torch.autograd.grad((logits * weights).sum(), list(copied.parameters()))
        results.append([logits, *gradients, *copied.buffers()])
    torch.testing.assert_close(results[0], results[1])


def test_gradients_keep_the_memory_format() -> None:
    """Otherwise batch norm and ReLU are many times slower on a CPU."""
    backward = (torch.ops.aten.native_batch_norm_backward.default, torch.ops.aten.threshold_backward.default)
    stored: list[bool] = []

    class MemoryFormatRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in backward and args[0].dim() == 4:
                stored.extend(value.is_contiguous(memory_format=torch.channels_last) for value in args[:2])
            return func(*args, **(kwargs or {}))

    network = build(settings=NetworkSettings(1, 4, 0.5)).to(memory_format=torch.channels_last)
    network.set_drop_path_progress(1.0)
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    with MemoryFormatRecorder():  # type: ignore[no-untyped-call]
        torch.autograd.backward(network(images).sum())
    assert len(stored) > 100
    assert all(stored)


def test_cpu_ops_are_not_used_under_autocast_or_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build().eval()
    images = torch.randn(2, 3, 8, 8)
    assert use_cpu_ops(images)
    expected = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not use_cpu_ops(images)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not use_cpu_ops(images)
    with monkeypatch.context() as patched:
        patched.delattr(cpu_ops, "_Stride2Subsample")
        patched.delattr(cpu_ops, "_Depthwise5x5")
        torch.testing.assert_close(network(images), expected)


def test_pointwise_convolutions_have_stride_1() -> None:
    for module in build().modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1)


def test_loose_ends_are_the_values_that_no_node_reads() -> None:
    assert loose_ends(((1, 0, 1, 0), (1, 1, 1, 2))) == (0, 2, 3)
    assert loose_ends(((0, 0, 1, 0), (2, 1, 2, 2))) == (3,)


def test_unused_input_is_kept_by_a_normal_cell_and_halved_by_a_reduction_cell() -> None:
    cell = ((1, 4, 1, 4),)
    prev_prev, prev = FeatureMap(torch.randn(2, 4, 6, 6)), FeatureMap(torch.randn(2, 4, 6, 6))
    normal = MicroCell(cell, (4, 4), 4, stride=1, reduction_prev=False, expansion=1)
    assert torch.equal(normal(prev_prev, prev).concatenated()[:, :4], prev_prev.concatenated())
    reduction = MicroCell(cell, (4, 4), 4, stride=2, reduction_prev=False, expansion=1)
    assert reduction(prev_prev, prev).concatenated().shape == (2, 8, 3, 3)


def test_evaluation_is_deterministic_and_ignores_drop_path() -> None:
    images = torch.randn(4, 3, 8, 8)
    network = build(settings=NetworkSettings(1, 4, 0.8, True))
    network.set_drop_path_progress(1.0)
    assert not torch.equal(network(images), network(images))
    network.eval()
    state = torch.get_rng_state()
    assert torch.equal(network(images), network(images))
    assert torch.equal(torch.get_rng_state(), state)
    assert network.forward_with_auxiliary(images)[1] is None


def test_drop_path_prob_grows_with_depth_and_progress() -> None:
    network = build(settings=NetworkSettings(1, 4, 0.4))
    assert [network.drop_path_prob(index) for index in range(5)] == [0.0] * 5
    network.set_drop_path_progress(0.5)
    expected = [0.4 * depth / 5 * 0.5 for depth in (1, 2, 3, 4, 5)]
    assert [network.drop_path_prob(index) for index in range(5)] == pytest.approx(expected)
    network.set_drop_path_progress(7.0)
    assert network.drop_path_prob(4) == pytest.approx(0.4)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(InputError, match="progress"):
            network.set_drop_path_progress(wrong)


@pytest.mark.parametrize("fraction", [0.4, 1.0, 3.0])
def test_progress_tensor_is_read_in_every_forward_pass(fraction: float) -> None:
    network = build(settings=NetworkSettings(1, 4, 0.7, True))
    images = torch.randn(16, 3, 8, 8)
    progress = torch.zeros(())
    network.set_drop_path_progress(progress)
    network(images)
    progress.fill_(fraction)
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        logits, auxiliary_logits = network.forward_with_auxiliary(images)
        outputs.append((logits, auxiliary_logits))
        network.set_drop_path_progress(fraction)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=1e-4)


def test_forward_pass_does_not_synchronize() -> None:
    """The meta device has no values: reading one would raise an error."""
    network = build(settings=NetworkSettings(1, 4, 0.7, True)).to("meta")
    network.set_drop_path_progress(torch.zeros((), device="meta"))
    logits, auxiliary_logits = network.forward_with_auxiliary(torch.randn(4, 3, 8, 8, device="meta"))
    assert auxiliary_logits is not None
    torch.autograd.backward(logits.sum() + auxiliary_logits.sum())


def test_no_random_numbers_without_drop_path() -> None:
    network = build(settings=NetworkSettings(1, 4, 0.0))
    network.set_drop_path_progress(torch.ones(()))
    state = torch.get_rng_state()
    network(torch.zeros(2, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)


def test_drop_path_does_not_drop_identities() -> None:
    value = FeatureMap(torch.randn(64, 2, 4, 4))
    cell = MicroCell(((0, 0, 0, 0),), (2, 2), 2, stride=1, reduction_prev=False, expansion=1)
    assert torch.equal(cell(value, value, drop_path_prob=0.9).concatenated()[:, 2:], 2 * value.concatenated())
    pooling = MicroCell(((0, 4, 0, 4),), (2, 2), 2, stride=1, reduction_prev=False, expansion=1)
    dropped = (pooling(value, value, drop_path_prob=0.9).concatenated()[:, 2:] == 0).flatten(1).all(1)
    assert 0 < dropped.sum() < 64


def test_auxiliary_head_reads_the_third_stage_and_has_gradients() -> None:
    network = build(settings=NetworkSettings(1, 4, 0.0, True))
    _, auxiliary_logits = network.forward_with_auxiliary(torch.randn(4, 3, 8, 8))
    assert auxiliary_logits is not None
    assert network.auxiliary_head is not None
    torch.autograd.backward(auxiliary_logits.square().sum())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.auxiliary_head.parameters())
    assert weight_of(network.classifier[-1]).grad is None
    trained = [any(p.grad is not None for p in cell.parameters()) for cell in network.cells]
    assert trained == [True] * 5
    assert network.auxiliary_index == 4
    assert build().forward_with_auxiliary(torch.randn(4, 3, 8, 8))[1] is None


def test_weights_are_drawn_from_the_global_generator() -> None:
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((), "at least one node"),
        (((0, 0, 2, 0),), "reads input 2"),
        (((-1, 0, 0, 0),), "reads input -1"),
        (((0, 5, 0, 0),), "operator 5"),
        (((0, 0, 0, -1),), "operator -1"),
        (((0, 0, 0),), "has 3 numbers"),
    ],
)
def test_invalid_cell_is_an_input_error(cell: Any, message: str) -> None:
    for cells in ((cell, ENAS_REDUCTION), (ENAS_NORMAL, cell)):
        with pytest.raises(InputError, match=message):
            build(*cells)


def test_invalid_shapes_are_input_errors() -> None:
    with pytest.raises(InputError, match="num_classes"):
        build(num_classes=0)
    with pytest.raises(InputError, match="image_shape"):
        build(image_shape=(3, 0, 8))
