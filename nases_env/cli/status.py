"""``nases status``: show the progress of a search, a final training or a reproduction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from nases_env.command_line import parse
from nases_env.console import Console
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, Status, config_digest
from nases_env.execution import Store
from nases_env.execution.store import Lease
from nases_env.input_files import read_file
from nases_env.json_io import parse_json, read_object
from nases_env.progress import format_rate
from nases_env.report.text import count
from nases_env.retraining import FinalFolder
from nases_env.retraining.folder import SeedProgress
from nases_env.retraining.report import format_test_error
from nases_env.search.run_dir import (
    CONFIG,
    STORE,
    TRAJECTORY,
    best_record,
    is_locked,
    kind_of_directory,
    read_config,
    read_trajectory,
    recorded_quantity,
)
from nases_env.search.time_budget import format_progress

MAX_FAILURES = 3  # failed children to list


@dataclass(frozen=True)
class StatusArgs:
    """Show the progress of a search, a final training or a reproduction.

    For a search: finished, in-flight and failed children, the best child, and the remaining time.
    """

    run_dir: tyro.conf.Positional[Path] = field(
        metadata={"help": "The run directory of a search, or the directory of a final training or a reproduction."}
    )


ARGS = StatusArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases status``."""
    status_command(parse(StatusArgs, prog="nases status", args=options))


def status_command(args: StatusArgs) -> None:
    """Run ``nases status``.

    Raises:
        InputError: if ``run_dir`` is not one of these directories, or a file in it cannot be read.
    """
    try:
        names = set(parse_json(read_file(args.run_dir / CONFIG), allow_infinity=True))
    except (OSError, ValueError, TypeError):
        names = set()
    describe = {"search": _describe_search, "final training": _describe_final, "reproduction": _describe_reproduction}
    lines = describe[kind_of_directory(names)](args.run_dir)
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(line)


def _describe_final(path: Path) -> Iterator[str]:
    folder = FinalFolder(path)
    configuration, num_epochs = folder.read_config()["configuration"], folder.num_epochs()
    yield f"{path}: final training on {configuration['dataset']}, {count(num_epochs, 'epoch')}"
    seeds = folder.progress()
    for seed in seeds:
        yield f"seed {seed.seed}: {_describe_seed(seed, num_epochs)}"
    if finished := [seed.result for seed in seeds if seed.result is not None]:
        yield f"{len(finished)} of {len(seeds)} seeds finished, test error {format_test_error(finished)}%"


def _describe_seed(seed: SeedProgress, num_epochs: int) -> str:
    if seed.result is not None:
        return f"finished, test error {format_test_error([seed.result])}%"
    state = "running" if seed.is_running else "stopped; rerun the command to resume it"
    return f"{seed.num_epochs} of {count(num_epochs, 'epoch')}, {state}"


def _describe_reproduction(path: Path) -> Iterator[str]:
    try:
        types = {"env_id": str, "preset": str, "agents": list[str]}
        config = read_object(path / CONFIG, types, allow_infinity=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path / CONFIG} ({one_line(error)}); restore it, or start a new reproduction"
        ) from None
    yield f"{path}: reproduction in {config['env_id']}, preset {config['preset']}"
    for folder in sorted(path.glob("seed-*"), key=lambda folder: (len(folder.name), folder.name)):
        state = "finished" if (folder / "embedding.json").exists() else "not finished"
        yield f"{folder.name}: pretraining {state}"
        for agent in config["agents"]:
            yield f"{folder.name}, {agent}: {_describe_agent(folder / agent)}"


def _describe_agent(run_dir: Path) -> str:
    if not (run_dir / CONFIG).exists():
        return "search not started"
    budget = read_config(run_dir)["arguments"]["budget"]
    progress = format_progress(sum(1 for _ in read_trajectory(run_dir)), budget)
    text = f"{progress}{', running' if is_locked(run_dir) else ''}"
    folder = FinalFolder(run_dir / "final")
    if not (folder.path / CONFIG).exists():
        return f"{text}, final training not started"
    num_epochs = folder.num_epochs()
    states = ", ".join(_describe_seed(seed, num_epochs) for seed in folder.progress())
    return f"{text}, final training {states}"


