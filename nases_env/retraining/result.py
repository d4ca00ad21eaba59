"""What a final training came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, one_line
from nases_env.training import EpochRecord

CONFIDENCE = 0.95  # of intervals


@dataclass(frozen=True)
class FinalResult:
    """One final training, tested.

    Attributes:
        seed: of its initial weights, batches and augmentation.
        num_right: test images that the trained network classified right; every test image was looked at once.
        num_test_images: how many there are.
        train_accuracy: on as many training images, without augmentation, in [0, 1].
        num_params: trainable parameters, without an auxiliary head, which serves training only.
        num_flops: floating-point operations for one image, a multiply-add counted as two.
        num_epochs: epochs of the training.
        seconds: wall time, of all its parts where it was interrupted.
        device: what it ran on, by its name.
        on_gpu: whether that is a GPU.
        curve: one record an epoch.
    """

    seed: int
    num_correct: int
    num_test_images: int
    train_accuracy: float
    num_params: int
    num_flops: int
    num_epochs: int
    seconds: float
    device: str
    on_gpu: bool
    curve: tuple[EpochRecord, ...]

    @property
    def test_accuracy(self) -> float:
        """The share of the test images that were classified right, in [0, 1]."""
        return self.num_correct / self.num_test_images

    @property
    def test_error(self) -> float:
        """The share that was not, in [0, 1]."""
        return 1 - self.test_accuracy

    @property
    def test_error_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the test error for a binomial number of errors.

        It says what the finite test set leaves open of this one network; the deviation over seeds says how networks differ.
        """
        from scipy.stats import binomtest  # slow to import

        errors = self.num_test_images - self.num_correct
        interval = binomtest(errors, self.num_test_images).proportion_ci(CONFIDENCE, method="wilson")
        return float(interval.low), float(interval.high)

    @property
    def hours(self) -> float:
        """Wall time in hours: GPU hours where ``on_gpu``."""
        return self.seconds / 3600

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, and what follows from them, to be read by people."""
        low, high = self.test_error_interval
        derived = {"test_accuracy": self.test_accuracy, "test_error": self.test_error, "test_error_interval": [low, high]}
        return {**asdict(self), **derived, "hours": self.hours}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinalResult:
        """What ``to_dict`` wrote.

        Raises:
            KeyError, TypeError: if something is missing or is of another kind.
        """
        known = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "curve": tuple(EpochRecord(**epoch) for epoch in known["curve"])})


def read_result(path: Path) -> FinalResult | None:
    """The result in the file ``path``; None if there is no file.

    Raises:
        InputError: if the file cannot be read or holds no result.
    """
    try:
        return FinalResult.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no result of a final training ({one_line(error)}); remove it to train this seed again"
        ) from error
