"""The cells that are trained: random ones, and further ones from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity.signals import Numbers
from nases_env.errors import InputError
from nases_env.input_files import read_text
from nases_env.search_spaces import Architecture, get_search_space, parse_architecture
from nases_env.seeding import numpy_generator

FIRST_FURTHER = 1000  # index of the first further cell, so that it does not depend on the number of random ones
MEANS = ("valid_accuracy", "test_accuracy", "worse_random_cells")  # the numbers of the rows of further cells
MAX_REPEATS = 10_000  # repeated samples in a row after which a search space has no other architectures


def sample_cells(search_space: str, num_cells: int, seed: int) -> list[Architecture]:
    """Return distinct random cells; a larger number of cells only adds some.

    Raises:
        InputError: if the search space has too few architectures.
    """
    space, rng = get_search_space(search_space), numpy_generator(seed, "fidelity", "cells")
    cells: dict[str, Architecture] = {}
    num_repeats = 0
    while len(cells) < num_cells:
        cell = space.sample(rng)
        num_repeats = num_repeats + 1 if cell.key in cells else 0
        cells.setdefault(cell.key, cell)
        if num_repeats == MAX_REPEATS:
            raise InputError(f"{search_space} has only {len(cells)} architectures; pass --num-cells {len(cells)} or fewer")
    return list(cells.values())


def read_cells(path: Path, search_space: str) -> list[Architecture]:
    """Return the architectures in a file with one JSON text per line, each like that of ``best.json``.

    Raises:
        InputError: if the file cannot be read or is empty, or a line is not an architecture of the search space.
    """
    advice = "pass a file with one architecture per line"
    lines = read_text(path, advice).splitlines()
    if not lines:
        raise InputError(f"{path} is empty; {advice}")
    return [_parse(line, f"line {number} of {path}", search_space) for number, line in enumerate(lines, 1)]


def _parse(text: str, place: str, search_space: str) -> Architecture:
    try:
        return parse_architecture(text, search_space)[1]
    except InputError as error:
        raise InputError(f"{place} is not a valid architecture ({error})") from None


def describe_further_cells(
    finals: Mapping[tuple[int, int], Mapping[str, Any]], num_seeds: int, random_test_accuracies: Numbers
) -> list[dict[str, Any]]:
    """Return a row for each further cell whose final trainings finished and did not diverge.

    Args:
        finals: the results of the final trainings, by the index of the cell and the number of the seed.
        num_seeds: number of final trainings of each cell.
        random_test_accuracies: mean test accuracies of the random cells, shape (cells,).

    Returns:
        Rows with ``line`` in the file, ``key``, the mean ``valid_accuracy`` and ``test_accuracy``, and
        ``worse_random_cells``, the share of the random cells with a lower mean test accuracy.
    """
    rows = []
    for index in sorted({cell for cell, _ in finals if cell >= FIRST_FURTHER}):
        results = [finals[index, repeat] for repeat in range(num_seeds) if (index, repeat) in finals]
        if len(results) < num_seeds:
            continue
        test_accuracy = float(np.mean([result["test_accuracy"] for result in results]))
        rows.append(
            {
                "line": index - FIRST_FURTHER + 1,
                "key": results[0]["key"],
                "valid_accuracy": float(np.mean([_last_accuracy(result["epochs"]) for result in results])),
                "test_accuracy": test_accuracy,
                "worse_random_cells": float((random_test_accuracies < test_accuracy).mean()),
            }
        )
    return rows


def mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each of ``MEANS`` over at least one row of ``describe_further_cells``."""
    return {name: float(np.mean([row[name] for row in rows])) for name in MEANS}


def _last_accuracy(epochs: Mapping[str, Mapping[str, float]]) -> float:
    return list(epochs.values())[-1]["valid_accuracy"]
