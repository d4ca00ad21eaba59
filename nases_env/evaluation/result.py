"""The record of one evaluated child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from nases_env.training import EpochRecord


class Status(str, Enum):
    """How an evaluation ended. Everything but ``OK`` and ``FAILED`` is the child's doing, and as good as a result.

    ``TIMED_OUT`` and ``FAILED`` come from executors: every attempt took longer than the time limit, or ended without a
    result (a worker that died or raised an error). ``FAILED`` says nothing that another machine would have to agree with:
    no store keeps it.
    """

    OK = "ok"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


@dataclass(frozen=True)
class Evaluation:
    """What is known of one child after its evaluation.

    Attributes:
        key: the architecture's canonical key.
        seed: the child's own seed: its initial weights, batches and augmentation.
        status: how the evaluation ended.
        valid_accuracy: share of the validation images that the trained child classifies correctly; 0 unless ``OK``.
        train_accuracy: the same on training images without augmentation; 0 unless ``OK``.
        num_params: trainable parameters; 0 where the evaluator builds no network.
        num_flops: floating-point operations of one forward pass of one image; 0 where the evaluator builds no network.
        num_epochs: epochs that were completed.
        seconds: wall time of the evaluation.
        device: where it ran.
        curve: one record an epoch.
        reason: one line on what went wrong, where a status needs it.
    """

    key: str
    seed: int
    status: Status
    valid_accuracy: float = 0.0
    train_accuracy: float = 0.0
    num_params: int = 0
    num_flops: int = 0
    num_epochs: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    curve: tuple[EpochRecord, ...] = ()
    reason: str = ""

    @property
    def reward(self) -> float:
        """The environment's reward: the validation accuracy in [0, 1], and 0 for a child that could not be measured."""
        return self.valid_accuracy if self.status is Status.OK else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The evaluation that ``to_dict`` wrote; other entries are left aside.

        Raises:
            KeyError, TypeError, ValueError: if an entry is missing or is none of an evaluation.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        curve = tuple(EpochRecord(**epoch) for epoch in known.get("curve", ()))
        return cls(**{**known, "status": Status(values["status"]), "curve": curve})
