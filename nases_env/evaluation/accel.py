"""Evaluation by a surrogate of Accel-NASBench, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nases_env.errors import InputError
from nases_env.evaluation.accel_surrogate import SETTINGS, Surrogate, fit_surrogate
from nases_env.evaluation.csv_file import CSVEvaluator, Row
from nases_env.evaluation.metric import require_percent
from nases_env.evaluation.result import Evaluation, Status
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.accel import NUM_BLOCKS, Accel

ACCURACY = "val_top1"  # percent
PARAMS, MACS = SIZES = ("params", "macs")  # millions
MIN_NETWORKS = 100


class Networks(NamedTuple):
    """The distinct networks of a table in the order of their keys, with the mean results of networks in several rows.

    Attributes:
        architectures: the networks.
        columns: their results by column.
    """

    architectures: list[Architecture]
    columns: dict[str, list[float]]


class Content(NamedTuple):
    """What ``AccelEvaluator`` keeps of a table: its networks, and the surrogate that was fitted to them."""

    networks: Networks
    surrogate: Surrogate


@dataclass(frozen=True)
class AccelEvaluator(CSVEvaluator):
    """Returns the validation accuracy that a surrogate of Accel-NASBench predicts.

    The surrogate, a support vector regression, is fitted to a table of some networks of the search space in ``prepare``,
    which takes a few seconds. The accuracies of networks in the table are predicted as well, so that all rewards are of the
    same kind. Each process fits it once. The seed of an evaluation has no effect.

    The table is a CSV file with one row for each network; the results of rows of the same network are averaged. The columns
    ``block0_e``, ``block0_k``, ``block0_l``, ``block0_se``, ``block1_e``, …, ``block6_se`` contain the expansion factor,
    kernel size, number of layers and squeeze-and-excitation of each block, and ``val_top1`` the accuracy in percent.
    ``params`` and ``macs``, in millions, may be missing; further columns are ignored.

    The numbers of parameters and FLOPs (two per multiply-add) are predicted, rounded to thousands of parameters and
    multiply-adds. They are 0 if the table lacks the column, or the mean relative error in cross-validation is above 1%.

    Attributes:
        search_space: ``"accel"``, or an ``Accel``.
        path: the table. None: the file in the environment variable ``NASES_ACCEL_TABLE``, else ``accel-nasbench.csv`` in the
            directory ``NASES_DATA_DIR``.

    Raises:
        InputError: if the search space is another one. ``prepare`` and ``evaluate`` raise it if the table does not exist, is
            invalid, has fewer than 100 networks, or has changed since the evaluator first read it.
    """

    benchmark = "Accel-NASBench"
    space_class = Accel
    table_variable = "NASES_ACCEL_TABLE"
    table_name = "accel-nasbench.csv"
    architecture_columns = tuple(f"block{block}_{name}" for block in range(NUM_BLOCKS) for name in ("e", "k", "l", "se"))

    search_space: str | SearchSpace = "accel"

    @classmethod
    def table_hint(cls) -> str:
        first, last = cls.architecture_columns[0], cls.architecture_columns[-1]
        return f"use a CSV file with the columns {first} to {last} and {ACCURACY}"

    @classmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column for column in (ACCURACY, *SIZES) if column in header) if ACCURACY in header else ()

    @classmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        if column == ACCURACY:
            require_percent(text, value)
        if column in SIZES and not 0 < value < float("inf"):
            raise InputError(f"{text} is not a number of {column} in millions")
        return value

    @classmethod
    def collect(cls, path: Path, rows: Sequence[Row]) -> Content:
        """Return the networks and the surrogate."""
        networks = group_networks(rows)
        num_networks = len(networks.architectures)
        if num_networks < MIN_NETWORKS:
            raise InputError(
                f"{path} has {num_networks} networks; a surrogate needs at least {MIN_NETWORKS}, copy the whole file again"
            )
        sizes = {column: networks.columns[column] for column in SIZES if column in networks.columns}
        return Content(networks, fit_surrogate(networks.architectures, networks.columns[ACCURACY], sizes))

    def prepare(self) -> None:
        self.content()

    def content(self) -> Content:
        content: Content = super().content()
        return content

    @property
    def networks(self) -> Networks:
        """The networks of the table."""
        return self.content().networks

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate; it is fitted when the table is read."""
        return self.content().surrogate

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        surrogate = self.surrogate
        (accuracy,) = surrogate.predict_accuracies([architecture])
        return Evaluation(
            architecture.key,
            seed,
            Status.OK,
            valid_accuracy=float(accuracy),
            num_params=surrogate.predict_size(architecture, PARAMS),
            num_flops=2 * surrogate.predict_size(architecture, MACS),
        )

    def describe(self) -> dict[str, Any]:
        """Describe the digest of the networks in the table, and the settings of the surrogate; the path has no effect."""
        architectures, columns = self.networks
        table = sha256_hex(repr(([architecture.key for architecture in architectures], columns)))
        return {"evaluator": "accel surrogate", "table": table, "surrogate": dict(SETTINGS)}


def group_networks(rows: Sequence[Row]) -> Networks:
    """Return the distinct networks of a table."""
    by_key: dict[str, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.architecture.key, []).append(row)
    groups = [group for _, group in sorted(by_key.items())]
    columns = rows[0].values if rows else ()
    return Networks(
        [group[0].architecture for group in groups],
        {column: [float(np.mean([row.values[column] for row in group])) for group in groups] for column in columns},
    )
