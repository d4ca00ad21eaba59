"""What must be true of a search that has ended, whatever was done to it: each check gives what is wrong."""

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
from nases_env.search.run_dir import STORE, read_trajectory

RUN_FOLDER = (
    "config.json",
    "evaluations.jsonl",
    "best.json",
    "best.png",
    "best.svg",
    "events.out.tfevents.*",
    "logs/[0-9a-f]*.log",
)
"""What a run folder may hold when its search has ended, beside its store."""

CURVE = "search/reward"
NOT_REPEATED = ("seconds", "device")  # of a child, which are no part of its result

REASONS = {
    "killed": "killed by SIGKILL",
    "timed out": "took longer than",
    "out of memory": "occupied more than",
    "raised": "raised RuntimeError",
    "exited": "exited with status 3",
}
"""Why attempts at children fail, by the words in which a search says so."""

_END_SECONDS = 1.0
_MAX_SHOWN = 5


def trajectory_differs(search: SearchProcess, other: SearchProcess) -> list[str]:
    """Where two trajectories are not equal in all but the wall time and the device."""
    ours, theirs = _trajectory(search), _trajectory(other)
    problems = [] if len(ours) == len(theirs) else [f"{len(ours)} children, not {len(theirs)}"]
    for number, (own, their) in enumerate(zip(ours, theirs, strict=False), start=1):
        names = [name for name in {**own, **their} if own.get(name) != their.get(name)]
        problems += [f"child {number}: {name} is {own.get(name)!r}, not {their.get(name)!r}" for name in names]
    return problems


def store_differs(search: SearchProcess, other: SearchProcess) -> list[str]:
    """Where two stores do not hold the same children with the same results, or hold one twice."""
    ours, theirs = _rows(search), _rows(other)
    problems = _repeats(ours) + _repeats(theirs)
    results, expected = ({_child(row): _result(row) for row in rows} for rows in (ours, theirs))
    problems += [f"{child} is missing" for child in expected.keys() - results.keys()]
    problems += [f"{child} is not one of the search" for child in results.keys() - expected.keys()]
    for child in expected.keys() & results.keys():
        if results[child] != expected[child]:
            problems.append(f"{child} is {results[child]}, not {expected[child]}")
    return problems


def store_lacks(search: SearchProcess) -> list[str]:
    """Where the store does not hold the children of the trajectory, each once, and no others."""
    rows = _rows(search)
    expected, found = {record["key"] for record in _trajectory(search)}, {row["key"] for row in rows}
    problems = _repeats(rows) + [f"{key} is missing" for key in expected - found]
    return problems + [f"{key} is not one of the search" for key in found - expected]


def num_repeated(search: SearchProcess) -> int:
    """Evaluations that were completed, of children that had been completed before."""
    completed = Counter(entry.key for entry in search.faults.entries() if entry.what == "completed")
    return completed.total() - len(completed)


def completions_differ(search: SearchProcess, max_repeated: int) -> list[str]:
    """Where not just the children of the store were completed, or more were completed again than can be."""
    completed = {entry.key for entry in search.faults.entries() if entry.what == "completed"}
    stored = {row["key"] for row in _rows(search)}
    problems = [f"{key} is in the store and was never completed" for key in stored - completed]
    problems += [f"{key} was completed and is not in the store" for key in completed - stored]
    if (repeated := num_repeated(search)) > max_repeated:
        problems.append(f"{repeated} completed evaluations were repeated; at most {max_repeated} can have been lost")
    return problems


def claims_left(search: SearchProcess) -> list[str]:
    """Claims that are still in the store."""
    with Store(search.store, read_only=True) as store:
        return [f"process {lease.pid} leases {lease.key}" for lease in store.leases()]


