"""Words of command lines and values of calls: of the right type, of a wrong type, and extreme ones.

Numbers are at most 3, negative, or so large that they are rejected: a valid command may ask for any amount of work, such as
a budget of a million children, which would not be an error.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from benchmarks.fault_injection.fuzzing.inputs import INPUTS, OUTPUTS

Value = TypeVar("Value")

INTEGERS = ("0", "1", "2", "3", "-1", "-3", "+1", "007", "1_0", str(-(2**63)), str(2**63), str(10**30), "9" * 5000)
FLOATS = (
    *INTEGERS,
    "0.5",
    "1.5",
    "-0.5",
    "-0.0",
    "1e-320",
    "1e-30",
    "1e30",
    "1e308",
    "-1e308",
    "1e999",
    "inf",
    "-inf",
    "nan",
)
BOOLEANS = ("True", "False", "true", "0", "yes")
TEXTS = (
    *(
        "",
        " ",
        "x",
        "é",
        "日本語",
        "\udcff",
        "a\u0301",
        "\u202e",
        "\ufeff",
        "\x1b[31mred\x1b[0m",
        "line\nline",
        "\t",
        "a" * 300,
    ),
    *(
        "-",
        "--",
        "---",
        "-x",
        "--x",
        "--help=x",
        "-1",
        "=",
        "x=1",
        ",",
        "1,2",
        "[]",
        "{}",
        "()",
        "[1",
        "{'a': 1}",
        "%s",
        "{0}",
    ),
    *("*", "?", "~", "~nobody-of-this-name/x", "$HOME", "..", "null", "nan", "inf", "1e999", "0x10", "1/2", "\u0661", "1 2"),
    *(
        "os:path",
        "json:JSONDecoder",
        "nases_env.errors:InputError",
        ":",
        "x:",
        ":x",
        "a:b:c",
        "a.b:C",
        "é:É",
        "..:x",
        "[red]",
    ),
    *("cpu", "cuda", "cuda:99", "meta", "mps", "cpu:1", "xla", "smoke", "digits", "enas_micro", "nasbench201", "ok"),
)
"""Words of any meaning. No word is "None": the default of an option may be a long training."""

READ_PATHS = (
    *("file.txt", "empty.txt", "directory", "missing", "missing/file", "null", "loop", "dangling", "file.txt/x", "a" * 300),
    *("binary.bin", "image.png", "truncated.png", "store.sqlite", "best.json", "run", "final", "model.safetensors"),
    *("embedding.safetensors", "table.csv", "images", "\udcff", "new\nline", "[red].json", "run/config.json"),
)
"""Paths in ``inputs``; a few do not exist. No path is a named pipe: a command that reads it waits for its writer."""

DEVICES = ("/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", "/", ".", "..", "", "/nonexistent", "/dev/null/x")
"""Paths that are read. None of them is written to: the superuser may replace a device by a file."""

WRITTEN_PATHS = (
    *(
        "new",
        "new.json",
        "new.png",
        "new.svg",
        "new.pdf",
        "new.xyz",
        "new.safetensors",
        "new.onnx",
        "new.pt2",
        "deep/er/new.csv",
    ),
    *(
        "occupied.txt",
        "occupied.txt/x",
        "directory",
        ".",
        "null",
        "loop",
        "dangling",
        "pipe",
        "\udcff",
        "new\nline",
        "[red]",
    ),
    *("a" * 255, "a" * 300, "é.json", " ", ".hidden"),
)
"""Paths in ``outputs``."""


def choose(rng: np.random.Generator, values: Sequence[Value]) -> Value:
    """Return one of ``values``."""
    return values[int(rng.integers(len(values)))]


def read_path(rng: np.random.Generator) -> str:
    """Return a path that a command reads."""
    return choose(rng, DEVICES) if rng.random() < 0.2 else f"{INPUTS}/{choose(rng, READ_PATHS)}"


def written_path(rng: np.random.Generator) -> str:
    """Return a path that a command writes to."""
    return (
        choose(rng, ("/proc/nonexistent/x", "/dev/null/x"))
        if rng.random() < 0.1
        else f"{OUTPUTS}/{choose(rng, WRITTEN_PATHS)}"
    )


def words(rng: np.random.Generator, hint: Any) -> list[str]:
    """Return the words of the value of an option with the type ``hint``; most of them have this type."""
    if rng.random() < 0.3:
        return [choose(rng, (*TEXTS, *FLOATS, *BOOLEANS))]
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return [str(choose(rng, arguments))]
    if origin in (typing.Union, types.UnionType):
        return words(rng, choose(rng, [each for each in arguments if each is not type(None)]))
    if origin is typing.Annotated:
        return words(rng, arguments[0])
    if origin in (tuple, list):
        return [word for _ in range(rng.integers(4)) for word in words(rng, arguments[0])]
    if origin is dict:
        return [choose(rng, TEXTS) for _ in range(rng.integers(5))]
    if hint is bool:
        return [choose(rng, BOOLEANS)]
    if hint is int:
        return [choose(rng, INTEGERS)]
    if hint is float:
        return [choose(rng, FLOATS)]
    return [read_path(rng) if hint is Path else choose(rng, TEXTS)]


def write_paths(folder: Path) -> None:
    """Create the files, directories and links in ``folder`` that paths name."""
    for directory in (folder / INPUTS, folder / OUTPUTS):
        (directory / "directory").mkdir(parents=True, exist_ok=True)
        (directory / "null").symlink_to("/dev/null")
        (directory / "loop").symlink_to("loop")
        (directory / "dangling").symlink_to("nowhere")
    (folder / INPUTS / "file.txt").write_text("text\n")
    (folder / INPUTS / "empty.txt").touch()
    (folder / INPUTS / "binary.bin").write_bytes(bytes(range(256)))
    (folder / OUTPUTS / "occupied.txt").write_text("kept\n")
    os.mkfifo(folder / OUTPUTS / "pipe")
