"""Checkpoints of a training run, in safetensors format (no pickle)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nases_env.atomic_io import remove_leftovers
from nases_env.errors import InputError, one_line
from nases_env.safetensors_file import InvalidFileError, load_tensors, save_tensors

logger = logging.getLogger(__name__)

MOMENTUM = "momentum_buffer"  # key in the state of torch.optim.SGD


@dataclass(frozen=True)
class Checkpoint:
    """Location and frequency of checkpoints. Only one training run at a time may use a path.

    Attributes:
        path: the file; missing directories are created. Unless ``keep`` is set, it is removed when the training ends.
        interval_seconds: minimum time between two checkpoints, which are written at the end of an epoch. 0: after every
            epoch; inf: never.
        identity: anything else that a checkpoint must match to be resumed, such as the architecture and the code version.
        keep: whether to keep the file when the training ends, so that the caller can delete it after saving the result.

    Raises:
        InputError: if ``interval_seconds`` is negative or NaN.
    """

    path: Path
    interval_seconds: float
    identity: str = ""
    keep: bool = False

    def __post_init__(self) -> None:
        if not self.interval_seconds >= 0:
            raise InputError(
                f"the checkpoint interval must be 0 or a positive number of seconds, not {self.interval_seconds}"
            )


class State(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        values: JSON values by name.
        tensors: CPU tensors of any shape and dtype, by name.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor]


class CheckpointFile:
    """The checkpoint file of one training run.

    It is written by ``save_tensors``, with the fingerprint and the values in its record.

    Args:
        checkpoint: location and frequency.
        fingerprint: digest of everything that determines the training; a file with a different fingerprint is not resumed.
    """

    def __init__(self, checkpoint: Checkpoint, fingerprint: str) -> None:
        self.path = checkpoint.path
        self.interval_seconds = checkpoint.interval_seconds
        self.keep = checkpoint.keep
        self.fingerprint = fingerprint
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the interval has passed since this object was created or ``save`` was last called."""
        return time.monotonic() - self._last >= self.interval_seconds

    def save(self, state: State) -> None:
        """Replace the checkpoint with ``state``, atomically. The tensors must be contiguous and must not share memory.

        Raises:
            InputError: if the file cannot be written; the previous checkpoint is then unchanged.
        """
        record = {"fingerprint": self.fingerprint, "values": state.values}
        save_tensors(self.path, "checkpoint", record, state.tensors)
        self._last = time.monotonic()

    def load(self) -> State | None:
        """Load the last checkpoint.

        A file that is damaged or belongs to a different training run is logged as a warning and ignored; restarting the
        training costs time but does not change the result. Leftovers of a process killed in ``save`` are removed.

        Returns:
            The state, or None if there is no valid checkpoint.
        """
        remove_leftovers(self.path)
        try:
            record, tensors = load_tensors(self.path, "checkpoint")
            fingerprint, values = record["fingerprint"], record["values"]
        except FileNotFoundError:
            return None
        except (InvalidFileError, KeyError) as error:
            logger.warning("the checkpoint %s is damaged (%s); restarting the training", self.path, one_line(error))
            return None
        if fingerprint != self.fingerprint:
            logger.warning("the checkpoint %s belongs to a different training run; restarting the training", self.path)
            return None
        return State(values, tensors)

    def remove(self) -> None:
        """Remove the file if it exists; a failure is only a warning, because the file does not affect the result."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("cannot remove %s: %s", self.path, error.strerror or error)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers of ``model`` by name, including non-persistent buffers, without copying."""
    return {f"model/{name}": tensor for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def snapshot(model: nn.Module, optimizer: torch.optim.SGD, generators: Mapping[str, torch.Generator]) -> dict[str, Tensor]:
    """Copy the training state to the CPU.

    Args:
        model: its parameters and buffers are copied.
        optimizer: the momentum of the parameters is copied.
        generators: random generators by name; their states are copied.

    Returns:
        The tensors of a ``State``.
    """
    live = model_tensors(model)
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get(MOMENTUM)
        if momentum is not None:
            live[f"momentum/{name}"] = momentum
    for name, generator in generators.items():
        live[f"generator/{name}"] = generator.get_state()
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in live.items()}


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.SGD,
    generators: Mapping[str, torch.Generator],
) -> None:
    """Restore the training state that ``snapshot`` copied.

    The tensors of the model are overwritten in place and keep their device and memory layout. The momentum gets the layout
    of its parameter, as if the optimizer had created it.

    Args:
        tensors: the result of ``snapshot``.
        model: the model to restore.
        optimizer: the optimizer of ``model``.
        generators: the random generators, by the names that were given to ``snapshot``.
    """
    with torch.no_grad():
        for name, tensor in model_tensors(model).items():
            tensor.copy_(tensors[name])
        for name, parameter in model.named_parameters():
            if f"momentum/{name}" in tensors:
                momentum = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])
                optimizer.state[parameter][MOMENTUM] = momentum
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator/{name}"])
