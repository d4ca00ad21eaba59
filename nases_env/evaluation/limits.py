"""Limits of the costs of a child."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from nases_env.errors import InputError, shown
from nases_env.evaluation.objectives import COSTS, Cost
from nases_env.evaluation.result import Evaluation
from nases_env.units import MAX_NUMBER, Bytes, Count, Seconds


@dataclass(frozen=True)
class Limits:
    """Limits of the costs of a child; a child that exceeds one is infeasible. None: no limit.

    They decide which children are evaluated and have no effect on the results of the others. They are therefore not in the
    digest of an evaluator, and searches with different limits share results.

    Raises:
        InputError: if a limit is not a number of at least 1, or of more than 0 for ``max_latency``.
    """

    max_params: Count = None
    """Maximum number of parameters of a child, such as 100k. A search does not evaluate children above a limit and draws
    others; env.step gives them the status too_large and the reward 0. none: no limit."""
    max_flops: Count = None
    """Maximum number of floating-point operations for one image, such as 5M; a multiply-add counts as two."""
    max_memory: Bytes = None
    """Maximum peak memory of the float32 activations of one image, such as 256KB or 1MiB; without the weights."""
    max_latency: Seconds = None
    """Maximum time to classify one image with one thread of this CPU, such as 2ms; measured once for each child."""

    def __post_init__(self) -> None:
        for kind in KINDS:
            value = getattr(self, kind.name)
            if value is None:
                continue
            if type(value) not in (int, float):
                raise InputError(f"{kind.name} must be a number {kind.example}, not {shown(value)}")
            minimum_holds = value > 0 if kind.is_measured else value >= 1
            if not (minimum_holds and value <= MAX_NUMBER):  # also rejects NaN
                allowed = "more than 0" if kind.is_measured else "at least 1"
                raise InputError(f"{kind.name} is {shown(value)}; it must be {allowed}, and at most 2^53")
            object.__setattr__(self, kind.name, float(value) if kind.is_measured else int(value))

    def __bool__(self) -> bool:
        """Return whether there is a limit."""
        return any(value is not None for value in vars(self).values())

    def options(self) -> dict[str, str]:
        """Return the limits as the values of options on the command line, by name; without those that are None."""
        texts = {kind.name: f"{getattr(self, kind.name)!r}{kind.unit}" for kind in KINDS}
        return {name: text for name, text in texts.items() if getattr(self, name) is not None}

    def exact(self) -> Limits:
        """Return the limits of costs that are known without a measurement."""
        return dataclasses.replace(self, **{kind.name: None for kind in KINDS if kind.is_measured})

    def reason(self, costs: Evaluation, *, has_fixed_size: bool = False) -> str:
        """Return which limit ``costs`` exceed, and what to do if all children exceed it; empty if there is none.

        Args:
            costs: costs of a child.
            has_fixed_size: whether no setting changes the size of the child.
        """
        for kind in KINDS:
            limit, cost = getattr(self, kind.name), kind.cost.of(costs)
            if limit is not None and cost > limit:
                remedy = "" if has_fixed_size else f", or decrease {kind.remedy}"
                return f"{kind.describe(cost)}, more than {kind.name} = {kind.cost.form(limit)}; increase it{remedy}"
        return ""

    def excess(self, costs: Evaluation) -> float:
        """Return the largest ratio of a cost to its limit; 0 without limits."""
        limits = ((kind.cost.of(costs), getattr(self, kind.name)) for kind in KINDS)
        return max((cost / limit for cost, limit in limits if limit is not None), default=0.0)

    def describe(self) -> str:
        """Describe the limits, such as ``at most 100,000 parameters, 5,000,000 FLOPs``; empty without limits."""
        parts = [kind.describe(limit) for kind in KINDS if (limit := getattr(self, kind.name)) is not None]
        return f"at most {', '.join(parts)}" if parts else ""


class _Kind(NamedTuple):
    """The limit of a cost, and how messages show it."""

    cost: Cost
    example: str
    text: str  # {} stands for the cost
    remedy: str = "num_filters or cells_per_stage"
    unit: str = ""
    is_measured: bool = False

    @property
    def name(self) -> str:
        return self.cost.limit

    def describe(self, cost: float) -> str:
        return self.text.format(self.cost.form(cost))


KINDS: tuple[_Kind, ...] = (
    _Kind(COSTS["params"], "of parameters, such as 100_000", "{} parameters"),
    _Kind(
        COSTS["flops"],
        "of operations, such as 5e6",
        "{} FLOPs for one image",
        "image_size, num_filters or cells_per_stage",
    ),
    _Kind(COSTS["memory"], "of bytes, such as 262_144", "{} of activations", "image_size or num_filters"),
    _Kind(
        COSTS["latency"],
        "of seconds, such as 0.002",
        "a latency of {}",
        "image_size, num_filters or cells_per_stage",
        unit="s",
        is_measured=True,
    ),
)
"""The costs that can be limited; the cheapest to compute first."""


def without_limit(description: Any) -> Any:
    """Return the description of a ``TrainingEvaluator`` without its limit.

    In earlier versions, ``max_params`` was one of the settings of the children and thus part of the digest. Other
    descriptions are returned as they are.
    """
    settings = description.get("settings") if isinstance(description, dict) else None
    if not isinstance(settings, dict) or description.get("evaluator") != "training" or settings.get("max_params") is None:
        return description
    return {**description, "settings": {**settings, "max_params": None}}
