"""Base class of evaluators that read the results of all architectures from a table, without training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nases_env.errors import InputError
from nases_env.evaluation.csv_file import CSVEvaluator, Row
from nases_env.search_spaces import Architecture, SearchSpace

MAX_ENUMERATED = 10**6  # lists of decisions


@dataclass(frozen=True)
class TableEvaluator(CSVEvaluator):
    """Reads results from the table of a tabular benchmark: a CSV file with a header and one row for each architecture.

    Each process reads the file once. The seed of an evaluation has no effect.
    ``TaskTableEvaluator`` is the base class for custom tables.

    Attributes:
        search_space: the search space of the benchmark, or its name; any order of operators.
        path: the table. None: the file in the environment variable ``table_variable``, else ``table_name`` in the directory
            ``NASES_DATA_DIR``.

    Raises:
        InputError: if the search space is another one. ``prepare`` and ``evaluate`` raise it if the table does not exist, is
            incomplete or invalid, or has changed since the evaluator first read it.
    """

    @classmethod
    def collect(cls, path: Path, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
        """Return the results by key, then by column."""
        first: dict[str, Row] = {}
        for row in rows:
            known = first.setdefault(row.architecture.key, row)
            if known is not row:
                lines = f"lines {known.line} and {row.line} of {path}"
                raise InputError(f"{lines} are both for {row.text}; remove the wrong one")
        num_cells = _count_architectures(cls.space_class(), len(first))
        if len(first) < num_cells:
            raise InputError(
                f"{path} is truncated: it has {len(first):,} of {cls.benchmark}'s {num_cells:,} cells; copy the whole file "
                "again"
            )
        return {key: row.values for key, row in first.items()}

    def prepare(self) -> None:
        self.rows()

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        """Return the results of all architectures: by key, then by column."""
        rows: Mapping[str, Mapping[str, float]] = self.content()
        return rows

    def row(self, architecture: Architecture) -> Mapping[str, float]:
        """Return the results of an architecture by column."""
        rows = self.rows()
        if architecture.key not in rows:
            raise InputError(
                f"the table has no row for {architecture.key}; it contains the cells of {self.space_class.name}"
            )
        return rows[architecture.key]


def _count_architectures(space: SearchSpace, num_found: int) -> int:
    """Return the number of distinct architectures of ``space``.

    If ``num_found`` equals the number of lists of decisions, or there are too many to compare, return that number.
    """
    num_lists = math.prod(space.decision_sizes)
    if num_found == num_lists or num_lists > MAX_ENUMERATED:
        return num_lists
    return len({space.architecture(choices).key for choices in itertools.product(*map(range, space.decision_sizes))})
