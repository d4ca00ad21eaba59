"""Torch devices by name."""

from __future__ import annotations

import platform

import torch

from nases_env.errors import InputError


def resolve_device(device: str) -> torch.device:
    """The torch device called ``device``; "auto" is the GPU where there is one, else the CPU.

    Raises:
        InputError: if there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by how it was built
        raise InputError(f"cannot use the device {device!r} ({str(error).splitlines()[0]}); try auto or cpu") from None
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """What a person calls a device: the GPU's model, the CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU" if device.type == "cpu" else device.type
