"""The result of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from enum import Enum
from operator import itemgetter
from typing import Any

from nases_env.errors import InputError, shown
from nases_env.json_io import MAX_INTEGER
from nases_env.training import EpochRecord


class Status(str, Enum):
    """How an evaluation ended. All statuses except ``TOO_LARGE``, which depends on the limits, and ``FAILED`` are stored.

    Executors set ``TIMED_OUT`` or ``OUT_OF_MEMORY`` if every attempt exceeded that limit, and ``FAILED`` if all attempts
    failed in any other way, for example because the worker died. ``FAILED`` is an infrastructure failure. An evaluator
    returns ``OUT_OF_MEMORY`` if a training runs out of GPU memory; executors try it again and replace it by ``FAILED``,
    because another process may use the memory.
    """

    OK = "ok"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


UNEVALUATED = (Status.FAILED, Status.TIMED_OUT, Status.OUT_OF_MEMORY)
"""The statuses of children that no attempt could evaluate."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of evaluating one child.

    Attributes:
        key: the architecture's canonical key.
        seed: the child's seed, for initial weights, batches and augmentation.
        status: how the evaluation ended.
        valid_accuracy: accuracy on the validation images, in [0, 1]; 0 unless the status is ``OK``.
        train_accuracy: accuracy on training images without augmentation, in [0, 1]; 0 unless the status is ``OK``.
        num_params: number of trainable parameters; 0 if it is not known.
        num_flops: floating-point operations of a forward pass of one image; 0 if it is not known.
        num_epochs: number of completed epochs.
        seconds: wall time of the evaluation; at a higher rung, including that of the lower rungs.
        device: the device of the evaluation.
        curve: one record per epoch.
        reason: one line that explains a failure; may be empty.
        fidelity: the rung of the evaluation, a number of epochs; None in a search without rungs.
        activation_bytes: peak memory of the activations of one image (``nases_env.networks.count_costs``); 0 if it is not
            known, because the evaluator builds no network or an earlier version wrote the result.
        file_bytes: bytes of the tensors in a weights file (``count_file_bytes``); 0 if it is not known.
        latency: measured seconds of a forward pass of one image; 0 without ``max_latency`` or the objective ``latency``.
        score: the reward of a child with the status ``OK``, in [0, 1]; None: the validation accuracy.
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
    fidelity: int | None = None
    activation_bytes: int = 0
    file_bytes: int = 0
    latency: float = 0.0
    score: float | None = None

    @property
    def reward(self) -> float:
        """The environment's reward in [0, 1]: the score or else the validation accuracy; 0 if the status is not ``OK``."""
        if self.status is not Status.OK:
            return 0.0
        return self.valid_accuracy if self.score is None else self.score

    @property
    def has_train_accuracy(self) -> bool:
        """Whether a network was trained, so that ``train_accuracy`` is a result; a table or a surrogate trains none."""
        return self.status is Status.OK and self.num_params > 0 and (self.seconds > 0 or self.train_accuracy > 0)

    @property
    def rank(self) -> tuple[int, float]:
        """The rung (-1 if the status is not ``OK``) and the reward: a result at a higher rung is better."""
        return (-1 if self.status is not Status.OK else self.fidelity or 0, self.reward)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Restore an evaluation from the result of ``to_dict``; unknown entries are ignored.

        Raises:
            KeyError, TypeError, ValueError: if an entry is missing or invalid.
        """
        _check(values)
        return cls.from_checked(values)

    @classmethod
    def from_checked(cls, values: Mapping[str, Any]) -> Evaluation:
        """Restore an evaluation from values that ``check`` accepts; faster than ``from_dict``."""
        known: dict[str, Any] = dict(zip(_REQUIRED, _required_values(values), strict=True))
        known["status"] = _STATUSES[known["status"]]
        for name in _OPTIONAL:
            if name in values:
                known[name] = values[name]
        if "curve" in known:
            known["curve"] = read_curve(known["curve"])
        return cls(**known)

    @staticmethod
    def check(values: Mapping[str, Any]) -> None:
        """Check whether ``from_dict`` accepts ``values``, and raise its errors, without making an evaluation."""
        _check(values)
        read_curve(values.get("curve", ()))


def _check(values: Mapping[str, Any]) -> None:
    """Check all values except the curve; fast, because a search may have many evaluations."""
    if values["status"] not in _STATUSES:
        raise ValueError("status is unknown")
    for name in ("key", "device", "reason"):
        if type(values[name]) is not str:
            raise ValueError(f"{name} is not a string")
    for name in _COUNTS:
        value = values[name]
        if type(value) is not int or not 0 <= value < MAX_INTEGER:
            raise ValueError(f"{name} is not a number from 0 to 2^63 - 1")
    for name, maximum in _MAXIMA.items():
        value = values[name]
        if type(value) not in (float, int) or not 0 <= value <= maximum:
            raise ValueError(f"{name} is not a number in its range")
    for name in ("activation_bytes", "file_bytes"):
        value = values.get(name, 0)
        if type(value) is not int or not 0 <= value < MAX_INTEGER:
            raise ValueError(f"{name} is not a number from 0 to 2^63 - 1")
    latency, score, fidelity = values.get("latency", 0.0), values.get("score"), values.get("fidelity")
    if type(latency) not in (float, int) or not 0 <= latency < MAX_INTEGER:
        raise ValueError("latency is not a number in its range")
    if score is not None and (type(score) not in (float, int) or not 0 <= score <= 1):
        raise ValueError("score is not a number in [0, 1]")
    if fidelity is not None and (type(fidelity) is not int or not 1 <= fidelity < MAX_INTEGER):
        raise ValueError("fidelity is not a number of epochs")


def require_evaluation(evaluation: object, key: str, seed: int, evaluator: str) -> Evaluation:
    """Return what an evaluator returned for a child, with Python numbers in place of those of NumPy and torch.

    Args:
        evaluation: the result of ``Evaluator.evaluate``.
        key: the key of the child.
        seed: its seed.
        evaluator: name of the evaluator, for messages.

    Raises:
        InputError: if it is not an evaluation, a value is out of range, or it has another key or seed.
    """
    if not isinstance(evaluation, Evaluation):
        raise InputError(f"{evaluator}.evaluate must return an Evaluation, not {shown(evaluation)}")
    values = {name: getattr(evaluation, name) for name in _NAMES}
    try:
        if not (isinstance(evaluation.status, Status) and set(map(type, values.values())) <= _PLAIN_TYPES):
            values = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
            values["status"] = Status(values["status"])
            evaluation = Evaluation(**values)
        _check({**values, "status": evaluation.status.value})
    except (ValueError, RuntimeError) as error:  # the second one: a tensor of several numbers
        raise InputError(
            f"{evaluator}.evaluate returned an invalid result ({error}); accuracies and the score are in [0, 1], and counts "
            f"are integers: {shown(evaluation)}"
        ) from None
    if (evaluation.key, evaluation.seed) != (key, seed):
        raise InputError(
            f"{evaluator}.evaluate returned a result of {evaluation.key} with the seed {evaluation.seed} for {key} with the "
            f"seed {seed}; return Evaluation(architecture.key, seed, ...)"
        )
    return evaluation


def read_curve(epochs: Iterable[Mapping[str, Any]]) -> tuple[EpochRecord, ...]:
    """Restore the curve of an evaluation from JSON values.

    Raises:
        TypeError, ValueError: if an entry is missing or invalid.
    """
    curve = tuple(EpochRecord(**epoch) for epoch in epochs)
    for record in curve:
        if type(record.epoch) is not int or not all(map(_is_number, astuple(record))):
            raise ValueError("a value is not a number")
    return curve


def _is_number(value: Any) -> bool:
    """Return whether ``value`` is a float, which may be NaN or infinity, or an integer that a float can represent."""
    return type(value) is float or (type(value) is int and abs(value) < MAX_INTEGER)


# A trajectory has no curves, and results of earlier versions have none of the others.
_OPTIONAL = ("curve", "fidelity", "activation_bytes", "file_bytes", "latency", "score")
_NAMES = tuple(field.name for field in fields(Evaluation))
_REQUIRED = tuple(name for name in _NAMES if name not in _OPTIONAL)
_required_values = itemgetter(*_REQUIRED)
_PLAIN_TYPES = {str, int, float, tuple, type(None), Status}
_STATUSES = {status.value: status for status in Status}
_COUNTS = ("seed", "num_params", "num_flops", "num_epochs")
_MAXIMA = {"valid_accuracy": 1.0, "train_accuracy": 1.0, "seconds": float(MAX_INTEGER)}
