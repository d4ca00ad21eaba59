"""A random input: a command line or a call, its execution in this process, and what came out of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shlex
import subprocess
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.common.commands import run_here
from nases_env.errors import InputError

Outcome = Literal["result", "error", "traceback", "hang", "memory", "changed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
VIOLATIONS: tuple[Outcome, ...] = OUTCOMES[2:]

INPUTS, OUTPUTS = "inputs", "outputs"
"""Directories of an input: files that are only read, and files that may be written."""

PROGRESS = ("children in", "seed ", "recorded children")
"""Parts of the lines of progress that a command may print before an error."""

COMMANDS_WITH_SEVERAL_ERRORS = ("predict",)
"""Commands that print one error for each file that cannot be read."""


@dataclass(frozen=True)
class FuzzInput:
    """A random input.

    Attributes:
        text: the command line or the call, on one line.
        run: passes the input to the program.
    """

    text: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Report:
    """What an input resulted in.

    Attributes:
        outcome: one of ``OUTCOMES``. A "result" is a return value or the exit status 0 or 1, an "error" an ``InputError`` or
            one line and the exit status 2. A "traceback" is any other exception, exit status or message.
        detail: the error message, the traceback, or the name of the changed file.
    """

    outcome: Outcome
    detail: str = ""


def command(name: str, main: Callable[[], object], options: list[str]) -> FuzzInput:
    """Return the input that calls the main function of ``name`` with ``options`` as the command line."""
    return FuzzInput(f"{name} {shlex.join(options)}", lambda: run_here(main, *options))


def run_input(given: FuzzInput, folder: Path) -> Report:
    """Run an input in the working directory ``folder`` and return what it resulted in."""
    before = _contents(folder)
    working_directory = Path.cwd()
    os.chdir(folder)
    try:
        with _quiet():
            report = _run(given)
    finally:
        os.chdir(working_directory)
    if report.outcome in VIOLATIONS:
        return report
    after = _contents(folder)
    for path, digest in before.items():
        is_input = path.startswith(INPUTS) or report.outcome == "error"
        if is_input and after.get(path) != digest:
            return Report("changed", path)
    return report


def _run(given: FuzzInput) -> Report:
    try:
        result = given.run()
    except InputError as error:
        return _check_message(str(error))
    except (Exception, SystemExit):
        return Report("traceback", traceback.format_exc())
    if isinstance(result, subprocess.CompletedProcess):
        return _check_process(given, result)
    return Report("result")


def _check_message(message: str) -> Report:
    is_one_line = bool(message.strip()) and len(message.splitlines()) == 1
    return Report("error" if is_one_line else "traceback", message)


def _check_process(given: FuzzInput, result: subprocess.CompletedProcess[str]) -> Report:
    if "Traceback (most recent call last)" in result.stderr:
        return Report("traceback", result.stderr)
    if result.returncode in (0, 1):
        return Report("result")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    others = [
        line for line in result.stderr.splitlines() if line not in errors and not any(part in line for part in PROGRESS)
    ]
    may_repeat = any(f" {name} " in given.text for name in COMMANDS_WITH_SEVERAL_ERRORS)
    if result.returncode == 2 and not others and (len(errors) == 1 or (errors and may_repeat)):
        return Report("error", errors[0])
    return Report("traceback", f"exit status {result.returncode}: {result.stderr}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Print warnings to standard error as a new process does, and discard what calls print."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def _contents(folder: Path) -> dict[str, Any]:
    """Return the digest of each file below ``folder``; links are not followed."""
    digests: dict[str, Any] = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink() and path.is_file():
                digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
