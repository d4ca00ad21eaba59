"""What a network costs where it is used: parameters, operations, memory for activations, size of the weights file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from nases_env.networks.shapes import compute_shapes


class Costs(NamedTuple):
    """The exact costs of a network, which need no training.

    Attributes:
        num_params: number of trainable parameters, as ``count_parameters`` returns it.
        num_flops: floating-point operations of a forward pass of one image, as ``count_flops`` returns it.
        activation_bytes: peak memory of the activations of one image; see ``count_costs``.
        file_bytes: bytes of the tensors in a weights file; see ``count_file_bytes``.
    """

    num_params: int
    num_flops: int
    activation_bytes: int
    file_bytes: int


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters, including those of an auxiliary head."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the number of floating-point operations of convolutions and matrix products for one image in evaluation mode.

    A multiply-add counts as two, so papers that report multiply-adds (MACs) state half of this number. Pooling, activations,
    batch norm and additions are not counted.

    Args:
        model: any image classifier.
        image_shape: (channels, height, width).
    """
    return count_costs(model, image_shape).num_flops


def count_file_bytes(model: nn.Module) -> int:
    """Return the bytes of the tensors in a weights file of ``model``: of all entries of its ``state_dict``.

    These are the float32 parameters and buffers, such as the statistics of batch norm, and those of an auxiliary head. A
    safetensors file also has a header with the name and the shape of each tensor, about 100 bytes per tensor.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def count_costs(model: nn.Module, image_shape: tuple[int, int, int]) -> Costs:
    """Count the costs of ``model`` for one float32 image in evaluation mode.

    The activation memory is that of a program that executes torch's operations in the order of ``model`` and frees each
    tensor after the last operation that reads it. It is the maximum, over all operations, of the bytes of the tensors that
    exist during the operation: its result, its inputs, and the other tensors that a later operation reads. The image counts
    until its last use, and the result of ``model`` to the end. Weights, buffers, and the work space inside an operation do
    not count, and neither do results that nothing reads, such as the indices of max pooling. Views share the memory of their
    tensor, and an operation in place needs none.

    Only shapes are computed (torch's "meta" device), and neither ``model`` nor a random generator changes. ``model`` may
    itself be on the meta device. A network that needs values in its forward pass, for example because it creates tensors on
    the CPU, classifies a black image instead.

    Args:
        model: any image classifier.
        image_shape: (channels, height, width).
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            try:
                num_flops, peak_bytes = _trace(model, image_shape, "meta")
            except (RuntimeError, TypeError):  # the latter of NumPy
                num_flops, peak_bytes = _trace(model, image_shape, "cpu")
    finally:
        for module, training in modes.items():
            module.training = training
    return Costs(count_parameters(model), num_flops, peak_bytes, count_file_bytes(model))


def _trace(model: nn.Module, image_shape: tuple[int, int, int], device: str) -> tuple[int, int]:
    """Return the floating-point operations and the peak memory of a forward pass on ``device``, on copies of the weights."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    weights = {name: tensor.detach().to(device, copy=True) for name, tensor in tensors}
    image = torch.zeros(1, *image_shape, device=device)
    tape = _Tape(list(weights.values()), image)
    with torch.no_grad(), tape:
        result = functional_call(model, weights, (image,))
    return tape.num_flops, tape.peak_bytes(result)


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which storages the operations of a forward pass create and read, and counts floating-point operations.

    Args:
        weights: tensors that do not count.
        image: the input.
    """

    def __init__(self, weights: list[Tensor], image: Tensor) -> None:
        from torch.utils.flop_counter import flop_registry  # slow to import

        super().__init__()  # type: ignore[no-untyped-call]
        self.num_flops = 0
        self._has_shapes_only = image.is_meta
        self._formulas = flop_registry
        self._weights = {_identify(weight) for weight in weights}
        self._num_operations = 0
        # By storage: the first and the last operation during which it exists, and its bytes. It is kept, because the
        # address of a storage that is freed may be that of a later one.
        self._kept: list[Any] = []
        self._lives: dict[int, tuple[int, int, int]] = {}
        self._touch(image, is_read=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = compute_shapes(func, args, kwargs) if self._has_shapes_only else func(*args, **kwargs)
        self._num_operations += 1
        for tensor in _tensors((args, tuple(kwargs.values()))):
            self._touch(tensor, is_read=True)
        for tensor in _tensors(result):
            self._touch(tensor, is_read=False)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.num_flops += int(formula(*args, **kwargs, out_val=result))
        return result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise, torch disables its compiler for this mode and imports it for that, which takes seconds

    def peak_bytes(self, result: Any) -> int:
        """Return the peak memory, if ``result`` is what remains at the end."""
        for tensor in _tensors(result):
            self._touch(tensor, is_read=True)
        changes = [0] * (self._num_operations + 2)
        for first, last, num_bytes in self._lives.values():
            if last >= 0:
                changes[first] += num_bytes
                changes[last + 1] -= num_bytes
        peak = current = 0
        for change in changes:
            current += change
            peak = max(peak, current)
        return peak

    def _touch(self, tensor: Tensor, *, is_read: bool) -> None:
        """Note that the current operation created or read ``tensor``; the last operation is -1 until it is read."""
        storage = _identify(tensor)
        if storage in self._weights:
            return
        if storage not in self._lives:
            held = tensor.untyped_storage()
            self._kept.append(held)
            self._lives[storage] = (self._num_operations, -1, held.nbytes())
        if is_read:
            first, _, num_bytes = self._lives[storage]
            self._lives[storage] = (first, self._num_operations, num_bytes)


def _identify(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
