"""The scale of a column of results in a table, and its map to a reward."""

from __future__ import annotations

from collections.abc import Callable
from sys import float_info
from typing import NamedTuple

from nases_env.errors import InputError
from nases_env.quantity import ACCURACY, Quantity


class Metric(NamedTuple):
    """The validation metric of a task; higher is better.

    Attributes:
        name: what its values are, for messages.
        lowest, highest: the bounds of the possible values.
        to_reward: increasing map to [0, 1].
        quantity: what the rewards are, for summaries and reports.
    """

    name: str
    lowest: float
    highest: float
    to_reward: Callable[[float], float]
    quantity: Quantity = Quantity("metric")


PERCENT = Metric("a metric in percent", 0.0, 100.0, lambda value: value / 100, ACCURACY)
FRACTION = Metric("a number in [0, 1]", 0.0, 1.0, lambda value: value)
SIMILARITY = Metric("a structural similarity in [0, 1]", 0.0, 1.0, lambda value: value, Quantity("SSIM"))
NEGATIVE_LOSS = Metric("a negative loss", -float_info.max, 0.0, lambda value: 1 / (1 - value), Quantity("1 / (1 + loss)"))


def require_percent(text: str, value: float) -> None:
    """Raise ``InputError`` unless ``value``, which a table writes as ``text``, is an accuracy in percent."""
    if not PERCENT.lowest <= value <= PERCENT.highest:  # also rejects NaN
        raise InputError(f"{text} is not an accuracy in percent")
