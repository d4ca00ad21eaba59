"""The run directory: configuration and trajectory of a search on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nases_env import atomic_io, file_lock
from nases_env.atomic_io import append_line, remove_incomplete_line, remove_leftovers, write_atomically, write_error
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.evaluation.limits import without_limit
from nases_env.input_files import read_file
from nases_env.json_io import parse_json, require_type
from nases_env.paths import require_no_link
from nases_env.quantity import ACCURACY, Quantity
from nases_env.search.trials import Finalist, Trial
from nases_env.search_spaces import SearchSpace

CONFIG = "config.json"
TRAJECTORY = "evaluations.jsonl"
STORE = "store.sqlite"
STORE_FILES = (STORE, f"{STORE}-journal", f"{STORE}-wal", f"{STORE}-shm")  # with SQLite's auxiliary files
FINALISTS = "finalists.json"
REPORT = "report.html"
BEST = "best.json"
BEST_DRAWINGS = ("best.png", "best.svg", "best.pdf")
ATOMIC_FILES = (CONFIG, FINALISTS, REPORT, BEST, *BEST_DRAWINGS)  # written through a temporary file


CONFIG_TYPES: dict[str, Any] = {
    "agent": str,
    "configuration": dict[str, Any],
    "num_resumed": int,
    "started": str,
}
"""Types of the entries of ``config.json`` that commands read."""

ARGUMENT_TYPES: dict[str, Any] = {"budget": int, "env_id": str, "seed": int, "execution": dict[str, Any]}
"""Types of some of its arguments; ``load_args`` checks the others."""


class RunDir:
    """A run directory that one search writes to.

    Args:
        path: the directory; it is created by ``lock``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None
        self._created: list[Path] = []

    def lock(self, *, make_unique: bool = False) -> None:
        """Create the directory if it is missing, and lock it until ``close``, so that no other search writes to it.

        Args:
            make_unique: whether to append a number to the name if the directory exists.

        Raises:
            InputError: if another search holds the lock, or the directory cannot be written to.
        """
        trajectory = self.path / TRAJECTORY
        require_no_link(trajectory)
        try:
            self._created = [path for path in (self.path, *self.path.parents) if not path.exists()]
            if make_unique:
                self._create_unique()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / TRAJECTORY, "ab")  # noqa: SIM115 - held as long as the search lasts
            is_acquired = file_lock.lock(self._lock.fileno()) and self._is_in_place()
        except OSError as error:
            if self._lock is not None:
                self._created = []
            raise write_error(self.path, error) from error
        if not is_acquired:
            self._created = []  # by another search, or to be used by it
            self._lock.close()
            raise InputError(f"another search is writing to {self.path}; wait until it ends, or stop it")

    def _is_in_place(self) -> bool:
        """Return whether the locked file is still the trajectory; the search that held the lock may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), (self.path / TRAJECTORY).stat())
        except FileNotFoundError:
            return False

    def _create_unique(self) -> None:
        name = self.path.name
        for number in itertools.count(2):
            try:
                self.path.mkdir(parents=True)
                break
            except FileExistsError:  # of another search that started in the same second
                self.path = self.path.with_name(f"{name}-{number}")
        self._created = [self.path, *self._created[1:]]

    def require_in_place(self) -> None:
        """Raise ``InputError`` if the directory was moved or deleted since ``lock``; a write would create it again."""
        if not self._is_in_place():
            raise InputError(
                f"{self.path / TRAJECTORY} was moved, replaced or deleted during the search; "
                "to continue, pass the new path of the run directory to --resume"
            )

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    def discard(self) -> None:
        """Release the lock and remove what ``lock`` created, unless a search was recorded."""
        if self._created and not (self.path / CONFIG).exists():
            with contextlib.suppress(OSError):  # not created, or not empty
                for name in (*STORE_FILES, TRAJECTORY):
                    (self.path / name).unlink(missing_ok=True)
                for path in self._created:
                    path.rmdir()
        self.close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration of the search."""
        self.require_in_place()
        write_atomically(self.path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def append(self, record: dict[str, Any]) -> None:
        """Append a trial to the trajectory; it is on disk when this returns."""
        self.require_in_place()
        append_line(self.path / TRAJECTORY, json.dumps(record))

    def repair(self) -> None:
        """Remove incomplete files and lines that a killed search left behind, and the choice of the best child."""
        self.require_in_place()
        (self.path / FINALISTS).unlink(missing_ok=True)
        for name in ATOMIC_FILES:
            remove_leftovers(self.path / name)
        remove_incomplete_line(self.path / TRAJECTORY)

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of children that were never finished, after the search has ended."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def kind_of_directory(names: Collection[str]) -> Literal["search", "final training", "reproduction"]:
    """Return what wrote a ``config.json`` with these names at its top level; "search" if it is not known."""
    if "preset" in names and "agents" in names:
        return "reproduction"
    return "final training" if "configuration" in names and "arguments" not in names else "search"


def require_fresh(path: Path) -> None:
    """Raise ``InputError`` unless ``path`` is missing, empty, or holds only leftovers of an aborted start."""
    if _has_lost_config(path):
        raise InputError(f"the run directory {path} has trials but no {CONFIG}; restore it, or pass a new --run-dir")
    if not atomic_io.is_fresh(path, CONFIG, ignore=(*STORE_FILES, TRAJECTORY)):
        raise InputError(
            f"the run directory {path} exists and is not empty; resume it with --resume, or pass a new --run-dir"
        )


def _has_lost_config(path: Path) -> bool:
    """Return whether ``path`` has trials but no configuration; an aborted start leaves no trials."""
    trajectory = path / TRAJECTORY
    is_recorded = trajectory.is_file() and not trajectory.is_symlink() and trajectory.stat().st_size > 0
    return is_recorded and not (path / CONFIG).exists()


def is_finished(path: Path, budget: int) -> bool:
    """Return whether the search in ``path`` has finished with at least ``budget`` children and has written all files."""
    config = read_config(path)
    return "finished" in config and config["arguments"]["budget"] >= budget


def is_locked(path: Path) -> bool:
    """Return whether a search is writing to ``path``."""
    try:
        return file_lock.is_locked(path / TRAJECTORY)
    except OSError as error:
        raise InputError(f"cannot read {path / TRAJECTORY} ({error.strerror}); pass a run directory") from None


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration of the search in ``path``, without the limit that earlier versions recorded in it.

    Raises:
        InputError: if ``path`` is not a run directory of this version.
    """
    try:
        config = parse_json(read_file(path / CONFIG), allow_infinity=True)  # some options may be infinite
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid JSON"
        raise InputError(
            f"{path} is not a run directory: cannot read {CONFIG} ({reason}); pass a directory in runs/"
        ) from None
    kind = kind_of_directory(config) if isinstance(config, dict) else "search"
    if kind == "reproduction":
        raise InputError(f"{path} is a reproduction; pass the run directory of one of its searches")
    if kind == "final training":
        raise InputError(f"{path} is a final training; pass the run directory of its search")
    if not (isinstance(config, dict) and isinstance(config.get("arguments"), dict)):
        raise InputError(f"{path / CONFIG} was not written by this version of NASES; start a new search")
    try:
        for name, hint in CONFIG_TYPES.items():
            require_type(name, config[name], hint)
        for name, hint in ARGUMENT_TYPES.items():
            require_type(name, config["arguments"][name], hint)
        require_type("store", config["arguments"]["execution"]["store"], str | None)
        require_type("time", config["arguments"].get("time"), float | None)
        require_type("budgets", config.get("budgets", []), list[int])
        require_type("inputs", config.get("inputs", {}), dict[str, str])
        require_type("id", config.get("id", ""), str)
        if "quantity" in config:
            require_type("quantity", config["quantity"], dict[str, Any])
            require_type("name", config["quantity"]["name"], str)
            require_type("is_percentage", config["quantity"]["is_percentage"], bool)
        require_type("rungs", config["configuration"].get("rungs", []), list[int])
        datetime.fromisoformat(config["started"])
    except (KeyError, ValueError) as error:
        problem = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path / CONFIG} is damaged ({problem}); restore it, or start a new search") from None
    return {**config, "configuration": without_limit(config["configuration"])}


def recorded_quantity(config: dict[str, Any]) -> Quantity:
    """Return what the accuracies of a search are, from the result of ``read_config``; earlier versions did not record it."""
    recorded = config.get("quantity")
    return ACCURACY if recorded is None else Quantity(recorded["name"], recorded["is_percentage"])


def config_of(evaluator: Evaluator) -> dict[str, Any]:
    """Return the configuration of ``evaluator``, everything that determines results, as JSON values."""
    configuration: dict[str, Any] = json.loads(json.dumps(evaluator.describe(), default=str))
    return configuration


def changed_configuration(config: dict[str, Any], evaluator: Evaluator) -> list[str]:
    """Return the names of the settings that determine results and differ from ``config``."""
    before, now = config["configuration"], config_of(evaluator)
    return [name for name in now if before.get(name) != now[name]]


def trial_record(trial: Trial, search_space: SearchSpace) -> dict[str, Any]:
    """Return the line of the trajectory that describes ``trial``."""
    values = trial.evaluation.to_dict()
    del values["curve"]  # it is in the store
    return {
        "child": trial.number,
        "is_new": trial.is_new,
        "is_promotion": trial.is_promotion,
        "reward": trial.evaluation.reward,
        **values,
        "action": None if trial.action is None else trial.action.tolist(),
        "genotype": search_space.genotype(trial.architecture),
    }


def read_trajectory(path: Path) -> Iterator[dict[str, Any]]:
    """Read the trials of the run directory ``path`` in order, as ``trial_record`` wrote them. Skip an incomplete last line.

    Raises:
        InputError: if it cannot be read, or a line is not a valid trial.
    """
    number = 0
    try:
        with open(path / TRAJECTORY, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                record = parse_json(line.decode())
                Evaluation.check(record)
                record.setdefault("is_promotion", False)  # missing in searches of earlier versions
                if not (
                    record["child"] == number
                    and type(record["is_new"]) is type(record["is_promotion"]) is bool
                    and type(record["reward"]) in (int, float)
                    and 0 <= record["reward"] <= 1
                    and isinstance(record["genotype"], dict)
                ):
                    raise ValueError
                yield record
    except OSError as error:
        raise InputError(f"cannot read {path / TRAJECTORY} ({error.strerror}); pass a run directory") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"line {number} of {path / TRAJECTORY} is not a valid trial; restore the file, or start a new search"
        ) from None


def count_trials(path: Path) -> Counter[int | None]:
    """Return the number of trials of the run directory ``path`` at each rung; without rungs, all have the rung None."""
    return Counter(record.get("fidelity") for record in read_trajectory(path))


def read_trials(path: Path) -> Iterator[tuple[dict[str, Any], Evaluation]]:
    """Read the trials of the run directory ``path`` with their evaluations; see ``read_trajectory``."""
    for record in read_trajectory(path):
        yield record, Evaluation.from_checked(record)


def read_again(path: Path) -> Generator[tuple[Evaluation, bool], None, None]:
    """Read the evaluations of a trajectory that ``read_trajectory`` has checked, and whether the trials were new.

    This is faster than ``read_trials``.

    The file is open until the generator is exhausted or closed.
    """
    try:
        with open(path / TRAJECTORY, "rb") as file:
            for line in file:
                record = json.loads(line.decode())
                yield Evaluation.from_checked(record), record["is_new"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path / TRAJECTORY} has changed while it was read; try again") from None


def read_genotypes(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the genotypes of the trials with these numbers, which ``read_trajectory`` has read before.

    Raises:
        InputError: if the trajectory cannot be read, or has changed since.
    """
    found: dict[int, dict[str, Any]] = {}
    try:
        with open(path / TRAJECTORY, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number in numbers:
                    found[number] = parse_json(line)["genotype"]
        return [found[number] for number in numbers]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path / TRAJECTORY} has changed while it was read; try again") from None


def write_finalists(path: Path, finalists: Sequence[Finalist]) -> None:
    """Write the finalists of a search, best first, to the run directory ``path``."""
    records = []
    for finalist in finalists:
        second = finalist.second.to_dict()
        del second["curve"]  # it is in the store
        records.append({"child": finalist.trial.number, "mean_reward": finalist.mean_reward, "second": second})
    write_atomically(path / FINALISTS, (json.dumps(records, indent=2) + "\n").encode())


def read_finalists(path: Path) -> list[dict[str, Any]]:
    """Read the finalists of the search in ``path``, best first; empty if there are none.

    Raises:
        InputError: if the file is not valid.
    """
    try:
        records = parse_json(read_file(path / FINALISTS))
        require_type("finalists", records, list[dict[str, Any]])
        for record in records:
            require_type("child", record["child"], int)
            require_type("mean_reward", record["mean_reward"], float)
            if not 0 <= record["mean_reward"] <= 1:
                raise ValueError("mean_reward is not in [0, 1]")
            Evaluation.from_dict(record["second"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path / FINALISTS} is not a valid list of finalists; remove it, then resume the search") from None
    finalists: list[dict[str, Any]] = records
    return finalists


def best_record(path: Path, records: Iterable[dict[str, Any]] | None = None) -> dict[str, Any] | None:
    """Return the trial of the best child of the search in ``path``, as ``read_trajectory`` does; None without a result.

    It has the additional entries ``mean_reward``, the mean of both rewards of a finalist, the second one if their rungs
    differ, or its reward, and ``is_mean``, whether it is the mean.

    Args:
        path: the run directory.
        records: its trials; None: read them.

    Raises:
        InputError: if a file is not valid.
    """
    best: dict[str, Any] | None = None
    finalists = {finalist["child"]: finalist for finalist in read_finalists(path)[:1]}
    for record in read_trajectory(path) if records is None else records:
        if record["child"] in finalists:
            finalist = finalists[record["child"]]
            is_mean = finalist["second"].get("fidelity") == record.get("fidelity")
            return {**record, "mean_reward": finalist["mean_reward"], "is_mean": is_mean}
        if record["status"] == Status.OK and (best is None or _rank(record) > _rank(best)):
            best = record
    return None if best is None else {**best, "mean_reward": best["reward"], "is_mean": False}


def _rank(record: Mapping[str, Any]) -> tuple[int, float]:
    """Return ``Evaluation.rank`` of a trial with the status ``OK``."""
    return record.get("fidelity") or 0, record["reward"]


def to_json(args: Any) -> dict[str, Any]:
    """Convert the dataclass ``args`` to the JSON values stored in ``config.json``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(entry) for name, entry in value.items()}
        return str(value) if isinstance(value, Path) else value

    values: dict[str, Any] = plain(dataclasses.asdict(args))
    return values
