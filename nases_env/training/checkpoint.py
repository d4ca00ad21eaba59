"""The state of a training on disk, so that one that was killed goes on where it was: safetensors, no pickle."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError

logger = logging.getLogger(__name__)

MOMENTUM = "momentum_buffer"  # torch.optim.SGD's name for it


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a training writes its state. Only one training at a time may use a path.

    Attributes:
        path: the file. Unless ``keep``, it is there only while the training is unfinished; missing folders are made.
        interval_seconds: the state is written after an epoch if so much time has passed since the training (re)started or
            last wrote it; 0: after every epoch; inf: never.
        identity: what a checkpoint has to agree with, beside what the training knows of itself: the wiring of the network
            and the version of the code.
        keep: whether the file stays when the training has ended, for whoever keeps the result to remove it after that.

    Raises:
        InputError: if ``interval_seconds`` is negative or not a number.
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
    """What a checkpoint holds.

    Attributes:
        values: JSON values by name.
        tensors: tensors of any shape and type by name, on the CPU.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor]


class CheckpointFile:
    """The checkpoint of one training, on disk.

    The file is safetensors. Its metadata has one entry, ``checkpoint``: a JSON object with the fingerprint, the values, and
    the SHA-256 of both and of the tensors (``digest``), since safetensors itself does not see a flipped bit.

    Args:
        checkpoint: where and how often.
        fingerprint: of everything that decides how the training goes on; a file with another one is not continued.
    """

    def __init__(self, checkpoint: Checkpoint, fingerprint: str) -> None:
        self.path = checkpoint.path
        self.interval_seconds = checkpoint.interval_seconds
        self.keep = checkpoint.keep
        self.fingerprint = fingerprint
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the interval has passed since this object was made or ``save`` was called."""
        return time.monotonic() - self._last >= self.interval_seconds

    def save(self, state: State) -> None:
        """Writes ``state`` in place of the one before, atomically. Its tensors are contiguous and share no memory.

        Raises:
            InputError: if it cannot be written; the checkpoint before stays.
        """
        description = {
            "fingerprint": self.fingerprint,
            "values": state.values,
            "sha256": digest([self.fingerprint, state.values], state.tensors),
        }
        # One entry, because safetensors writes several in an order that differs between runs.
        write_atomically(self.path, safetensors.torch.save(state.tensors, {"checkpoint": json.dumps(description)}))
        self._last = time.monotonic()

    def load(self) -> State | None:
        """The state that was saved last; None if there is none, or the file is damaged or belongs to another training.

        The latter two are logged as warnings: the training begins again, which costs time and changes no result. What a
        process left that was killed in ``save`` is removed.
        """
        for leftover in self.path.parent.glob(f".{glob.escape(self.path.name)}.*"):
            if "." not in leftover.name.removeprefix(f".{self.path.name}."):  # else it is of a file with a longer name
                _remove(leftover)
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                description = json.loads(file.metadata()["checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            fingerprint, values = description["fingerprint"], description["values"]
            if description["sha256"] != digest([fingerprint, values], tensors):
                raise ValueError("its content has changed")
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("the checkpoint %s is damaged (%s); the training begins again", self.path, reason)
            return None
        if fingerprint != self.fingerprint:
            logger.warning("the checkpoint %s belongs to another training; this one begins at its start", self.path)
            return None
        return State(values, tensors)

    def remove(self) -> None:
        """Removes the file, if there is one."""
        _remove(self.path)


def digest(description: Any, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of JSON values and of the names, types, shapes and values of tensors, in hexadecimal digits."""
    sha256 = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha256.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of ``model``, those that its ``state_dict`` leaves out too, each once: no copies."""
    return {f"model/{name}": tensor for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def capture(model: nn.Module, optimizer: torch.optim.SGD, generators: Mapping[str, torch.Generator]) -> dict[str, Tensor]:
    """Copies of the model's tensors, the momentum of its parameters and the generators' states, for a ``State``."""
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
    """Gives the model, the optimizer and the generators the state that ``capture`` copied.

    The model's tensors are overwritten where they are, so that their device and memory layout stay, and the momentum gets
    the layout of its parameter, as the optimizer would have given it.
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


def _remove(path: Path) -> None:
    """Removes a file that is of no more use; if it cannot be removed, that harms no result and is a warning."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("cannot remove %s: %s", path, error.strerror or error)
