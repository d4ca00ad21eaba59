"""``nases status``: how a search stands, from another terminal or afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tqdm import tqdm

from nases_env.evaluation import Evaluation, Status, config_digest
from nases_env.execution import Store
from nases_env.execution.store import Claim
from nases_env.search.run import pace
from nases_env.search.run_dir import STORE, TRAJECTORY, is_live, read_config, read_trajectory

NUM_FAILURES = 3  # that are named


@dataclass(frozen=True)
class StatusArgs:
    """Say how a search stands: what is finished, in flight and failed, the best so far, and the time left."""

    run_dir: tyro.conf.Positional[Path] = field(metadata={"help": "The run folder."})


def status_command(args: StatusArgs) -> None:
    """Runs ``nases status``.

    Raises:
        InputError: if it is no run folder, or its store cannot be read.
    """
    config = read_config(args.run_dir)
    live = is_live(args.run_dir)
    records = list(read_trajectory(args.run_dir))
    budget = config["arguments"]["budget"]
    done = len(records) >= budget
    state = "running" if live else "finished" if done else "not running, go on with --resume"
    print_line = Console(soft_wrap=True, highlight=False).print
    print_line(f"{args.run_dir}: {config['agent']} in {config['arguments']['env_id']}, {state}")
    claims = _claims(args.run_dir, config)
    failed = [record for record in records if record["status"] != Status.OK]
    print_line(f"{len(records)} of {budget} children, {len(claims)} in flight, {len(failed)} failed")
    if records:
        best = max(records, key=lambda record: record["reward"])
        print_line(f"best: child {best['child']}, reward {best['reward']:.4f}")
    if live and not done:
        print_line(_pace(args.run_dir, config, len(records), budget))
    for claim in claims:
        print_line(f"in flight: {claim.key} since {claim.started} by process {claim.pid} on {claim.host_name}")
    for record in failed[-NUM_FAILURES:]:
        evaluation = Evaluation.from_dict(record)
        print_line(f"child {record['child']}: {evaluation.status.value} {evaluation.reason}")


def _claims(run_dir: Path, config: dict[str, Any]) -> list[Claim]:
    """The children of this configuration that are under evaluation: by this search, or by one that shares its store."""
    path = config["arguments"]["execution"]["store"] or run_dir / STORE
    digest = config_digest(config["configuration"])
    with Store(path, read_only=True) as store:
        return [claim for claim in store.claims() if claim.digest == digest and not store.is_dead(claim)]


def _pace(run_dir: Path, config: dict[str, Any], num_children: int, budget: int) -> str:
    """Children a minute since this search began or was gone on with, and the time left."""
    num_before, started = config["num_known"], datetime.fromisoformat(config["started"])
    last = datetime.fromtimestamp((run_dir / TRAJECTORY).stat().st_mtime, timezone.utc)
    num_new, seconds = num_children - num_before, (last - started).total_seconds()
    if num_new < 1 or seconds <= 0:
        return "no child since it began"
    left = tqdm.format_interval((budget - num_children) * seconds / num_new)
    return f"{pace(num_new / seconds)}, {left} left"
