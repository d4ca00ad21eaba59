"""Evaluation by the tabular benchmark TransNAS-Bench-101, micro, without training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nases_env.errors import InputError, shown
from nases_env.evaluation.csv_file import default_space
from nases_env.evaluation.metric import NEGATIVE_LOSS, PERCENT, SIMILARITY
from nases_env.evaluation.task_table import TaskTableEvaluator
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.transnas_micro import TransNASMicro

_CELL_PATTERN = re.compile(r"\(" + ", ".join(["([0-3])"] * 6) + r"\)")


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
class TransNASEvaluator(TaskTableEvaluator):
    """Returns the validation metric that a cell of TransNAS-Bench-101, micro, reached in one of seven tasks.

    The table is a CSV file with one row for each of the 4,096 cells. The column ``arch`` contains a tuple of the operators
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
            exist, lacks the task, is incomplete or invalid, or has changed since the evaluator first read it.
    """

    benchmark = "TransNAS-Bench-101"
    space_class = TransNASMicro
    table_variable = "NASES_TRANSNAS_TABLE"
    table_name = "transnasbench101-micro.csv"
    metrics = TASKS

    search_space: str | SearchSpace = "transnas_micro"
    task: str = "class_object"

    @classmethod
    def parse_architecture(cls, text: str) -> Architecture:
        match = _CELL_PATTERN.fullmatch(text)
        if match is None:
            raise InputError(f"a cell is written as six operators from 0 to 3, as in (3, 1, 3, 1, 1, 3), not {shown(text)}")
        return default_space(TransNASMicro).architecture([int(operator) for operator in match.groups()])

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "evaluator": "transnas table"}
