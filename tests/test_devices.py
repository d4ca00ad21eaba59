"""Torch devices by name."""

from __future__ import annotations

import pytest
import torch

from nases_env.devices import device_type, is_out_of_gpu_memory, known_device, resolve_device
from nases_env.errors import InputError


def test_type_of_a_gpu_is_known_without_one() -> None:
    assert [device_type(name) for name in ("cuda", "cuda:99", "cpu")] == ["cuda", "cuda", "cpu"]


def test_cpu_has_one_name() -> None:
    """Reports and comparisons take a result from any other device for one from a GPU."""
    assert str(resolve_device("cpu:0")) == str(known_device("cpu:0")) == "cpu"
    assert known_device("auto") == resolve_device("auto")


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:x"])
def test_type_of_an_unknown_device_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match=f"cannot use the device '{name}'"):
        device_type(name)


def test_error_of_a_device_is_short() -> None:
    """For a backend that torch was built without, the error lists all the others."""
    name = "vulkan" if torch.backends.mps.is_available() else "mps"
    with pytest.raises(InputError, match=f"cannot use the device '{name}'") as error:
        device_type(name)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("out of memory"), False),
    ],
)
def test_gpu_memory_is_short_if_torch_or_cuda_says_so(error: Exception, expected: bool) -> None:
    assert is_out_of_gpu_memory(error) is expected
