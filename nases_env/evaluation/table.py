"""Base class of evaluators that read the results of all architectures from a CSV file, without training."""

from __future__ import annotations

import csv
import math
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.input_files import read_file
from nases_env.paths import absolute_path
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space


@dataclass(frozen=True)
class TableEvaluator(Evaluator):
    """Read results from the table of a tabular benchmark: a CSV file with a header and one row for each cell.

    Each process reads the file once, and again after it has changed. The seed of an evaluation has no effect.

    Attributes:
        search_space: the search space of the benchmark, or its name; any order of operators.
        path: the table. None: the file in the environment variable ``table_variable``, else ``table_name`` in the directory
            ``NASES_DATA_DIR``.

    Raises:
        InputError: if the search space is another one. ``prepare`` and ``evaluate`` raise it if the table does not exist, is
            incomplete or is invalid.
    """

    benchmark: ClassVar[str]
    """Name of the benchmark, for messages."""

    space_class: ClassVar[type[SearchSpace]]
    """The class of its search space."""

    table_variable: ClassVar[str]
    """Environment variable with the path of the table."""

    table_name: ClassVar[str]
    """Name of the table in the directory ``NASES_DATA_DIR``."""

    table_hint: ClassVar[str]
    """What to use instead of a file that is not valid."""

    is_expensive = False
    is_noisy = False

    search_space: str | SearchSpace
    path: str | None = None

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if not isinstance(space, self.space_class):
            raise InputError(
                f"the table of {self.benchmark} requires the search space {self.space_class.name}, not {space.name}"
            )

    @classmethod
    @abstractmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of numbers to read; empty if ``header`` is not that of a table of the benchmark."""

    @classmethod
    @abstractmethod
    def parse_architecture(cls, text: str) -> Architecture:
        """Parse the first entry of a row.

        Raises:
            InputError: if it is not valid; the message is the reason.
        """

    @classmethod
    @abstractmethod
    def parse_value(cls, column: str, text: str, value: float) -> float:
        """Return the result for an entry.

        Args:
            column: its column.
            text: the entry.
            value: ``text`` as a number, possibly infinite or NaN.

        Raises:
            InputError: if it is out of range; the message is the reason.
        """

    @property
    def table(self) -> Path:
        """The file that is read.

        Raises:
            InputError: if there is none.
        """
        named = self.path or os.environ.get(self.table_variable)
        if named:
            return absolute_path(named)
        data_dir = os.environ.get("NASES_DATA_DIR")
        if data_dir and (table := absolute_path(data_dir) / self.table_name).is_file():
            return table
        raise InputError(
            f"no table of {self.benchmark}: set table or the environment variable {self.table_variable} to its CSV file, or "
            f"put {self.table_name} into the directory NASES_DATA_DIR ({data_dir or 'not set'})"
        )

    def prepare(self) -> None:
        self.rows()

    def rows(self) -> Mapping[str, Mapping[str, float]]:
        """Return the results of all architectures: by key, then by column."""
        path = self.table
        try:
            status = path.stat()
        except OSError as error:
            raise _read_error(self, path, error) from error
        return _read_table(type(self), path, status.st_mtime_ns, status.st_size)

    def row(self, architecture: Architecture) -> Mapping[str, float]:
        """Return the results of an architecture by column."""
        rows = self.rows()
        if architecture.key not in rows:
            raise InputError(
                f"the table has no row for {architecture.key}; it contains the cells of {self.space_class.name}"
            )
        return rows[architecture.key]


@lru_cache(maxsize=4)
def _read_table(benchmark: type[TableEvaluator], path: Path, mtime_ns: int, size: int) -> dict[str, dict[str, float]]:
    """Return the rows of a table by architecture key. ``mtime_ns`` and ``size`` invalidate the cache if the file changes."""
    name, hint = benchmark.benchmark, benchmark.table_hint
    try:
        text = read_file(path).decode("utf-8-sig")
        header, *lines = csv.reader(text.splitlines(), strict=True)
    except OSError as error:
        raise _read_error(benchmark, path, error) from error
    except (ValueError, csv.Error):  # not text, empty, or unbalanced quotes
        raise InputError(f"{path} is not a valid CSV file; {hint}") from None
    columns = benchmark.select_columns(tuple(header))
    if not columns:
        raise InputError(f"{path} is not a table of {name}: its header is different; {hint}")
    if not text.endswith("\n"):
        raise InputError(f"{path} is truncated: its last line is incomplete; copy the whole file again")

    indices = {column: header.index(column) for column in columns}
    rows: dict[str, dict[str, float]] = {}
    line_numbers: dict[str, int] = {}
    for number, fields in enumerate(lines, start=2):
        try:
            if len(fields) != len(header):
                raise InputError(f"it has {len(fields)} entries")
            key = benchmark.parse_architecture(fields[0]).key
            row = {column: _parse(benchmark, column, fields[index]) for column, index in indices.items()}
        except InputError as error:
            raise InputError(f"line {number} of {path} is not a valid row ({error}); {hint}") from None
        if key in rows:
            raise InputError(
                f"lines {line_numbers[key]} and {number} of {path} are both for {fields[0]}; remove the wrong one"
            )
        rows[key], line_numbers[key] = row, number
    num_cells = math.prod(benchmark.space_class().decision_sizes)
    if len(rows) < num_cells:
        raise InputError(
            f"{path} is truncated: it has {len(rows):,} of {name}'s {num_cells:,} cells; copy the whole file again"
        )
    return rows


def _parse(benchmark: type[TableEvaluator], column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number") from None
    return benchmark.parse_value(column, text, value)


def _read_error(benchmark: TableEvaluator | type[TableEvaluator], path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"cannot read the table {path} ({reason}); set table or {benchmark.table_variable} to the CSV file")
