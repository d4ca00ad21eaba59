"""Evaluation by the tabular benchmark NAS-Bench-201, without training."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.hashing import sha256_hex
from nases_env.input_files import read_file
from nases_env.paths import absolute_path
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201

TABLE_VARIABLE = "NASES_NASBENCH201_TABLE"
TABLE_NAME = "nasbench201-cifar10.csv"
HEADER = ("arch", "valid_accuracy_12_epochs", "test_accuracy_12_epochs", "test_accuracy_200_epochs")
COLUMN_200 = "valid_accuracy_200_epochs"  # optional fifth column
TABLE_FORMAT_HINT = f"use a CSV file with the header {','.join(HEADER)} and accuracies in percent"
NUM_ROWS = 15_625  # one per cell
RUNGS = (12, 200)  # epochs after which the table has validation accuracies


@dataclass(frozen=True)
class NasBench201Evaluator(Evaluator):
    """Return the validation accuracy that a cell of NAS-Bench-201 reached after 12 or 200 epochs, read from a table.

    The table is a CSV file with the header ``arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,
    test_accuracy_200_epochs`` and one row for each of the 15,625 cells: its string and three accuracies in percent. Each
    process reads it once, and again after the file has changed. A fifth column ``valid_accuracy_200_epochs`` is needed for
    the rung of 200 epochs. The seed of an evaluation has no effect. The table has no training accuracies, parameters or
    FLOPs; they are 0.

    Attributes:
        search_space: ``"nasbench201"``, or a ``NasBench201`` with a different order of operators.
        path: the table. None: the file in the environment variable ``NASES_NASBENCH201_TABLE``, else
            ``nasbench201-cifar10.csv`` in the directory ``NASES_DATA_DIR``.
        rungs: (12, 200), or one of them; empty: 12 epochs without rungs.
        fidelity: the rung of ``evaluate``; None: the last one, or 12 epochs without rungs. Use ``at_fidelity``.

    Raises:
        InputError: if the search space is not NAS-Bench-201, or the rungs are others. ``prepare``, ``evaluate`` and
            ``report_test_accuracy`` raise it if the table does not exist, is incomplete or is invalid.
    """

    search_space: str | SearchSpace = "nasbench201"
    path: str | None = None
    rungs: tuple[int, ...] = ()
    fidelity: int | None = None

    is_expensive = False
    is_noisy = False

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if not isinstance(space, NasBench201):
            raise InputError(f"the table of NAS-Bench-201 requires the search space nasbench201, not {space.name}")
        if self.rungs not in ((), *((rung,) for rung in RUNGS), RUNGS):
            raise InputError(f"the rungs of NAS-Bench-201 are 12 and 200 epochs, not {', '.join(map(str, self.rungs))}")
        if self.fidelity is not None:
            self.require_rung(self.fidelity)

    @property
    def table(self) -> Path:
        """The file that is read.

        Raises:
            InputError: if there is none.
        """
        return _find_table(self.path)

    def prepare(self) -> None:
        self._rows()

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        num_epochs = self.fidelity or (self.rungs[-1] if self.rungs else RUNGS[0])
        row = self._row(architecture)
        accuracy = row.valid_accuracy if num_epochs == RUNGS[0] else row.valid_accuracy_200
        assert accuracy is not None, "checked when the table was read"
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=accuracy / 100, num_epochs=num_epochs)

    def describe(self) -> dict[str, Any]:
        """Describe the table by the digest of its accuracies; neither the path nor the order of operators matters."""
        has_200 = RUNGS[-1] in self.rungs
        rows = sorted((key, tuple(row) if has_200 else tuple(row)[:2]) for key, row in self._rows().items())
        return {"evaluator": "nasbench201 table", "table": sha256_hex(repr(rows)), **self.describe_rungs()}

    def report_test_accuracy(self, architecture: Architecture) -> float:
        """Return the test accuracy, in [0, 1], of the cell after 200 epochs.

        Use it only to report the result of a finished search. Using it during a search, or to choose hyperparameters, leaks
        test data.
        """
        return self._row(architecture).test_accuracy / 100

    def _row(self, architecture: Architecture) -> _Row:
        rows = self._rows()
        if architecture.key not in rows:
            raise InputError(f"the table has no row for {architecture.key}; it contains the cells of nasbench201")
        return rows[architecture.key]

    def _rows(self) -> dict[str, _Row]:
        path = self.table
        try:
            status = path.stat()
        except OSError as error:
            raise _read_error(path, error) from error
        rows = _read_table(path, status.st_mtime_ns, status.st_size)
        if RUNGS[-1] in self.rungs and next(iter(rows.values())).valid_accuracy_200 is None:
            raise InputError(
                f"the table {path} lacks the column {COLUMN_200}, which the rung of 200 epochs needs; add it, or omit this "
                "rung"
            )
        return rows


class _Row(NamedTuple):
    valid_accuracy: float  # percent, after 12 epochs
    test_accuracy: float  # percent, after 200 epochs
    valid_accuracy_200: float | None  # percent, after 200 epochs; None if the table lacks it


def _find_table(path: str | None) -> Path:
    named = path or os.environ.get(TABLE_VARIABLE)
    if named:
        return absolute_path(named)
    data_dir = os.environ.get("NASES_DATA_DIR")
    if data_dir and (table := absolute_path(data_dir) / TABLE_NAME).is_file():
        return table
    raise InputError(
        f"no table of NAS-Bench-201: set table or the environment variable {TABLE_VARIABLE} to its CSV file, or put "
        f"{TABLE_NAME} into the directory NASES_DATA_DIR ({data_dir or 'not set'})"
    )


@lru_cache(maxsize=4)
def _read_table(path: Path, mtime_ns: int, size: int) -> dict[str, _Row]:
    """Return the rows of a table by architecture key. ``mtime_ns`` and ``size`` invalidate the cache if the file changes."""
    try:
        text = read_file(path).decode("utf-8-sig")
        header, *lines = csv.reader(text.splitlines(), strict=True)
    except OSError as error:
        raise _read_error(path, error) from error
    except (ValueError, csv.Error):  # not text, empty, or unbalanced quotes
        raise InputError(f"{path} is not a valid CSV file; {TABLE_FORMAT_HINT}") from None
    if tuple(header) not in (HEADER, (*HEADER, COLUMN_200)):
        raise InputError(f"{path} is not a table of NAS-Bench-201: its header is different; {TABLE_FORMAT_HINT}")
    if not text.endswith("\n"):
        raise InputError(f"{path} is truncated: its last line is incomplete; copy the whole file again")

    space = NasBench201()
    rows: dict[str, _Row] = {}
    first_lines: dict[str, int] = {}
    for number, fields in enumerate(lines, start=2):
        if len(fields) != len(header):
            raise _invalid_row_error(path, number, f"it has {len(fields)} entries")
        try:
            key = space.from_string(fields[0]).key
        except InputError as error:
            raise _invalid_row_error(path, number, str(error)) from None
        if key in rows:
            raise InputError(
                f"lines {first_lines[key]} and {number} of {path} are both for {fields[0]}; remove the wrong one"
            )
        valid_accuracy, _, test_accuracy, *others = (_accuracy(path, number, field) for field in fields[1:])
        rows[key] = _Row(valid_accuracy, test_accuracy, others[0] if others else None)
        first_lines[key] = number
    if len(rows) < NUM_ROWS:
        raise InputError(
            f"{path} is truncated: it has {len(rows):,} of NAS-Bench-201's {NUM_ROWS:,} cells; copy the whole file again"
        )
    return rows


def _accuracy(path: Path, line: int, text: str) -> float:
    try:
        accuracy = float(text)
    except ValueError:
        raise _invalid_row_error(path, line, f"{text!r} is not a number") from None
    if not 0.0 <= accuracy <= 100.0:
        raise _invalid_row_error(path, line, f"{text} is not an accuracy in percent")
    return accuracy


def _invalid_row_error(path: Path, line: int, reason: str) -> InputError:
    return InputError(f"line {line} of {path} is not a valid row ({reason}); {TABLE_FORMAT_HINT}")


def _read_error(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"cannot read the table {path} ({reason}); set table or {TABLE_VARIABLE} to the CSV file")
