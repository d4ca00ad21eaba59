"""The evaluator that trains nothing: it looks children up in a table of NAS-Bench-201."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from nases_env.errors import InputError
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201

TABLE_VARIABLE = "NASES_NASBENCH201_TABLE"
TABLE_NAME = "nasbench201-cifar10.csv"
HEADER = ("arch", "valid_accuracy_12_epochs", "test_accuracy_12_epochs", "test_accuracy_200_epochs")
WHAT_A_TABLE_IS = f"give a CSV file with the header {','.join(HEADER)} and accuracies in percent"
NUM_ROWS = 15_625  # one for each cell
NUM_EPOCHS = 12  # of the trainings whose validation accuracies are the rewards


@dataclass(frozen=True)
class NasBench201Evaluator(Evaluator):
    """Looks up the validation accuracy that a cell of NAS-Bench-201 reached after 12 epochs.

    The table is a CSV file with the header ``arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,
    test_accuracy_200_epochs`` and a row for each of the 15,625 cells: its string and three accuracies in percent. It is read
    once a process, and again where the file has changed. The seed of an evaluation does not matter. An evaluation says
    nothing of training accuracy, parameters or operations, which are 0.

    Attributes:
        search_space: ``"nasbench201"``, or a ``NasBench201`` with the operators in another order.
        path: the table; None looks for the file that the environment variable ``NASES_NASBENCH201_TABLE`` names, else for
            ``nasbench201-cifar10.csv`` in the folder that ``NASES_DATA_DIR`` names.

    Raises:
        InputError: if the search space is another. ``prepare``, ``evaluate`` and ``report_test_accuracy``: if there is no
            table, or it is not such a table as a whole.
    """

    search_space: str | SearchSpace = "nasbench201"
    path: str | None = None

    is_expensive = False

    def __post_init__(self) -> None:
        space = get_search_space(self.search_space)
        if not isinstance(space, NasBench201):
            raise InputError(f"a table of NAS-Bench-201 has the cells of nasbench201, not those of {space.name}")

    def prepare(self) -> None:
        self._rows()

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        row = self._row(architecture)
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=row.valid_accuracy / 100, num_epochs=NUM_EPOCHS)

    def describe(self) -> dict[str, Any]:
        """The table by its accuracies, wherever it lies; keys do not depend on the order of the operators."""
        rows = sorted((key, tuple(row)) for key, row in self._rows().items())
        return {"evaluator": "nasbench201 table", "table": hashlib.sha256(repr(rows).encode()).hexdigest()}

    def report_test_accuracy(self, architecture: Architecture) -> float:
        """The share of the test images, in [0, 1], that the cell classifies correctly after 200 epochs.

        It is there to report what a search has found. A search that looks at it before its end cheats, and so does who
        chooses the settings of one by it.
        """
        return self._row(architecture).test_accuracy / 100

    def _row(self, architecture: Architecture) -> _Row:
        rows = self._rows()
        if architecture.key not in rows:
            raise InputError(f"the table has the cells of nasbench201, and not {architecture.key}")
        return rows[architecture.key]

    def _rows(self) -> dict[str, _Row]:
        path = _find_table(self.path)
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        return _read_table(path, status.st_mtime_ns, status.st_size)


class _Row(NamedTuple):
    valid_accuracy: float  # percent, after 12 epochs
    test_accuracy: float  # percent, after 200 epochs


def _find_table(path: str | None) -> Path:
    named = path or os.environ.get(TABLE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    folder = os.environ.get("NASES_DATA_DIR")
    if folder and (table := Path(folder).expanduser().absolute() / TABLE_NAME).is_file():
        return table
    raise InputError(
        f"no table of NAS-Bench-201: set table or the environment variable {TABLE_VARIABLE} to its CSV file, or put "
        f"{TABLE_NAME} into the folder that NASES_DATA_DIR names ({folder or 'which is not set'})"
    )


@lru_cache(maxsize=4)
def _read_table(path: Path, mtime_ns: int, size: int) -> dict[str, _Row]:
    """The rows of a table by the architectures' keys; the time and the size tell a file that has changed."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            text = file.read()
        header, *lines = csv.reader(text.splitlines(), strict=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, csv.Error):  # no text, no line, or wrong quotes
        raise InputError(f"{path} is no CSV file; {WHAT_A_TABLE_IS}") from None
    if tuple(header) != HEADER:
        raise InputError(f"{path} is no table of NAS-Bench-201, its first line is another; {WHAT_A_TABLE_IS}")
    if not text.endswith("\n"):
        raise InputError(f"{path} is truncated: its last line has no end; copy the whole file again")

    space = NasBench201()
    rows: dict[str, _Row] = {}
    first_lines: dict[str, int] = {}
    for number, fields in enumerate(lines, start=2):
        if len(fields) != len(HEADER):
            raise _foreign(path, number, f"it has {len(fields)} entries")
        try:
            key = space.from_string(fields[0]).key
        except InputError as error:
            raise _foreign(path, number, str(error)) from None
        if key in rows:
            raise InputError(
                f"lines {first_lines[key]} and {number} of {path} are both about {fields[0]}; remove the one that does not "
                "belong there"
            )
        valid_accuracy, _, test_accuracy = (_accuracy(path, number, field) for field in fields[1:])
        rows[key] = _Row(valid_accuracy, test_accuracy)
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
        raise _foreign(path, line, f"{text!r} is no number") from None
    if not 0.0 <= accuracy <= 100.0:
        raise _foreign(path, line, f"{text} is no accuracy in percent")
    return accuracy


def _foreign(path: Path, line: int, reason: str) -> InputError:
    return InputError(f"line {line} of {path} does not belong in a table of NAS-Bench-201 ({reason}); {WHAT_A_TABLE_IS}")


def _unreadable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"cannot read the table {path} ({reason}); set table or {TABLE_VARIABLE} to the CSV file")
