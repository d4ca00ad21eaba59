"""Base class of evaluators, which map an architecture to an evaluation."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nases_env.errors import InputError, shown
from nases_env.evaluation.description import (
    config_digest,
    describe_attributes,
    describe_search_space,
    is_custom,
    source_digest,
)
from nases_env.evaluation.limits import Limits
from nases_env.evaluation.result import Evaluation, Status
from nases_env.quantity import ACCURACY, Quantity
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space


class Evaluator(ABC):
    """Evaluates architectures of one search space; a picklable configuration.

    ``evaluate`` depends only on the architecture's key, the configuration and the seed. It can therefore run in any process,
    and results can be cached.
    """

    search_space: str | SearchSpace
    """The search space, or its name as ``get_search_space`` accepts it."""

    is_expensive: ClassVar[bool] = True
    """Whether an evaluation takes long enough to be worth a worker process."""

    is_noisy: ClassVar[bool] = True
    """Whether results depend on the seed of the evaluation."""

    has_fixed_sizes: ClassVar[bool] = False
    """Whether the sizes of the networks do not depend on the settings, so that only a higher limit admits more children."""

    rungs: tuple[int, ...] = ()
    """The numbers of epochs after which a child can be evaluated, increasing; empty: only after its whole training.

    An evaluator with rungs is a dataclass with the fields ``rungs`` and ``fidelity``.
    """

    fidelity: int | None = None
    """The rung of ``evaluate``; None: the last one, or the whole training without rungs. Set by ``at_fidelity``."""

    limits: Limits = Limits()
    """The limits by which ``screen`` decides. ``describe`` does not contain them."""

    @property
    def is_screening_slow(self) -> bool:
        """Whether a latency must be measured to know that a child is feasible; one in a table is known."""
        return self.is_expensive and self.limits.max_latency is not None

    def at_fidelity(self, fidelity: int) -> Evaluator:
        """Return an evaluator that evaluates children at a rung; its description has the additional entry ``fidelity``.

        Raises:
            InputError: if ``fidelity`` is not one of ``rungs``.
        """
        self.require_rung(fidelity)
        return dataclasses.replace(self, fidelity=fidelity)  # type: ignore[type-var]

    def require_rung(self, fidelity: int) -> None:
        """Raise ``InputError`` if ``fidelity`` is not one of ``rungs``."""
        if fidelity not in self.rungs:
            known = (
                f"one of the rungs {', '.join(map(str, self.rungs))}"
                if self.rungs
                else "omitted, because there are no rungs"
            )
            raise InputError(f"the fidelity is {shown(fidelity)}; it must be {known}")

    @abstractmethod
    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Evaluate one child.

        Args:
            architecture: the child's architecture.
            seed: seed of all randomness of the evaluation.

        Returns:
            An evaluation with the key of ``architecture`` and with ``seed``; executors raise ``InputError`` for another one,
            and for a value out of range.
        """

    def screen(self, architecture: Architecture, seed: int) -> Evaluation | None:
        """Return an evaluation with the reward 0 if the child is infeasible; None if it is feasible. Must be fast.

        A child is infeasible if it exceeds a limit such as ``max_params``. A search draws another child instead. The
        evaluation has the costs that were computed and a ``reason``: the cost, the limit, and what to do if it excludes all
        children. By default, all children are feasible. Call ``prepare`` first.
        """
        return None

    def size(self, architecture: Architecture) -> float | None:
        """Return a zero-cost proxy of the reward: a number that tends to increase with it; None if there is none.

        Agents may evaluate children with high numbers first, and learn from the rewards whether they are better. The default
        is ``SearchSpace.size``. Call ``prepare`` first.
        """
        return get_search_space(self.search_space).size(architecture)

    def costs(self, architecture: Architecture, seed: int) -> Evaluation | None:
        """Return an evaluation with the exact costs of the network, without training; None: no network can be built."""
        return None

    def measure_latency(self, architecture: Architecture, seed: int) -> float:
        """Measure the seconds in which the network of a child classifies one image; 0 if it cannot be built."""
        raise NotImplementedError(f"{type(self).__name__} measures no latency")

    def screen_latency(self, architecture: Architecture, seed: int, latency: float) -> Evaluation | None:
        """Return what ``screen`` returns, for a measured ``latency``."""
        child = Evaluation(architecture.key, seed, Status.TOO_LARGE, latency=latency)
        reason = Limits(max_latency=self.limits.max_latency).reason(child, has_fixed_size=self.has_fixed_sizes)
        return dataclasses.replace(child, reason=reason) if reason else None

    def prepare(self) -> None:  # noqa: B027 - optional
        """Load the data that ``evaluate`` needs, so that missing data raises an error before a search begins.

        Raises:
            InputError: if data is missing.
        """

    def describe(self) -> dict[str, Any]:
        """Return everything in the configuration that affects results, as JSON values. Call ``prepare`` first.

        The default is the name of the class, its attributes without ``limits``, and the source of a custom class. Evaluators
        that read files describe their content instead of their paths.
        """
        cls = type(self)
        space = describe_search_space(get_search_space(self.search_space))
        attributes = {name: value for name, value in vars(self).items() if name not in ("search_space", "limits")}
        described = {"evaluator": cls.__qualname__, **describe_attributes(attributes), "search_space": space}
        if is_custom(cls):
            described |= {"evaluator": f"{cls.__module__}:{cls.__qualname__}", "evaluator_source": source_digest(cls)}
        return described

    @property
    def quantity(self) -> Quantity:
        """What ``Evaluation.valid_accuracy`` is, for summaries and reports; an accuracy by default."""
        return ACCURACY

    def labels(self) -> dict[str, str]:
        """Return strings to add to the information of an environment, such as the name of the task; empty by default."""
        return {}

    def describe_rungs(self) -> dict[str, Any]:
        """Return the entries of ``describe`` for the rungs and the fidelity; empty without rungs."""
        description: dict[str, Any] = {}
        if self.rungs:
            description["rungs"] = list(self.rungs)
        if self.fidelity is not None:
            description["fidelity"] = self.fidelity
        return description

    def digest(self) -> str:
        """Return the ``config_digest`` of the description, which identifies the configuration in a store."""
        return config_digest(self.describe())

    def with_checkpoints(self, checkpoint_dir: str, interval_seconds: float) -> Evaluator:
        """Return an evaluator that writes checkpoints, if it supports them; results are the same.

        Args:
            checkpoint_dir: the directory of the checkpoints.
            interval_seconds: minimum time between two checkpoints of a child.
        """
        return self

    def export_data(self) -> Any:  # noqa: B027 - optional
        """Return the data that ``prepare`` loaded, as NumPy arrays and plain values, for ``import_data``; None: no data."""

    def import_data(self, shared: Any) -> None:  # noqa: B027 - optional
        """Use data that ``export_data`` returned in another process, so that ``prepare`` does not load it again."""