def _describe_search(run_dir: Path) -> Iterator[str]:
    read_config(run_dir)  # raises the clearest error for another directory
    is_running = is_locked(run_dir)
    trials = _Trials()
    records = trials.count(read_trajectory(run_dir))
    best = best_record(run_dir, records)
    for _ in records:  # the rest, if the best child is a finalist
        pass
    config = read_config(run_dir)  # last, because a search that ends writes it before it releases the lock
    budget = config["arguments"]["budget"]
    num_children = trials.num_children
    done = "finished" in config
    state = "running" if is_running else "finished" if done else "stopped; resume it with --resume"
    yield f"{run_dir}: {config['agent']} in {config['arguments']['env_id']}, {state}"
    leases, problem = _leases(run_dir, config)
    promoted = f", {trials.num_promoted} promoted" if trials.num_promoted else ""
    in_flight = "number in flight not known" if problem else f"{len(leases)} in flight"
    yield f"{format_progress(num_children, budget)}{promoted}, {in_flight}, {trials.num_failed} failed"
    if best is not None:
        mean = f"{'mean of two evaluations' if best['is_mean'] else 'second evaluation'} {best['mean_reward']:.4f}"
        again = f", {mean}" if best["mean_reward"] != best["reward"] else ""
        quantity = recorded_quantity(config)
        metric = f", validation {quantity.name} {quantity.format(best['valid_accuracy'])}"
        metric = "" if best.get("score") is None else metric  # it is the reward
        yield f"best: child {best['child']}, reward {best['reward']:.4f}{again}{metric}"
    if is_running and not done:
        yield _rate(run_dir, config, num_children)
    if problem:
        yield f"in flight: not known ({problem})"
    for lease in leases:
        yield f"in flight: {lease.key} since {lease.started} by process {lease.pid} on {lease.host_name}"
    for record in trials.last_failed:
        evaluation = Evaluation.from_dict(record)
        yield f"child {record['child']}: {evaluation.status.value} {evaluation.reason}"


class _Trials:
    """Numbers of the trials of a search, which are read one by one, since there may be many."""

    def __init__(self) -> None:
        self.num_children = self.num_promoted = self.num_failed = 0
        self.last_failed: deque[dict[str, Any]] = deque(maxlen=MAX_FAILURES)

    def count(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield ``records`` and count them."""
        for record in records:
            self.num_promoted += record["is_promotion"]
            self.num_children += not record["is_promotion"]
            if record["status"] != Status.OK:
                self.num_failed += 1
                self.last_failed.append(record)
            yield record


def _leases(run_dir: Path, config: dict[str, Any]) -> tuple[list[Lease], str]:
    """Return the leases of this configuration, including leases of other searches that share the store.

    If the store cannot be read, also return the reason: a run directory may have been copied without it.
    """
    path = config["arguments"]["execution"]["store"] or run_dir / STORE
    configuration = config["configuration"]
    fidelities: list[dict[str, Any]] = [{"fidelity": rung} for rung in configuration.get("rungs", [])]
    digests = {config_digest({**configuration, **fidelity}) for fidelity in fidelities or [{}]}
    try:
        with Store(path, read_only=True) as store:
            return [lease for lease in store.leases() if lease.digest in digests and not store.is_expired(lease)], ""
    except InputError as error:
        return [], str(error)


def _rate(run_dir: Path, config: dict[str, Any], num_children: int) -> str:
    """Describe the rate since this search was started or resumed, and the remaining time."""
    started = datetime.fromisoformat(config["started"])
    last = datetime.fromtimestamp((run_dir / TRAJECTORY).stat().st_mtime, timezone.utc)
    num_new, seconds = num_children - config["num_resumed"], (last - started).total_seconds()
    if num_new < 1 or seconds <= 0:
        return "no child finished yet"
    arguments = config["arguments"]
    left = (arguments["budget"] - num_children) * seconds / num_new
    if arguments.get("time") is not None:
        left = max(0.0, min(left, arguments["time"] - (datetime.now(timezone.utc) - started).total_seconds()))
    return f"{format_rate(num_new / seconds)}, {tqdm.format_interval(left)} left"
