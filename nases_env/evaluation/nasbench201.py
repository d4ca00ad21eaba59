"""Evaluation by the tabular benchmark NAS-Bench-201, without training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, shown
from nases_env.evaluation.metric import require_percent
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.table import TableEvaluator
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.nasbench201 import NasBench201

DATASET = "cifar10"
TABLE_NAME = f"nasbench201-{DATASET}.csv"
HEADER = ("arch", "valid_accuracy_12_epochs", "test_accuracy_12_epochs", "test_accuracy_200_epochs")
COLUMN_12, COLUMN_TEST = HEADER[1], HEADER[3]
COLUMN_200 = "valid_accuracy_200_epochs"  # optional fifth column
RUNGS = (12, 200)  # epochs after which the table has validation accuracies


@dataclass(frozen=True)
class NasBench201Evaluator(TableEvaluator):
    """Returns the validation accuracy that a cell of NAS-Bench-201 reached after 12 or 200 epochs, read from a table.

    The table is a CSV file with the header ``arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,
    test_accuracy_200_epochs`` and one row for each of the 15,625 cells: its string and three accuracies in percent. Each
    process reads it once. A fifth column ``valid_accuracy_200_epochs`` is needed for the rung of 200 epochs. The seed of an
    evaluation has no effect. The table has no training accuracies, parameters or FLOPs; they are 0.

    Attributes:
        search_space: ``"nasbench201"``, or a ``NasBench201`` with a different order of operators.
        path: the table. None: the file in the environment variable ``NASES_NASBENCH201_TABLE``, else
            ``nasbench201-<dataset>.csv`` in the directory ``NASES_DATA_DIR``. The variable is read for ``cifar10`` only.
        rungs: (12, 200), or one of them; empty: 12 epochs without rungs.
        fidelity: the rung of ``evaluate``; None: the last one, or 12 epochs without rungs. Use ``at_fidelity``.
        dataset: the data set of the table, such as ``cifar100``, in the name of the file and in the description.

    Raises:
        InputError: if the search space is not NAS-Bench-201, or the rungs or the name of the data set are not valid.
            ``prepare``, ``evaluate`` and ``report_test_accuracy`` raise it if the table does not exist, is incomplete or
            invalid, or has changed since the evaluator first read it.
    """

    benchmark = "NAS-Bench-201"
    space_class = NasBench201
    table_variable = "NASES_NASBENCH201_TABLE"
    table_name = TABLE_NAME

    search_space: str | SearchSpace = "nasbench201"
    path: str | Path | None = None
    rungs: tuple[int, ...] = ()
    fidelity: int | None = None
    dataset: str = DATASET

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.dataset, str) or not re.fullmatch(r"\w[\w.-]*", self.dataset):
            raise InputError(
                f"the dataset is {shown(self.dataset)}; it must be the middle of the file name nasbench201-<dataset>.csv, "
                "such as cifar100"
            )
        if self.rungs not in ((), *((rung,) for rung in RUNGS), RUNGS):
            raise InputError(f"the rungs of NAS-Bench-201 are 12 and 200 epochs, not {', '.join(map(str, self.rungs))}")
        if self.fidelity is not None:
            self.require_rung(self.fidelity)

    @property
    def file_name(self) -> str:
        return f"nasbench201-{self.dataset}.csv"

    @property
    def file_variable(self) -> str | None:
        return self.table_variable if self.dataset == DATASET else None

    @classmethod
    def table_hint(cls) -> str:
        return f"use a CSV file with the header {','.join(HEADER)} and accuracies in percent"

    @classmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        return header[1:] if header in (HEADER, (*HEADER, COLUMN_200)) else ()

    @classmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        require_percent(text, value)
        return value

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        num_epochs = self.fidelity or (self.rungs[-1] if self.rungs else RUNGS[0])
        accuracy = self.row(architecture)[COLUMN_12 if num_epochs == RUNGS[0] else COLUMN_200]
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=accuracy / 100, num_epochs=num_epochs)

    def describe(self) -> dict[str, Any]:
        """Describe the table by the data set and the digest of its accuracies.

        Neither the path nor the order of operators matters. CIFAR-10 is not named, as in stores of earlier versions.
        """
        columns = (COLUMN_12, COLUMN_TEST, COLUMN_200) if RUNGS[-1] in self.rungs else (COLUMN_12, COLUMN_TEST)
        rows = sorted((key, tuple(row[column] for column in columns)) for key, row in self.rows().items())
        named = {} if self.dataset == DATASET else {"dataset": self.dataset}
        return {"evaluator": "nasbench201 table", **named, "table": sha256_hex(repr(rows)), **self.describe_rungs()}

    def report_test_accuracy(self, architecture: Architecture) -> float:
        """Return the test accuracy, in [0, 1], of the cell after 200 epochs.

        Use it only to report the result of a finished search. Using it during a search, or to choose hyperparameters, leaks
        test data.
        """
        return self.row(architecture)[COLUMN_TEST] / 100

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        rows = super().rows()
        if RUNGS[-1] in self.rungs and COLUMN_200 not in next(iter(rows.values())):
            raise InputError(
                f"the table {self.table} lacks the column {COLUMN_200}, which the rung of 200 epochs needs; add it, or omit "
                "this rung"
            )
        return rows
