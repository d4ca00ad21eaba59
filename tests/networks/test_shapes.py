"""The shapes of results on the device "meta" equal those that torch computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from nases_env.networks.costs import _tensors
from nases_env.networks.shapes import compute_shapes

aten = torch.ops.aten
FORMATS = (torch.contiguous_format, torch.channels_last)


def meta(*shape: int, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    return torch.empty(shape, device="meta").contiguous(memory_format=memory_format)


def forms(results: Any) -> list[Any]:
    return [(each.shape, each.dtype, each.untyped_storage().nbytes()) for each in _tensors(results)]


def addresses(values: Any) -> set[int]:
    return {each.untyped_storage()._cdata for each in _tensors(values)}


def check(operation: Any, *args: Any, **kwargs: Any) -> None:
    """Check that the results are like those of torch, and new tensors, or that both raise an error."""
    try:
        expected = operation(*args, **kwargs)
    except (RuntimeError, IndexError, ZeroDivisionError) as error:
        with pytest.raises(type(error)):
            compute_shapes(operation, args, kwargs)
        return
    results = compute_shapes(operation, args, kwargs)
    assert forms(results) == forms(expected)
    addresses = {arg.untyped_storage()._cdata for arg in args if isinstance(arg, Tensor)}
    assert not addresses & {
        each.untyped_storage()._cdata for each in ([results] if isinstance(results, Tensor) else results)
    }


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("operation", "others"),
    [
        (aten.native_batch_norm.default, [*([(5,)] * 4), False, 0.1, 1e-5]),
        (aten.relu.default, []),
        (aten.zeros_like.default, []),
        (aten.add.Tensor, [(2, 5, 4, 3)]),
        (aten.add.Tensor, [(1, 5, 1, 1)]),
        (aten.add.Tensor, [(3, 2, 5, 4, 3)]),
        (aten.add.Tensor, [1.0]),
    ],
)
def test_elementwise_operations(memory_format: torch.memory_format, operation: Any, others: list[Any]) -> None:
    images = meta(2, 5, 4, 3, memory_format=memory_format)
    arguments = (images, *(meta(*each) if isinstance(each, tuple) else each for each in others))
    check(operation, *arguments)
    if not isinstance(results := compute_shapes(operation, arguments, {}), tuple):
        assert results.stride() == operation(*arguments).stride()


def test_uncommon_arguments() -> None:
    check(aten.add.Tensor, meta(2, 3), meta(2, 2))  # an error
    check(aten.zeros_like.default, meta(2, 3), dtype=torch.float64)
    check(aten.mean.dim, meta(2, 3), [1], dtype=torch.float64)


def test_addition_in_place_returns_its_tensor() -> None:
    tensor = meta(2, 3)
    assert compute_shapes(aten.add_.Tensor, (tensor, meta(2, 3)), {}) is tensor
    assert compute_shapes(aten.add_.Tensor, (tensor, meta(3)), {}) is tensor
    with pytest.raises(RuntimeError):
        compute_shapes(aten.add_.Tensor, (tensor, meta(4)), {})


@given(
    shapes=st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=2), min_size=1, max_size=3),
    dim=st.integers(-4, 4),
    memory_format=st.sampled_from(FORMATS),
)
def test_concatenation(shapes: list[list[int]], dim: int, memory_format: torch.memory_format) -> None:
    check(aten.cat.default, [meta(2, *shape, 3, memory_format=memory_format) for shape in shapes], dim)


def test_concatenation_in_the_first_dimension_is_the_default() -> None:
    check(aten.cat.default, [meta(2, 3), meta(4, 3)])
    check(aten.cat.default, [meta(2, 3), meta(0)])  # torch ignores such an empty tensor


numbers = st.integers(0, 4)
positions = st.fixed_dictionaries(
    {"size": st.integers(1, 9), "kernel": numbers, "stride": numbers, "padding": st.integers(-1, 2), "dilation": numbers}
)


@given(
    height=positions,
    width=positions,
    groups=st.integers(1, 2),
    channels=st.integers(1, 4),
    outputs=st.integers(1, 4),
    is_transposed=st.sampled_from([False, False, True]),
    memory_format=st.sampled_from(FORMATS),
)
def test_convolution(
    height: dict[str, int],
    width: dict[str, int],
    groups: int,
    channels: int,
    outputs: int,
    is_transposed: bool,
    memory_format: torch.memory_format,
) -> None:
    images = meta(2, channels, height["size"], width["size"], memory_format=memory_format)
    weight = meta(outputs, max(channels // groups, 1), height["kernel"], width["kernel"])
    stride, padding, dilation = ([height[name], width[name]] for name in ("stride", "padding", "dilation"))
    assume(not is_transposed or channels == outputs)
    check(aten.convolution.default, images, weight, None, stride, padding, dilation, is_transposed, [0, 0], groups)


@given(height=positions, width=positions, rounds_up=st.booleans(), memory_format=st.sampled_from(FORMATS))
def test_pooling(height: dict[str, int], width: dict[str, int], rounds_up: bool, memory_format: torch.memory_format) -> None:
    images = meta(2, 3, height["size"], width["size"], memory_format=memory_format)
    kernel, stride, padding, dilation = ([height[name], width[name]] for name in ("kernel", "stride", "padding", "dilation"))
    check(aten.avg_pool2d.default, images, kernel, stride, padding, rounds_up, False)
    check(aten.avg_pool2d.default, images, kernel)
    check(aten.max_pool2d_with_indices.default, images, kernel, stride, padding, dilation, rounds_up)
    check(aten.max_pool2d_with_indices.default, images, kernel, stride, padding)


@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    dims=st.lists(st.integers(-5, 4), max_size=3),
    keeps_dims=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_mean(shape: list[int], dims: list[int], keeps_dims: bool, dtype: torch.dtype) -> None:
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    check(aten.mean.dim, tensor, dims, keeps_dims)
    check(aten.mean.dim, tensor.t() if tensor.dim() == 2 else tensor, dims)


@given(sizes=st.lists(st.integers(1, 2), min_size=5, max_size=5))
def test_products_of_matrices(sizes: list[int]) -> None:
    rows, inner, other, columns, bias = sizes
    check(aten.mm.default, meta(rows, inner), meta(other, columns))
    check(aten.addmm.default, meta(bias), meta(rows, inner), meta(other, columns))
    check(aten.mm.default, meta(rows, inner), meta(other, columns).double())
    check(aten.mm.default, meta(rows), meta(other, columns))
