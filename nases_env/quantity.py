"""What the rewards or metrics of a search are, as summaries and reports show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """The name of a metric, and how its values are shown.

    Attributes:
        name: what it is, in lower case, such as ``accuracy``.
        is_percentage: whether a value in [0, 1] is shown in percent; otherwise, it is shown with four decimals.
    """

    name: str
    is_percentage: bool = False

    @property
    def spec(self) -> str:
        """The format specification of a value."""
        return ".2%" if self.is_percentage else ".4f"

    def format(self, value: float) -> str:
        """Format a value."""
        return format(value, self.spec)


ACCURACY = Quantity("accuracy", is_percentage=True)
REWARD = Quantity("reward")
