"""Torch devices by name."""

from __future__ import annotations

import contextlib
import platform
import textwrap

import torch

from nases_env.errors import InputError

MAX_REASON = 160  # characters of the error of torch, which can list all its backends


def resolve_device(device: str) -> torch.device:
    """Return the torch device named ``device``; "auto" is the GPU if there is one, otherwise the CPU.

    Raises:
        InputError: if the device is not available.
    """
    if device != "auto":
        try:
            torch.ones(1, device=device).item()  # fails on the device meta, whose tensors have no values
        except (RuntimeError, AssertionError) as error:  # the type depends on the build of torch
            reason = textwrap.shorten(str(error).splitlines()[0], MAX_REASON)
            raise InputError(f"cannot use the device {device!r} ({reason}); try auto or cpu") from None
    return known_device(device)


def known_device(device: str) -> torch.device:
    """Return the device that ``resolve_device`` returns, for a name that it has accepted; nothing is allocated."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    return torch.device("cpu") if found.type == "cpu" else found  # "cpu:0" is the same device


def device_type(device: str) -> str:
    """Return the type of the device named ``device``, such as "cuda"; a GPU need not be available on this machine.

    Raises:
        InputError: if another device is not available.
    """
    with contextlib.suppress(RuntimeError):  # the error of ``resolve_device`` is clearer
        if device != "auto" and torch.device(device).type == "cuda":
            return "cuda"
    return resolve_device(device).type


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that a GPU has too little free memory.

    The type is ``OutOfMemoryError`` if torch's allocator raised it, and ``AcceleratorError`` if CUDA itself did.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)


def device_name(device: torch.device) -> str:
    """Return a readable name of ``device``: the model of the GPU or the architecture of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU" if device.type == "cpu" else device.type
