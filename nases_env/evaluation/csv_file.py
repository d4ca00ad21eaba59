"""Base class of evaluators that read a CSV file: where the file is, and its header and lines."""

from __future__ import annotations

import csv
import io
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.first_read import FirstRead
from nases_env.hashing import sha256_hex
from nases_env.input_files import read_file
from nases_env.paths import absolute_path
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: its line number.
        text: the entries that describe the architecture.
        architecture: the architecture.
        values: the results by column.
    """

    line: int
    text: str
    architecture: Architecture
    values: dict[str, float]


@dataclass(frozen=True)
class CSVEvaluator(Evaluator):
    """Reads results of architectures from a CSV file, the table, without training.

    Each process reads the file once. A change is an error for an evaluator that has read the file, because its description,
    by which results are stored, is that of the earlier content. The seed of an evaluation has no effect.

    Attributes:
        search_space: the search space of the benchmark, or its name; any order of operators.
        path: the table. None: the file in the environment variable ``table_variable``, else ``table_name`` in the directory
            ``NASES_DATA_DIR``.
        first_read: the digest of the table when this evaluator, or a copy in another process, first read it.

    Raises:
        InputError: if the search space is another one. ``prepare`` and ``evaluate`` raise it if the table does not exist, is
            invalid, or has changed since the evaluator first read it.
    """

    benchmark: ClassVar[str]
    """Name of the benchmark, for messages."""

    space_class: ClassVar[type[SearchSpace]]
    """The class of its search space."""

    table_variable: ClassVar[str]
    """Environment variable with the path of the table."""

    table_name: ClassVar[str]
    """Name of the table in the directory ``NASES_DATA_DIR``."""

    architecture_columns: ClassVar[tuple[str, ...]] = ("arch",)
    """The columns that describe the architecture of a row."""

    is_expensive = False
    is_noisy = False

    search_space: str | SearchSpace
    path: str | Path | None = None
    first_read: FirstRead = field(default_factory=FirstRead, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if not isinstance(space, self.space_class):
            raise InputError(
                f"the table of {self.benchmark} requires the search space {self.space_class.name}, not {space.name}"
            )

    @classmethod
    @abstractmethod
    def table_hint(cls) -> str:
        """Return what to use instead of a file that is not valid, for messages."""

    @classmethod
    @abstractmethod
    def select_columns(cls, header: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of numbers to read; empty if ``header`` is not that of a table of the benchmark.

        Args:
            header: distinct names, including ``architecture_columns``.
        """

    @classmethod
    def parse_architecture(cls, text: str) -> Architecture:
        """Parse the entries of a row in the columns ``architecture_columns``, joined by commas, with ``from_string``.

        Raises:
            InputError: if they are not valid; the message is the reason.
        """
        return default_space(cls.space_class).from_string(text)

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

    @classmethod
    @abstractmethod
    def collect(cls, path: Path, rows: Sequence[Row]) -> Any:
        """Return what ``content`` returns for the rows of the table at ``path``.

        Raises:
            InputError: if rows are missing, or contradict each other.
        """

    @property
    def file_name(self) -> str:
        """The name of the table in the directory ``NASES_DATA_DIR``."""
        return self.table_name

    @property
    def file_variable(self) -> str | None:
        """The environment variable with the path of the table; None: there is none."""
        return self.table_variable

    @property
    def table(self) -> Path:
        """The file that is read.

        Raises:
            InputError: if there is none.
        """
        variable = self.file_variable
        named = self.path or (variable and os.environ.get(variable))
        if named:
            return absolute_path(named)
        data_dir = os.environ.get("NASES_DATA_DIR")
        if data_dir and (table := absolute_path(data_dir) / self.file_name).is_file():
            return table
        ways = "set table (--env-kwargs table FILE)" + (f" or the environment variable {variable}" if variable else "")
        raise InputError(
            f"no table of {self.benchmark}: {ways} to its CSV file, or put {self.file_name} into the directory "
            f"NASES_DATA_DIR ({data_dir or 'not set'})"
        )

    def content(self) -> Any:
        """Return the result of ``collect`` for the table.

        Raises:
            InputError: if it cannot be read, is invalid, or has changed since it was first read.
        """
        path = self.table
        try:
            status = path.stat()
            digest, content = _read_content(type(self), path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            ways = " or ".join(filter(None, ("table", self.file_variable)))
            raise InputError(
                f"cannot read the table {path} ({error.strerror or error}); set {ways} to the CSV file"
            ) from error
        self.first_read.require_same(self.benchmark, digest, f"the table {path} has")
        return content


@lru_cache(maxsize=4)
def default_space(space_class: type[SearchSpace]) -> SearchSpace:
    """Return an instance of ``space_class``. The rows of a table share it, because it takes time to create."""
    return space_class()


@lru_cache(maxsize=4)
def _read_content(benchmark: type[CSVEvaluator], path: Path, mtime_ns: int, size: int) -> tuple[str, Any]:
    """Return the SHA-256 of a table and its content. ``mtime_ns`` and ``size`` invalidate the cache if the file changes."""
    hint = benchmark.table_hint()
    try:
        encoded = read_file(path)
        text = encoded.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        (_, header), *rows = ((reader.line_num, entries) for entries in reader)
    except (ValueError, csv.Error):  # not text, empty, or unbalanced quotes
        raise InputError(f"{path} is not a valid CSV file; {hint}") from None
    is_table = len(set(header)) == len(header) and {*benchmark.architecture_columns} <= {*header}
    columns = benchmark.select_columns(tuple(header)) if is_table else ()
    if not columns:
        raise InputError(f"{path} is not a table of {benchmark.benchmark}: its header is different; {hint}")
    if not text.endswith("\n"):
        raise InputError(f"{path} is truncated: its last line is incomplete; copy the whole file again")
    return sha256_hex(encoded), benchmark.collect(path, list(_parse_rows(benchmark, path, columns, header, rows)))


def _parse_rows(
    benchmark: type[CSVEvaluator],
    path: Path,
    columns: Sequence[str],
    header: list[str],
    rows: list[tuple[int, list[str]]],
) -> Iterator[Row]:
    """Parse ``rows``, with the numbers of their last lines."""
    described_by = [header.index(column) for column in benchmark.architecture_columns]
    indices = {column: header.index(column) for column in columns}
    for number, entries in rows:
        try:
            if len(entries) != len(header):
                raise InputError(f"it has {len(entries)} entries")
            text = ",".join(entries[index] for index in described_by)
            architecture = benchmark.parse_architecture(text)
            values = {column: _parse_number(benchmark, column, entries[index]) for column, index in indices.items()}
        except InputError as error:
            raise InputError(f"line {number} of {path} is not a valid row ({error}); {benchmark.table_hint()}") from None
        yield Row(number, text, architecture, values)


def _parse_number(benchmark: type[CSVEvaluator], column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number") from None
    return benchmark.parse_value(column, text, value)
