"""Base class of evaluators whose table has a column for each task, for custom tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nases_env.errors import InputError, did_you_mean, one_line, shown
from nases_env.evaluation.metric import Metric
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.table import TableEvaluator
from nases_env.hashing import sha256_hex
from nases_env.quantity import Quantity
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class TaskTableEvaluator(TableEvaluator):
    """Returns the validation metric that an architecture reached in a task, read from a table.

    The table is a CSV file (UTF-8) with a header and one row for each architecture of the search space. The column ``arch``
    describes the architecture as ``SearchSpace.from_string`` parses it: by default, the genotype as JSON. The other columns
    have the names of the tasks and contain their metrics. A table may lack tasks, and further columns are ignored. The order
    of rows and columns has no effect. The seed of an evaluation has no effect.

    A subclass defines ``benchmark``, ``space_class``, ``table_variable``, ``table_name`` and ``metrics``;
    ``nases_env.envs.TableEnv`` is the environment. In a search space of more than 1,000,000 lists of decisions, each of them
    must be a different architecture.

    Attributes:
        search_space: the search space, an instance of ``space_class``, or its name.
        path: the table. None: the file in the environment variable ``table_variable``, else ``table_name`` in the directory
            ``NASES_DATA_DIR``.
        task: one of ``metrics``.

    Raises:
        InputError: if the search space or the task is unknown. ``prepare`` and ``evaluate`` raise it if the table does not
            exist, lacks the task, is incomplete or invalid, or has changed since the evaluator first read it.
    """

    metrics: ClassVar[Mapping[str, Metric]]
    """The metric of each task by the name of its column."""

    task: str = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in list(self.metrics):
            raise InputError(
                f"unknown task {shown(self.task)}{did_you_mean(str(self.task), self.metrics)}; "
                f"known: {', '.join(self.metrics)}"
            )

    @classmethod
    def table_hint(cls) -> str:
        return f"use a CSV file with the header {','.join((*cls.architecture_columns, *cls.metrics))}"

    @classmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column for column in header if column in cls.metrics)

    @classmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        metric = cls.metrics[column]
        if not metric.lowest <= value <= metric.highest:
            raise InputError(f"{text} is not {metric.name}, which the column {column} contains")
        try:
            reward = metric.to_reward(value)
        except (ValueError, ArithmeticError) as error:
            raise InputError(f"the metric of the column {column} cannot convert {text}: {one_line(error)}") from None
        if not 0 <= reward <= 1:
            raise InputError(f"the metric of the column {column} converts {text} to {reward}, which is not in [0, 1]")
        return reward

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=self.row(architecture)[self.task])

    def describe(self) -> dict[str, Any]:
        """Describe the task and the digest of its rewards; neither the path nor the order of operators matters."""
        rows = sorted((key, row[self.task]) for key, row in self.rows().items())
        return {"evaluator": f"{self.space_class.name} table", "task": self.task, "table": sha256_hex(repr(rows))}

    @property
    def quantity(self) -> Quantity:
        return self.metrics[self.task].quantity

    def labels(self) -> dict[str, str]:
        return {"task": self.task}

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        rows = super().rows()
        known = next(iter(rows.values()))
        if self.task not in known:
            raise InputError(
                f"the table {self.table} lacks the column {self.task}; add it, or choose a task that it has: "
                f"{', '.join(known)}"
            )
        return rows
