"""A run folder on the disk: what a search was told, and every child that it knows of."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from nases_env import atomic_io
from nases_env.atomic_io import append_line, write_atomically, write_error
from nases_env.errors import InputError
from nases_env.evaluation import Evaluator
from nases_env.execution import ExecutionSettings
from nases_env.search.options import ChildOptions, SearchArgs

CONFIG = "config.json"
TRAJECTORY = "evaluations.jsonl"
STORE = "store.sqlite"
WRITTEN_WHOLE = (CONFIG, "best.json", "best.png", "best.svg")  # through a temporary file beside them

Args = TypeVar("Args", bound=SearchArgs)


class RunDir:
    """A run folder that one search writes to.

    Args:
        path: the folder; a new one is made when it is first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    def lock(self) -> None:
        """Keeps other searches from writing to the folder as long as this process lives.

        Raises:
            InputError: if another search does so, or the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / TRAJECTORY, "ab")  # noqa: SIM115 - held as long as the search lasts
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InputError(f"another search is writing to {self.path}; wait until it has ended, or end it") from None
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Lets other searches write to the folder."""
        if self._lock is not None:
            self._lock.close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes down what the search was told."""
        write_atomically(self.path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def append(self, record: dict[str, Any]) -> None:
        """Appends a child to the trajectory."""
        append_line(self.path / TRAJECTORY, json.dumps(record))

    def mend(self) -> None:
        """Removes what a search that was killed has left half written."""
        for name in WRITTEN_WHOLE:
            for leftover in self.path.glob(f".{name}.*"):
                leftover.unlink()
        with open(self.path / TRAJECTORY, "rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def remove_checkpoints(self) -> None:
        """Removes what is left of children that were begun, once the search has ended and nobody needs it."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def is_unused(path: Path) -> bool:
    """Whether a new search may write to ``path``: an empty folder, or what a search has left that was killed as it began."""
    return atomic_io.is_unused(path, CONFIG, begun=(STORE, f"{STORE}-wal", f"{STORE}-shm", TRAJECTORY))


def is_finished(path: Path, budget: int) -> bool:
    """Whether the search in the run folder ``path`` has ended with at least ``budget`` children, pictures and all."""
    config = read_config(path)
    return "finished" in config and config["arguments"]["budget"] >= budget


def is_live(path: Path) -> bool:
    """Whether a search is writing to the run folder ``path``."""
    try:
        with open(path / TRAJECTORY, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise InputError(f"cannot read {path / TRAJECTORY} ({error.strerror}); give a run folder") from None
    return False


def read_config(path: Path) -> dict[str, Any]:
    """What the run folder ``path`` says that its search was told.

    Raises:
        InputError: if it is no run folder of this version.
    """
    try:
        config = json.loads((path / CONFIG).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InputError(f"{path} is no run folder: cannot read {CONFIG} ({reason}); give a folder below runs/") from None
    if not (isinstance(config, dict) and isinstance(config.get("arguments"), dict)):
        raise InputError(f"{path / CONFIG} is not of this version of NASES; search anew")
    return config


def configuration_of(evaluator: Evaluator) -> dict[str, Any]:
    """What decides the results, as it comes back from ``config.json``."""
    configuration: dict[str, Any] = json.loads(json.dumps(evaluator.describe(), default=str))
    return configuration


def changed_since(config: dict[str, Any], evaluator: Evaluator) -> list[str]:
    """What decides the results and is not as it was when ``config`` was written, by name."""
    before, now = config.get("configuration"), configuration_of(evaluator)
    return [name for name in now if not isinstance(before, dict) or before.get(name) != now[name]]


def read_trajectory(path: Path) -> Iterator[dict[str, Any]]:
    """The children of the run folder ``path``, in their order. A last line that is not whole is left out.

    Raises:
        InputError: if it cannot be read, or a line is none of a child.
    """
    try:
        with open(path / TRAJECTORY, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    return
                record = json.loads(line)
                if record["child"] != number:
                    raise ValueError
                yield record
    except OSError as error:
        raise InputError(f"cannot read {path / TRAJECTORY} ({error.strerror}); give a run folder") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"line {number} of {path / TRAJECTORY} is no child of a search; restore the file, or search anew"
        ) from None


def to_json(args: SearchArgs) -> dict[str, Any]:
    """``args`` as JSON values, as ``config.json`` keeps them."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(entry) for name, entry in value.items()}
        return str(value) if isinstance(value, Path) else value

    values: dict[str, Any] = plain(dataclasses.asdict(args))
    return values


def load_args(args_type: type[Args], path: Path) -> Args:
    """The arguments of the search in the run folder ``path``, to go on with it.

    ``SearchArgs`` itself takes its part of the arguments of any agent.

    Raises:
        InputError: if it is no run folder, or that of another agent.
    """
    config = read_config(path)
    values = dict(config["arguments"])
    names = {field.name for field in dataclasses.fields(args_type)} - {"run_dir", "resume"}
    if args_type is SearchArgs:
        values = {name: value for name, value in values.items() if name in names}
        if config["configuration"].get("evaluator") != "training":
            values["preset"] = SearchArgs.preset  # one of the agent's, which says nothing of the children
    if set(values) != names:
        begun = f"go on with it as it was begun: {config.get('command')}"
        raise InputError(f"{path} is a run of the agent {config.get('agent')}; {begun}")
    values["child"] = ChildOptions(**values["child"])
    values["execution"] = ExecutionSettings(**values["execution"])
    return args_type(**{**values, "run_dir": path, "resume": path})