def processes_left(search: SearchProcess) -> list[str]:
    """Processes of the search that still run, a moment after it has ended."""
    deadline = time.monotonic() + _END_SECONDS
    while (left := search.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {process.pid} runs" for process in left]


def files_left(search: SearchProcess) -> list[str]:
    """What lies in the run folder and is none of its files, what is missing there, and what lies among temporary files."""
    own_store = search.store == search.run_dir / STORE
    allowed = (*RUN_FOLDER, STORE) if own_store else RUN_FOLDER
    found = _files(search.run_dir)
    problems = [f"{name} is left in the run folder" for name in found if not any(fnmatch(name, way) for way in allowed)]
    needed = [way for way in allowed if "*" not in way]
    problems += [f"{name} is missing in the run folder" for name in needed if name not in found]
    if not own_store:
        beside = search.store.parent.glob(f"*{search.store.name}?*")
        problems += [f"{path.name} is left beside the store" for path in beside]
    return problems + [f"{name} is left among the temporary files" for name in _files(search.temporary_dir)]


def store_is_wrong(search: SearchProcess) -> list[str]:
    """What ``nases store verify`` says where it does not pass."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            run_store_command(VerifyArgs(search.store))
    except SystemExit as ended:
        return [f"status {ended.code}", *said.getvalue().splitlines()]
    return []


def curve_differs(search: SearchProcess) -> list[str]:
    """Where TensorBoard's curve of rewards is not that of the trajectory, each step once."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    events = EventAccumulator(str(search.run_dir), size_guidance={"scalars": 0}).Reload()
    if CURVE not in events.Tags()["scalars"]:
        return [f"there is no curve {CURVE}"]
    shown = [event.step for event in events.Scalars(CURVE)]
    rewards = {event.step: event.value for event in events.Scalars(CURVE)}
    expected = {record["child"]: record["reward"] for record in _trajectory(search)}
    problems = [f"step {step} is there {number} times" for step, number in Counter(shown).items() if number > 1]
    problems += [f"step {step} is missing" for step in expected.keys() - rewards.keys()]
    problems += [f"step {step} is no child" for step in rewards.keys() - expected.keys()]
    for step in rewards.keys() & expected.keys():
        if abs(rewards[step] - expected[step]) > 1e-6:  # TensorBoard keeps single precision
            problems.append(f"step {step} is {rewards[step]}, not {expected[step]}")
    return problems


def shorten(problems: Sequence[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = len(problems) - _MAX_SHOWN
    return [*problems[:_MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def num_continued(search: SearchProcess) -> int:
    """Trainings that were continued from a checkpoint, by the children's logs."""
    logs = (search.run_dir / "logs").glob("*.log")
    return sum(log.read_bytes().count(b"resuming after epoch") for log in logs)


def failed_attempts(search: SearchProcess) -> dict[str, int]:
    """How often attempts at children failed, by reason; one that fails as the search is killed is in none."""
    output = search.output.read_text(errors="replace")
    return {name: len(re.findall(rf"attempt \d+ of \d+: {words}", output)) for name, words in REASONS.items()}


def _trajectory(search: SearchProcess) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name not in NOT_REPEATED}
        for record in read_trajectory(search.run_dir)
    ]


def _rows(search: SearchProcess) -> list[Row]:
    with Store(search.store, read_only=True) as store:
        return list(store.rows())


def _child(row: Row) -> str:
    return f"{row['key']}, configuration {row['digest'][:8]}, seed {row['seed']}"


def _repeats(rows: Sequence[Row]) -> list[str]:
    return [f"{child} is there {number} times" for child, number in Counter(map(_child, rows)).items() if number > 1]


def _result(row: Row) -> dict[str, Any]:
    return {**{name: row[name] for name in (*RESULT_COLUMNS, "genotype", "reason")}, "curve": json.loads(row["curve"])}


def _files(folder: Path) -> list[str]:
    """All that is in ``folder``, but folders that are called ``logs``."""
    return [
        str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if not (path.is_dir() and path.name == "logs")
    ]


def find(check: Callable[..., list[str]], *arguments: Any) -> list[str]:
    """What ``check`` finds, or why the files cannot be read that it looks at."""
    try:
        return check(*arguments)
    except InputError as error:
        return [str(error)]


def check_alone(*searches: SearchProcess) -> dict[str, list[str]]:
    """The checks that every search must pass by itself, by what they say."""
    checks = {
        "no lease is left in the store": claims_left,
        "no process is left": processes_left,
        "no file is left that should not be there": files_left,
        "nases store verify passes": store_is_wrong,
        "TensorBoard's curve has each child once": curve_differs,
    }
    return {name: [problem for search in searches for problem in find(check, search)] for name, check in checks.items()}
