"""The kinds of inputs, and the input of a seed and a number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.fault_injection.fuzzing.calls import draw_call
from benchmarks.fault_injection.fuzzing.command_lines import draw_command_line
from benchmarks.fault_injection.fuzzing.files import draw_json, draw_store, draw_tensors
from benchmarks.fault_injection.fuzzing.image_folders import draw_image, draw_image_folder
from benchmarks.fault_injection.fuzzing.inputs import INPUTS, OUTPUTS, FuzzInput
from benchmarks.fault_injection.fuzzing.samples import RUN
from benchmarks.fault_injection.fuzzing.tables import draw_table
from benchmarks.fault_injection.fuzzing.values import write_paths
from nases_env.seeding import numpy_generator

KINDS: dict[str, Callable[[np.random.Generator, Path], FuzzInput]] = {
    "command lines": draw_command_line,
    "JSON files": draw_json,
    "stores": draw_store,
    "tensors": draw_tensors,
    "images": draw_image,
    "image folders": draw_image_folder,
    "tables": draw_table,
    "calls": draw_call,
}
"""Functions that draw an input and write its files, by kind."""

KINDS_WITHOUT_SAMPLES = ("image folders", "tables", "calls")
"""Kinds that need no valid files."""

SHARES = {
    "command lines": 8,
    "JSON files": 2,
    "stores": 2,
    "tensors": 1,
    "tables": 1,
    "image folders": 2,
    "images": 1,
    "calls": 3,
}
"""Relative numbers of inputs; a call takes less time than a command."""

_ORDER = tuple(kind for kind, share in SHARES.items() for _ in range(share))


def kind_of(number: int) -> str:
    """Return the kind of the input ``number`` of a campaign."""
    return _ORDER[number % len(_ORDER)]


def draw_input(kind: str, seed: int, number: int, samples: Path, folder: Path) -> FuzzInput:
    """Return the input ``number`` of a kind. Equal arguments give equal inputs.

    Args:
        kind: a key of ``KINDS``.
        seed: the seed of all inputs.
        number: the number of the input.
        samples: the directory that ``make_samples`` wrote.
        folder: the directory for the files of the input; what it contained is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if kind in KINDS_WITHOUT_SAMPLES:
        (folder / INPUTS).mkdir(parents=True)
    else:
        shutil.copytree(samples, folder / INPUTS)
        shutil.copytree(samples / RUN, folder / OUTPUTS / RUN)
        write_paths(folder)
    return KINDS[kind](numpy_generator(seed, "fuzz", kind, str(number)), folder)
