"""Checks of a search that has ended; each returns the problems that it finds, as text."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.fault_injection.search_process import SearchProcess
from nases_env.cli.store import VerifyArgs, run_store_command
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.execution.store import RESULT_COLUMNS, Row
from nases_env.search.run_dir import BEST_DRAWINGS, FINALISTS, REPORT, STORE, read_trajectory

RUN_DIR_FILES = (
    "config.json",
    "evaluations.jsonl",
    "best.json",
    *BEST_DRAWINGS,
    REPORT,
    "events.out.tfevents.*",
    "logs/[0-9a-f]*.log",
)
"""Patterns of the files in a run directory after the search has ended, except for the store."""

OPTIONAL_FILES = (FINALISTS,)
"""Files that are in a run directory only if the reward is noisy."""

CURVE = "search/reward"
NOT_COMPARED = ("seconds", "device")  # fields of a child that are not part of its result

REASONS = {
    "killed": "killed by SIGKILL",
    "timed out": "took longer than",
    "out of memory": "used more than",
    "raised": "raised RuntimeError",
    "exited": "exited with status 3",
}
"""Reasons of failed attempts, and the words with which the log of a search reports them."""

_EXIT_SECONDS = 1.0
_MAX_SHOWN = 5


def compare_trajectories(search: SearchProcess, reference: SearchProcess) -> list[str]:
    """Compare two trajectories, except for wall time and device."""
    ours, theirs = _trajectory(search), _trajectory(reference)
    problems = [] if len(ours) == len(theirs) else [f"{len(ours)} children, not {len(theirs)}"]
    for number, (own, their) in enumerate(zip(ours, theirs, strict=False), start=1):
        names = [name for name in {**own, **their} if own.get(name) != their.get(name)]
        problems += [f"child {number}: {name} is {own.get(name)!r}, not {their.get(name)!r}" for name in names]
    return problems


def compare_stores(search: SearchProcess, reference: SearchProcess) -> list[str]:
    """Check that two stores contain the same children with the same results, each child once."""
    ours, theirs = _rows(search), _rows(reference)
    problems = _duplicates(ours) + _duplicates(theirs)
    results, expected = ({_child(row): _result(row) for row in rows} for rows in (ours, theirs))
    problems += [f"{child} is missing" for child in expected.keys() - results.keys()]
    problems += [f"{child} is not in the reference" for child in results.keys() - expected.keys()]
    for child in expected.keys() & results.keys():
        if results[child] != expected[child]:
            problems.append(f"{child} is {results[child]}, not {expected[child]}")
    return problems


def check_store_content(search: SearchProcess) -> list[str]:
    """Check that the store contains exactly the children of the trajectory, each once."""
    rows = _rows(search)
    expected, found = {record["key"] for record in _trajectory(search)}, {row["key"] for row in rows}
    problems = _duplicates(rows) + [f"{key} is missing" for key in expected - found]
    return problems + [f"{key} is not in the trajectory" for key in found - expected]


def num_repeated(search: SearchProcess) -> int:
    """Return the number of completed evaluations whose result was already in the store."""
    num_completed = sum(entry.event == "completed" for entry in search.control.entries())
    return num_completed - len(_rows(search))


def check_completed(search: SearchProcess, max_repeated: int) -> list[str]:
    """Check that exactly the children in the store were completed, with at most ``max_repeated`` repeated evaluations."""
    completed = {entry.key for entry in search.control.entries() if entry.event == "completed"}
    stored = {row["key"] for row in _rows(search)}
    problems = [f"{key} is in the store but was never completed" for key in stored - completed]
    problems += [f"{key} was completed but is not in the store" for key in completed - stored]
    if (repeated := num_repeated(search)) > max_repeated:
        problems.append(f"{repeated} completed evaluations were repeated; at most {max_repeated} can have been lost")
    return problems


def find_leases(search: SearchProcess) -> list[str]:
    """Return the leases that are still in the store."""
    with Store(search.store, read_only=True) as store:
        return [f"process {lease.pid} holds the lease of {lease.key}" for lease in store.leases()]


def find_processes(search: SearchProcess) -> list[str]:
    """Return the processes of the search that are still running one second after its end."""
    deadline = time.monotonic() + _EXIT_SECONDS
    while (running := search.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {process.pid} is still running" for process in running]


def check_files(search: SearchProcess) -> list[str]:
    """Check that the run directory contains exactly the expected files and that no temporary file remains."""
    own_store = search.store == search.run_dir / STORE
    allowed = (*RUN_DIR_FILES, STORE) if own_store else RUN_DIR_FILES
    found = _files(search.run_dir)
    problems = [
        f"unexpected {name} in the run directory"
        for name in found
        if not any(fnmatch(name, pattern) for pattern in (*allowed, *OPTIONAL_FILES))
    ]
    required = [pattern for pattern in allowed if "*" not in pattern]
    problems += [f"{name} is missing in the run directory" for name in required if name not in found]
    if not own_store:
        siblings = search.store.parent.glob(f"*{search.store.name}?*")
        problems += [f"unexpected {path.name} next to the store" for path in siblings]
    return problems + [f"unexpected {name} in the temporary directory" for name in _files(search.temporary_dir)]


def verify_store(search: SearchProcess) -> list[str]:
    """Run ``nases store verify``; return its exit status and output if it fails."""
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            run_store_command(VerifyArgs(search.store))
    except SystemExit as exit_:
        return [f"exit status {exit_.code}", *output.getvalue().splitlines()]
    return []


def check_curve(search: SearchProcess) -> list[str]:
    """Check that TensorBoard's reward curve equals the rewards of the children, with each step once."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it logs a warning for every restart
    events = EventAccumulator(str(search.run_dir), size_guidance={"scalars": 0}).Reload()
    if CURVE not in events.Tags()["scalars"]:
        return [f"there is no curve {CURVE}"]
    steps = [event.step for event in events.Scalars(CURVE)]
    rewards = {event.step: event.value for event in events.Scalars(CURVE)}
    expected = {record["child"]: record["reward"] for record in _trajectory(search) if not record["is_promotion"]}
    problems = [f"step {step} occurs {number} times" for step, number in Counter(steps).items() if number > 1]
    problems += [f"step {step} is missing" for step in expected.keys() - rewards.keys()]
    problems += [f"step {step} is not in the trajectory" for step in rewards.keys() - expected.keys()]
    for step in rewards.keys() & expected.keys():
        if abs(rewards[step] - expected[step]) > 1e-6:  # TensorBoard stores single precision
            problems.append(f"step {step} is {rewards[step]}, not {expected[step]}")
    return problems


