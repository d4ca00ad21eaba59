"""The device of children that are trained on other machines, which may have GPUs if the machine of the search has none."""

from __future__ import annotations

import platform

import torch

from nases_env.devices import device_type
from nases_env.errors import InputError
from nases_env.evaluation import Evaluator


def remote_device_type(evaluator: Evaluator) -> str | None:
    """Return the type of the device on which ``evaluator`` trains children on other machines; None: not known.

    "auto" is the type of device that this machine has. "cuda" does not require a GPU on this machine.

    Raises:
        InputError: if the device is not a GPU and not available on this machine.
    """
    device = getattr(evaluator, "device", None)
    if device is None or not evaluator.is_expensive:  # the device of a table is one of its columns
        return None
    return device_type(device)


def require_gpu(advice: str) -> None:
    """Require a GPU on this machine, where a child would otherwise be trained on the CPU.

    Args:
        advice: what the user can do if there is none.

    Raises:
        InputError: if PyTorch finds no GPU.
    """
    if torch.cuda.is_available():
        return
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        advice = "install a build of PyTorch with CUDA there"
    raise InputError(f"PyTorch {torch.__version__} finds no GPU on the node {platform.node()}; {advice}")
