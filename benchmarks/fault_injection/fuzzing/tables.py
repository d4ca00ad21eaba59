"""Damaged tables of NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.fault_injection.fuzzing.inputs import INPUTS, FuzzInput
from benchmarks.fault_injection.fuzzing.mutations import mutate_bytes
from benchmarks.fault_injection.fuzzing.samples import table_lines
from benchmarks.fault_injection.fuzzing.values import FLOATS, TEXTS, choose
from nases_env.evaluation import NasBench201Evaluator

FIELDS = (
    *TEXTS,
    *FLOATS,
    "100.0001",
    "-0.001",
    '"',
    '"quoted"',
    '"a,b"',
    "a" * 200_000,
    "\0",
    "1\0",
    "1\r2",
    "1;2",
    "0x1p3",
)
ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-7")
WHOLE_FILES = (
    b"",
    b"\n",
    b"\xef\xbb\xbf",
    b"\0" * 1000,
    b",,,,\n",
    b'"',
    b"arch\n",
    b"a" * 1_000_000,
    b"\n" * 100_000,
    b"\x80",
)

Lines = list[str]


def _row(rng: np.random.Generator, lines: Lines) -> int:
    return int(rng.integers(0 if rng.random() < 0.3 else 1, len(lines)))


def _replace_field(rng: np.random.Generator, lines: Lines) -> None:
    index = _row(rng, lines)
    fields = lines[index].split(",")
    fields[rng.integers(len(fields))] = choose(rng, FIELDS)
    lines[index] = ",".join(fields)


def _remove_field(rng: np.random.Generator, lines: Lines) -> None:
    index = _row(rng, lines)
    fields = lines[index].split(",")
    del fields[rng.integers(len(fields))]
    lines[index] = ",".join(fields)


def _remove_column(rng: np.random.Generator, lines: Lines) -> None:
    column = rng.integers(5)
    lines[:] = [",".join(field for number, field in enumerate(line.split(",")) if number != column) for line in lines]


def _swap_columns(rng: np.random.Generator, lines: Lines) -> None:
    first, second = rng.permutation(5)[:2].tolist()
    for index, line in enumerate(lines):
        fields = line.split(",")
        if len(fields) == 5:
            fields[first], fields[second] = fields[second], fields[first]
            lines[index] = ",".join(fields)


def _duplicate_row(rng: np.random.Generator, lines: Lines) -> None:
    lines.insert(_row(rng, lines), lines[_row(rng, lines)])


def _remove_row(rng: np.random.Generator, lines: Lines) -> None:
    del lines[_row(rng, lines)]


def _insert_line(rng: np.random.Generator, lines: Lines) -> None:
    lines.insert(_row(rng, lines), choose(rng, FIELDS))


def _change_separator(rng: np.random.Generator, lines: Lines) -> None:
    separator = choose(rng, (";", "\t", ", ", "|"))
    lines[:] = [line.replace(",", separator) for line in lines]


def _change_cell(rng: np.random.Generator, lines: Lines) -> None:
    index = _row(rng, lines)
    position = rng.integers(len(lines[index]))
    lines[index] = (
        lines[index][:position] + choose(rng, ("|", "~", "+", "9", "é", "\x1b", "")) + lines[index][position + 1 :]
    )


CHANGES: tuple[Callable[[np.random.Generator, Lines], None], ...] = (
    *(_replace_field, _replace_field, _replace_field, _remove_field, _remove_column, _swap_columns, _duplicate_row),
    *(_remove_row, _insert_line, _change_separator, _change_cell, _change_cell),
)


def table_content(rng: np.random.Generator) -> bytes:
    """Return a damaged table; it is complete in half of the cases, so that its values are checked."""
    if rng.random() < 0.1:
        return choose(rng, WHOLE_FILES)
    lines = list(table_lines())
    if rng.random() < 0.5:
        del lines[20:]
    for _ in range(rng.integers(3)):
        choose(rng, CHANGES)(rng, lines)
    end = choose(rng, ("\n", "\n", "\r\n", "\r", "\x0b", "\u2028"))
    text = end.join(lines) + (end if rng.random() < 0.9 else "")
    encoding = "utf-8" if rng.random() < 0.7 else choose(rng, ENCODINGS)
    content = text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    return mutate_bytes(content, rng) if rng.random() < 0.15 else content


def draw_table(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that reads a damaged table."""
    path = folder / INPUTS / "damaged.csv"
    path.write_bytes(table_content(rng))
    rungs = choose(rng, ((), (12,), (12, 200)))
    evaluator = NasBench201Evaluator(path=str(path), rungs=rungs)

    return FuzzInput(f"NasBench201Evaluator(path={path.name!r}, rungs={rungs}).describe()", evaluator.describe)
