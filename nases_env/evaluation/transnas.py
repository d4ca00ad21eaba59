"""Evaluation by the tabular benchmark TransNAS-Bench-101, micro, without training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from sys import float_info
from typing import Any, NamedTuple

from nases_env.errors import InputError, did_you_mean, shown
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.table import TableEvaluator
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.transnas_micro import TransNASMicro

_CELL_PATTERN = re.compile(r"\(" + ", ".join(["([0-3])"] * 6) + r"\)")


class Metric(NamedTuple):
    """The validation metric of a task; higher is better.

    Attributes:
        name: what its values are, for messages.
        lowest, highest: the values that are possible.
        to_reward: increasing map to [0, 1].
    """

    name: str
    lowest: float
    highest: float
    to_reward: Callable[[float], float]


PERCENT = Metric("a metric in percent", 0.0, 100.0, lambda value: value / 100)
SIMILARITY = Metric("a structural similarity in [0, 1]", 0.0, 1.0, lambda value: value)
NEGATIVE_LOSS = Metric("a negative loss", -float_info.max, 0.0, lambda value: 1 / (1 - value))

TASKS = {
    "class_object": PERCENT,
    "class_scene": PERCENT,
    "jigsaw": PERCENT,
    "autoencoder": SIMILARITY,
    "normal": SIMILARITY,
    "segmentsemantic": PERCENT,
    "room_layout": NEGATIVE_LOSS,
}
"""The metrics of the seven tasks, by the name of the task."""


@dataclass(frozen=True)
class TransNASEvaluator(TableEvaluator):
    """Return the validation metric that a cell of TransNAS-Bench-101, micro, reached in one of seven tasks.

    The table is a CSV file with one row for each of the 4,096 cells. The first column, ``arch``, is a tuple of the operators
    of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1 and 3<-2, such as ``"(3, 1, 3, 1, 1, 3)"``: 0 is none, 1 skip connection, 2
    convolution 1x1, 3 convolution 3x3. The other columns are named as the tasks; a table may lack tasks, and further columns
    are ignored. The seed of an evaluation has no effect.

    ``valid_accuracy``, in [0, 1], is an increasing function of the metric:

    - ``class_object``, ``class_scene``, ``jigsaw``, ``segmentsemantic``: the percentage, divided by 100.
    - ``autoencoder``, ``normal``: the structural similarity (SSIM).
    - ``room_layout``: ``1 / (1 + loss)``; the table has the negative loss.

    Attributes:
        search_space: ``"transnas_micro"``, or a ``TransNASMicro`` with a different order of operators.
        path: the table. None: the file in the environment variable ``NASES_TRANSNAS_TABLE``, else
            ``transnasbench101-micro.csv`` in the directory ``NASES_DATA_DIR``.
        task: one of ``TASKS``.

    Raises:
        InputError: if the search space or the task is unknown. ``prepare`` and ``evaluate`` raise it if the table does not
            exist, lacks the task, is incomplete or is invalid.
    """

    benchmark = "TransNAS-Bench-101"
    space_class = TransNASMicro
    table_variable = "NASES_TRANSNAS_TABLE"
    table_name = "transnasbench101-micro.csv"
    table_hint = f"use a CSV file with the header arch,{','.join(TASKS)}"

    search_space: str | SearchSpace = "transnas_micro"
    path: str | None = None
    task: str = "class_object"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in list(TASKS):
            raise InputError(
                f"unknown task {shown(self.task)}{did_you_mean(str(self.task), TASKS)}; known: {', '.join(TASKS)}"
            )

    @classmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        is_table = header[:1] == ("arch",) and len(set(header)) == len(header)
        return tuple(column for column in header if column in TASKS) if is_table else ()

    @classmethod
    def parse_architecture(cls, text: str) -> Architecture:
        match = _CELL_PATTERN.fullmatch(text)
        if match is None:
            raise InputError(f"a cell is written as six operators from 0 to 3, as in (3, 1, 3, 1, 1, 3), not {shown(text)}")
        return TransNASMicro().architecture([int(operator) for operator in match.groups()])

    @classmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        metric = TASKS[column]
        if not metric.lowest <= value <= metric.highest:
            raise InputError(f"{text} is not {metric.name}, which the column {column} contains")
        return metric.to_reward(value)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=self.row(architecture)[self.task])

    def describe(self) -> dict[str, Any]:
        """Describe the task and the digest of its metrics; neither the path nor the order of operators matters."""
        rows = sorted((key, row[self.task]) for key, row in self.rows().items())
        return {"evaluator": "transnas table", "task": self.task, "table": sha256_hex(repr(rows))}

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        rows = super().rows()
        known = next(iter(rows.values()))
        if self.task not in known:
            raise InputError(
                f"the table {self.table} lacks the column {self.task}; add it, or choose a task that it has: "
                f"{', '.join(known)}"
            )
        return rows
