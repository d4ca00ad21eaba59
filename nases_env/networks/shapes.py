"""Shapes of the results of frequent operations on the device "meta".

Torch computes most of them in Python. For that, it imports SymPy and its compiler, which takes as long as importing torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def compute_shapes(operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the results of ``operation`` for tensors on the device "meta": their shapes, types and numbers of bytes.

    Torch computes them where this module has no rule for the operation or its arguments, for example if these are wrong.

    Args:
        operation: an operator of ``torch.ops.aten``, such as ``torch.ops.aten.relu.default``.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    rule = _RULES.get(operation)
    results = rule(*args) if rule is not None and not any(kwargs.values()) else None
    return operation(*args, **kwargs) if results is None else results


# Each rule returns None for arguments that it does not cover.


def _copy(tensor: Tensor) -> Tensor | None:
    return tensor.clone()


def _add(tensor: Tensor, other: Any) -> Tensor | None:
    return tensor.clone() if _is_like(tensor, other) else None


def _add_in_place(tensor: Tensor, other: Any) -> Tensor | None:
    return tensor if _is_like(tensor, other) else None


def _batch_norm(tensor: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    statistics = tensor.new_empty(tensor.shape[1], dtype=torch.float32)
    return tensor.clone(), statistics, statistics.clone()


def _concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    others = {(tensor.dtype, *tensor.shape[:dim], *tensor.shape[dim:][1:]) for tensor in tensors}
    if len(others) > 1 or not all(tensor.is_contiguous() and tensor.dim() > 1 for tensor in tensors):
        return None
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return tensors[0].new_empty(shape)


def _convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    is_transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    if is_transposed or images.dim() != weight.dim() or images.dtype != weight.dtype:
        return None
    if groups < 1 or images.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    sizes = _slide(images, weight.shape[2:], stride, padding, dilation)
    return None if sizes is None else images.new_empty((images.shape[0], weight.shape[0], *sizes))


def _average_pool(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    rounds_up: bool = False,
    *_: Any,
) -> Tensor | None:
    if any(2 * before > size for before, size in zip(padding, kernel, strict=False)):
        return None
    sizes = _slide(images, kernel, stride or kernel, padding, (1, 1), rounds_up=rounds_up)
    return None if sizes is None else images.new_empty((*images.shape[:2], *sizes))


def _max_pool(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    rounds_up: bool = False,
) -> tuple[Tensor, Tensor] | None:
    if any(step != 1 for step in dilation):
        return None
    maxima = _average_pool(images, kernel, stride, padding, rounds_up)
    return None if maxima is None else (maxima, maxima.new_empty(maxima.shape, dtype=torch.int64))


def _mean(tensor: Tensor, dims: Sequence[int] | None, keeps_dims: bool = False) -> Tensor | None:
    means = {dim % tensor.dim() for dim in dims or () if -tensor.dim() <= dim < tensor.dim()}
    if not means or len(means) < len(dims or ()) or not tensor.is_floating_point():
        return None
    shape = [1 if dim in means else size for dim, size in enumerate(tensor.shape) if keeps_dims or dim not in means]
    return tensor.new_empty(shape)


def _multiply(first: Tensor, second: Tensor) -> Tensor | None:
    if first.dim() != 2 or second.dim() != 2 or first.shape[1] != second.shape[0] or first.dtype != second.dtype:
        return None
    return first.new_empty((first.shape[0], second.shape[1]))


def _multiply_and_add(bias: Tensor, first: Tensor, second: Tensor) -> Tensor | None:
    product = _multiply(first, second)
    return product if product is not None and bias.shape == product.shape[1:] and bias.dtype == product.dtype else None


def _slide(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    rounds_up: bool = False,
) -> list[int] | None:
    """Return the number of positions of a window in each dimension of the images, of shape (batch, channels, ...)."""
    numbers = (images.shape[2:], kernel, stride, padding, dilation)
    if len({len(each) for each in numbers}) > 1 or not images.is_contiguous():
        return None
    sizes = []
    for size, width, distance, before, step in zip(*numbers, strict=True):
        if min(width, distance, step) < 1 or before < 0:
            return None
        steps, rest = divmod(size + 2 * before - step * (width - 1) - 1, distance)
        if steps < 0 or (rest > 0 and rounds_up):
            return None
        sizes.append(steps + 1)
    return sizes


def _is_like(tensor: Tensor, value: Any) -> bool:
    """Return whether ``value`` is a tensor with the shape, the layout and the type of ``tensor``."""
    return (
        isinstance(value, Tensor)
        and value.shape == tensor.shape
        and value.stride() == tensor.stride()
        and value.dtype == tensor.dtype
    )


_aten = torch.ops.aten
_RULES: dict[Any, Callable[..., Any]] = {
    _aten.relu.default: _copy,
    _aten.zeros_like.default: _copy,
    _aten.add.Tensor: _add,
    _aten.add_.Tensor: _add_in_place,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.cat.default: _concatenate,
    _aten.convolution.default: _convolve,
    _aten.avg_pool2d.default: _average_pool,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.mean.dim: _mean,
    _aten.mm.default: _multiply,
    _aten.addmm.default: _multiply_and_add,
}
