"""Evaluation by a table of NAS-Bench-201 with accuracies and latencies, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation.limits import Limits
from nases_env.evaluation.metric import require_percent
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.table import TableEvaluator
from nases_env.hashing import sha256_hex
from nases_env.networks import NetworkSettings, count_costs
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201

ACCURACY_COLUMN = "valid_accuracy_200_epochs_cifar10"
DEVICE_PREFIX = "ms_"  # of the columns with latencies in milliseconds, such as ms_pixel3

PUBLISHED_SETTINGS = NetworkSettings(cells_per_stage=5, num_filters=16)
NUM_CLASSES, IMAGE_SHAPE = 10, (3, 32, 32)


@dataclass(frozen=True)
class NasBench201CostEvaluator(TableEvaluator):
    """Returns the validation accuracy of a cell of NAS-Bench-201 after 200 epochs, with the costs of its network.

    The table is a CSV file with one row for each of the 15,625 cells. The column ``arch`` contains the string of the cell,
    ``valid_accuracy_200_epochs_cifar10`` an accuracy in percent, and a column ``ms_<device>`` the latency on a device in
    milliseconds. Parameters, FLOPs and memory are those of the network that NAS-Bench-201 trained for CIFAR-10. The seed of
    an evaluation has no effect.

    Attributes:
        search_space: ``"nasbench201"``, or a ``NasBench201`` with a different order of operators.
        path: the table. None: the file in the environment variable ``NASES_NASBENCH201_LATENCY_TABLE``, else
            ``nasbench201-latency.csv`` in the directory ``NASES_DATA_DIR``.
        device: the column of the latency, such as ``ms_pixel3``; None: the latency is not known.
        counts_costs: whether evaluations contain the costs of the network, which takes 20 ms for each child.
        limits: which children are feasible for ``screen``.

    Raises:
        InputError: if the search space is not NAS-Bench-201, or ``max_latency`` is limited without a device. ``prepare`` and
            ``evaluate`` raise it if the table does not exist, lacks the device, is incomplete or invalid, or has changed
            since the evaluator first read it.
    """

    benchmark = "NAS-Bench-201 with latencies"
    space_class = NasBench201
    table_variable = "NASES_NASBENCH201_LATENCY_TABLE"
    table_name = "nasbench201-latency.csv"

    has_fixed_sizes = True

    search_space: str | SearchSpace = "nasbench201"
    path: str | Path | None = None
    device: str | None = None
    counts_costs: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limits.max_latency is not None and self.device is None:
            raise InputError(
                f"max_latency needs the device whose latency is limited; add its column to the objectives, such as "
                f"{DEVICE_PREFIX}pixel3"
            )

    @classmethod
    def table_hint(cls) -> str:
        return f"use a CSV file with the header arch,{ACCURACY_COLUMN},{DEVICE_PREFIX}<device>,..."

    @classmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        if ACCURACY_COLUMN not in header:
            return ()
        return (ACCURACY_COLUMN, *(column for column in header if column.startswith(DEVICE_PREFIX)))

    @classmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        if column == ACCURACY_COLUMN:
            require_percent(text, value)
        elif not 0.0 < value < math.inf:
            raise InputError(f"{text} is not a latency in milliseconds")
        return value

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        known = self.costs(architecture, seed) if self.counts_costs else Evaluation(architecture.key, seed, Status.OK)
        accuracy = self.row(architecture)[ACCURACY_COLUMN] / 100
        return replace(known, valid_accuracy=accuracy, num_epochs=200)

    def costs(self, architecture: Architecture, seed: int) -> Evaluation:
        network = get_search_space(self.search_space).build(
            architecture, PUBLISHED_SETTINGS, num_classes=NUM_CLASSES, image_shape=IMAGE_SHAPE
        )
        return Evaluation(architecture.key, seed, Status.OK, **count_costs(network, IMAGE_SHAPE)._asdict())

    def screen(self, architecture: Architecture, seed: int) -> Evaluation | None:
        """Compare the exact costs with the limits; the network is built only if its number of parameters does not decide."""
        limits = self.limits.exact()
        if not limits:
            return None
        num_params = get_search_space(self.search_space).count_parameters(
            architecture, PUBLISHED_SETTINGS, num_classes=NUM_CLASSES, image_shape=IMAGE_SHAPE
        )
        assert num_params is not None, "the space is NasBench201"
        child = Evaluation(architecture.key, seed, Status.TOO_LARGE, num_params=num_params)
        needs_network = limits.max_flops is not None or limits.max_memory is not None
        if needs_network and not limits.reason(child, has_fixed_size=True):
            child = replace(self.costs(architecture, seed), status=Status.TOO_LARGE)
        reason = limits.reason(child, has_fixed_size=True)
        return replace(child, reason=reason) if reason else None

    def measure_latency(self, architecture: Architecture, seed: int) -> float:
        """Return the latency in the table, in seconds."""
        assert self.device is not None, "no device"
        return self.row(architecture)[self.device] / 1000

    def describe(self) -> dict[str, Any]:
        """Describe the table by the digest of what is read of it; neither the path nor the order of operators matters."""
        columns = (ACCURACY_COLUMN, *([] if self.device is None else [self.device]))
        rows = sorted((key, tuple(row[column] for column in columns)) for key, row in self.rows().items())
        return {
            "evaluator": "nasbench201 costs",
            "device": self.device,
            "counts_costs": self.counts_costs,
            "table": sha256_hex(repr(rows)),
        }

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        rows = super().rows()
        columns = list(next(iter(rows.values())))
        if self.device is not None and self.device not in columns:
            raise InputError(
                f"the table {self.table} has no device {self.device}{did_you_mean(self.device, columns)}; it has "
                f"{', '.join(columns[1:]) or 'none'}"
            )
        return rows
