"""The base class of evaluators, which turn an architecture into an evaluation."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from nases_env.evaluation.result import Evaluation
from nases_env.search_spaces import SEARCH_SPACES, Architecture, SearchSpace, get_search_space, import_path


class Evaluator(ABC):
    """A plain, picklable configuration that evaluates architectures of one search space.

    ``evaluate`` is a function of the architecture's key, the configuration and the seed alone, so that it may run in any
    process, and a stored result is as good as a new one.
    """

    search_space: str | SearchSpace
    """The search space whose architectures it evaluates, or what ``get_search_space`` makes it from."""

    is_expensive: ClassVar[bool] = True
    """Whether a child takes so long that processes of their own pay for several."""

    @abstractmethod
    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        """Evaluates one child. ``seed`` decides everything that is random in it."""

    def prepare(self) -> None:  # noqa: B027 - most evaluators need nothing
        """Loads what ``evaluate`` needs, so that what is missing is missed before a search begins.

        Raises:
            InputError: if something is missing.
        """

    def describe(self) -> dict[str, Any]:
        """Everything in the configuration that decides results, as JSON values; to be called after ``prepare``.

        The default is the class and its attributes. One whose attributes name files describes what is in them instead.
        """
        space = describe_search_space(get_search_space(self.search_space))
        return {"evaluator": type(self).__qualname__, **vars(self), "search_space": space}

    def digest(self) -> str:
        """What a store knows the configuration by: ``config_digest`` what ``describe`` says."""
        return config_digest(self.describe())

    def with_checkpoints(self, folder: str, interval_seconds: float) -> Evaluator:
        """This evaluator, but one whose children write checkpoints to ``folder`` where they can; results are the same."""
        return self

    def export_data(self) -> Any:  # noqa: B027 - most evaluators share nothing
        """What ``prepare`` loaded, for other processes to ``import_data``: NumPy arrays and plain values; None: nothing."""

    def import_data(self, shared: Any) -> None:  # noqa: B027 - most evaluators share nothing
        """Takes what ``export_data`` gave in another process, in place of what ``prepare`` would load."""


def config_digest(description: Mapping[str, Any]) -> str:
    """The SHA-256 of a configuration as ``Evaluator.describe`` gives it, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()


def describe_search_space(space: SearchSpace) -> dict[str, Any]:
    """What decides which network a key of ``space`` means: for one that does not ship, its source too."""
    described: dict[str, Any] = {"name": space.name, "decision_sizes": list(space.decision_sizes)}
    if type(space) not in SEARCH_SPACES.values():
        described["class"] = import_path(space)
        with contextlib.suppress(OSError, TypeError):  # a class that was made at a prompt has no source
            described["source"] = hashlib.sha256(inspect.getsource(type(space)).encode()).hexdigest()
    return described