def shorten(problems: Sequence[str]) -> list[str]:
    """Return the first few problems, and a line with the number of the others."""
    more = len(problems) - _MAX_SHOWN
    return [*problems[:_MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def num_resumed_trainings(search: SearchProcess) -> int:
    """Return the number of trainings that were resumed from a checkpoint, according to the logs of the children."""
    logs = (search.run_dir / "logs").glob("*.log")
    return sum(log.read_bytes().count(b"resuming after epoch") for log in logs)


def failed_attempts(search: SearchProcess) -> dict[str, int]:
    """Return the number of failed attempts by reason; attempts that were lost when the search was killed are not counted."""
    output = search.output.read_text(errors="replace")
    return {name: len(re.findall(rf"attempt \d+ of \d+: {words}", output)) for name, words in REASONS.items()}


def _trajectory(search: SearchProcess) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name not in NOT_COMPARED}
        for record in read_trajectory(search.run_dir)
    ]


def _rows(search: SearchProcess) -> list[Row]:
    with Store(search.store, read_only=True) as store:
        return list(store.rows())


def _child(row: Row) -> str:
    return f"{row['key']}, configuration {row['digest'][:8]}, seed {row['seed']}"


def _duplicates(rows: Sequence[Row]) -> list[str]:
    return [f"{child} occurs {number} times" for child, number in Counter(map(_child, rows)).items() if number > 1]


def _result(row: Row) -> dict[str, Any]:
    return {**{name: row[name] for name in (*RESULT_COLUMNS, "genotype", "reason")}, "curve": json.loads(row["curve"])}


def _files(folder: Path) -> list[str]:
    """Return all paths in ``folder``, except for directories named ``logs``."""
    return [
        str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if not (path.is_dir() and path.name == "logs")
    ]


def run_check(check: Callable[..., list[str]], *arguments: Any) -> list[str]:
    """Return the problems that ``check`` finds, or the error message if it cannot read its files."""
    try:
        return check(*arguments)
    except InputError as error:
        return [str(error)]


def run_common_checks(*searches: SearchProcess) -> dict[str, list[str]]:
    """Run the checks that need no second search, and return the problems of all ``searches`` by check."""
    checks = {
        "no lease remains in the store": find_leases,
        "no process is still running": find_processes,
        "no file is missing or unexpected": check_files,
        "nases store verify passes": verify_store,
        "TensorBoard's curve has each child once": check_curve,
    }
    return {name: [problem for search in searches for problem in run_check(check, search)] for name, check in checks.items()}
