"""The result of a final training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, one_line
from nases_env.evaluation.result import read_curve
from nases_env.input_files import read_file
from nases_env.json_io import parse_json, require_field_types
from nases_env.training import EpochRecord

CONFIDENCE = 0.95  # of the intervals


@dataclass(frozen=True)
class FinalResult:
    """Result of one final training.

    Attributes:
        seed: seed of the initial weights, batches and augmentation.
        num_correct: number of correctly classified test images; each test image was used once.
        num_test_images: number of test images.
        train_accuracy: accuracy on the same number of training images, without augmentation, in [0, 1].
        num_params: trainable parameters, without the auxiliary head, which is used only in training.
        num_flops: floating-point operations per image; a multiply-add counts as two.
        num_epochs: epochs of the training.
        seconds: wall time, summed over all parts of an interrupted training run.
        device: name of the device.
        on_gpu: whether the device is a GPU.
        curve: one record per epoch.
        activation_bytes: peak memory of the activations of one image (``nases_env.networks.count_costs``); 0 if an earlier
            version wrote the result.
        file_bytes: bytes of the tensors in a weights file (``count_file_bytes``); 0 if an earlier version wrote the result.
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
    activation_bytes: int = 0
    file_bytes: int = 0

    @property
    def test_accuracy(self) -> float:
        """Share of correctly classified test images, in [0, 1]."""
        return self.num_correct / self.num_test_images

    @property
    def test_error(self) -> float:
        """Share of incorrectly classified test images, in [0, 1]."""
        return 1 - self.test_accuracy

    @property
    def test_error_interval(self) -> tuple[float, float]:
        """The Wilson 95% confidence interval of the test error, for a binomial number of errors.

        The interval reflects the finite size of the test set for this network; the standard deviation over seeds reflects
        the variation between networks.
        """
        from scipy.stats import binomtest  # slow to import

        errors = self.num_test_images - self.num_correct
        interval = binomtest(errors, self.num_test_images).proportion_ci(CONFIDENCE, method="wilson")
        return float(interval.low), float(interval.high)

    @property
    def hours(self) -> float:
        """Wall time in hours: GPU hours if ``on_gpu``."""
        return self.seconds / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and derived values as JSON values."""
        low, high = self.test_error_interval
        derived = {"test_accuracy": self.test_accuracy, "test_error": self.test_error, "test_error_interval": [low, high]}
        return {**asdict(self), **derived, "hours": self.hours}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinalResult:
        """Rebuild a result from ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: if a value is missing or invalid.
        """
        later = dict.fromkeys(("activation_bytes", "file_bytes"), 0)  # not in results of earlier versions
        values = {**later, **values}
        known = {name: values[name] for name in cls.__dataclass_fields__}
        known["curve"] = read_curve(known["curve"])
        require_field_types(cls, known)
        result = cls(**known)
        for name in ("seed", "num_params", "num_flops", "num_epochs", "seconds", *later):
            if getattr(result, name) < 0:
                raise ValueError(f"{name} is negative")
        if not 0 <= result.train_accuracy <= 1:
            raise ValueError(f"train_accuracy is {result.train_accuracy}")
        if not 0 <= result.num_correct <= result.num_test_images or result.num_test_images == 0:
            raise ValueError(f"{result.num_correct} of {result.num_test_images} test images are correct")
        return result


def read_result(path: Path) -> FinalResult | None:
    """Read the result in the file ``path``; None if there is no file.

    Raises:
        InputError: if the file cannot be read or is not a result.
    """
    try:
        return FinalResult.from_dict(parse_json(read_file(path)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a result of a final training ({one_line(error)}); remove it to train this seed again"
        ) from error
