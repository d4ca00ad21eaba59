"""``nases status``: show the progress of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tqdm import tqdm

from nases_env.command_line import parse
from nases_env.evaluation import Evaluation, Status, config_digest
from nases_env.execution import Store
from nases_env.execution.store import Lease
from nases_env.progress import format_rate
from nases_env.search.run_dir import STORE, TRAJECTORY, is_locked, read_config, read_trajectory

MAX_FAILURES = 3  # failed children to list


@dataclass(frozen=True)
class StatusArgs:
    """Show the progress of a search: finished, pending and failed children, the best child, and the remaining time."""

    run_dir: tyro.conf.Positional[Path] = field(metadata={"help": "The run directory."})


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases status``."""
    status_command(parse(StatusArgs, prog="nases status", args=options))


def status_command(args: StatusArgs) -> None:
    """Run ``nases status``.

    Raises:
        InputError: if ``run_dir`` is not a run directory, or its store cannot be read.
    """
    config = read_config(args.run_dir)
    is_running = is_locked(args.run_dir)
    records = list(read_trajectory(args.run_dir))
    budget = config["arguments"]["budget"]
    done = len(records) >= budget
    state = "running" if is_running else "finished" if done else "stopped; resume it with --resume"
    print_line = Console(soft_wrap=True, highlight=False).print
    print_line(f"{args.run_dir}: {config['agent']} in {config['arguments']['env_id']}, {state}")
    leases = _leases(args.run_dir, config)
    failed = [record for record in records if record["status"] != Status.OK]
    print_line(f"{len(records)} of {budget} children, {len(leases)} in flight, {len(failed)} failed")
    if records:
        best = max(records, key=lambda record: record["reward"])
        print_line(f"best: child {best['child']}, reward {best['reward']:.4f}")
    if is_running and not done:
        print_line(_rate(args.run_dir, config, len(records), budget))
    for lease in leases:
        print_line(f"in flight: {lease.key} since {lease.started} by process {lease.pid} on {lease.host_name}")
    for record in failed[-MAX_FAILURES:]:
        evaluation = Evaluation.from_dict(record)
        print_line(f"child {record['child']}: {evaluation.status.value} {evaluation.reason}")


def _leases(run_dir: Path, config: dict[str, Any]) -> list[Lease]:
    """Return the leases of this configuration, including leases of other searches that share the store."""
    path = config["arguments"]["execution"]["store"] or run_dir / STORE
    digest = config_digest(config["configuration"])
    with Store(path, read_only=True) as store:
        return [lease for lease in store.leases() if lease.digest == digest and not store.is_expired(lease)]


def _rate(run_dir: Path, config: dict[str, Any], num_children: int, budget: int) -> str:
    """Describe the rate since this search was started or resumed, and the remaining time."""
    started = datetime.fromisoformat(config["started"])
    last = datetime.fromtimestamp((run_dir / TRAJECTORY).stat().st_mtime, timezone.utc)
    num_new, seconds = num_children - config["num_resumed"], (last - started).total_seconds()
    if num_new < 1 or seconds <= 0:
        return "no child finished yet"
    left = tqdm.format_interval((budget - num_children) * seconds / num_new)
    return f"{format_rate(num_new / seconds)}, {left} left"
