"""``nases validate``: train some of a run's children again, and say whether they come out as recorded."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tqdm import tqdm

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import ExecutionSettings
from nases_env.search.options import SearchArgs, make_env
from nases_env.search.run_dir import changed_since, load_args, read_config, read_trajectory
from nases_env.seeding import numpy_generator

GPU_TOLERANCE = 0.02  # of an accuracy: sums in another order drift apart over a training


@dataclass(frozen=True)
class ValidateArgs:
    """Train children of a run again from what was recorded, and say whether they come out the same.

    A line for each child begins with a check mark or a cross. The exit status is 1 if one does not reproduce.
    """

    run_dir: tyro.conf.Positional[Path] = field(metadata={"help": "The run folder."})
    sample: int | None = field(default=None, metadata={"help": "Children to train again, drawn at random; unset: all."})
    seed: int = field(default=0, metadata={"help": "Which ones are drawn."})
    tolerance: float | None = field(
        default=None,
        metadata={
            "help": f"How far an accuracy may be off; unset: 0 on a CPU, where everything repeats, {GPU_TOLERANCE} on a GPU."
        },
    )
    device: str | None = field(default=None, metadata={"help": "A torch device; unset: as the run."})
    num_envs: int = field(default=1, metadata={"help": "Children in flight at once."})
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(
        default_factory=ExecutionSettings, metadata={"help": "Where children are evaluated:"}
    )


def validate_command(args: ValidateArgs) -> None:
    """Runs ``nases validate``; exits with status 1 if a child does not reproduce.

    Raises:
        InputError: if it is no run folder, or its children cannot be evaluated as they were.
    """
    console = Console()
    search_args = load_args(SearchArgs, args.run_dir)
    if args.device is not None:
        search_args = dataclasses.replace(search_args, device=args.device)
    records = _choose(args)
    env = make_env(search_args)
    nases: NASESEnv = env.unwrapped  # type: ignore[assignment]
    nases.execution, nases.max_in_flight = args.execution, args.num_envs
    try:
        env.reset(seed=search_args.seed)
        _warn_of_changes(console, args.run_dir, nases)
        num_wrong = 0
        for record, evaluation in tqdm(_evaluate(nases, records), total=len(records), unit="child", file=sys.stderr):
            differences = _differences(record, evaluation, args.tolerance)
            num_wrong += bool(differences)
            mark = "[red]✘[/red]" if differences else "[green]✔[/green]"
            told = "; ".join(differences) or f"{evaluation.status.value}, valid {evaluation.valid_accuracy:.2%}"
            console.print(f"{mark} child {record['child']}: {told}", highlight=False, soft_wrap=True)
    finally:
        env.close()
    console.print(f"{len(records) - num_wrong} of {len(records)} children reproduce", highlight=False)
    if num_wrong:
        sys.exit(1)


def _choose(args: ValidateArgs) -> list[dict[str, Any]]:
    """The records to check, each architecture once, in the order of the run; those without a result are left out."""
    results = {
        record["key"]: record
        for record in read_trajectory(args.run_dir)
        if record["is_new"] and record["status"] not in (Status.FAILED, Status.TIMED_OUT)
    }
    records = list(results.values())
    if args.sample is not None:
        if args.sample < 1:
            raise InputError(f"--sample must be at least 1, not {args.sample}")
        chosen = numpy_generator(args.seed, "validate").permutation(len(records))[: args.sample]
        records = [records[index] for index in sorted(chosen)]
    if not records:
        raise InputError(f"{args.run_dir} has no child with a result to train again")
    return records


def _evaluate(nases: NASESEnv, records: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Evaluation]]:
    if not nases.executor.in_background:
        for record in records:
            yield record, nases.executor.submit(nases.parse(record["genotype"]), record["seed"]).result()
        return
    futures = {nases.executor.submit(nases.parse(record["genotype"]), record["seed"]): record for record in records}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _differences(record: dict[str, Any], evaluation: Evaluation, tolerance: float | None) -> list[str]:
    """What differs between a record and a new evaluation, one phrase each."""
    if tolerance is None:
        on_cpu = record["device"] == "cpu" and evaluation.device == "cpu"
        tolerance = 0.0 if on_cpu else GPU_TOLERANCE
    now = evaluation.to_dict()
    differences = [
        f"{name} {record[name]} is now {now[name]}"
        for name in ("key", "status", "num_params", "num_flops", "num_epochs")
        if record[name] != now[name]
    ]
    return differences + [
        f"{name} {record[name]:.4%} is now {now[name]:.4%}"
        for name in ("valid_accuracy", "train_accuracy")
        if abs(record[name] - now[name]) > tolerance
    ]


def _warn_of_changes(console: Console, run_dir: Path, nases: NASESEnv) -> None:
    """Says what is not as it was when the run was made; data or settings that have changed cannot reproduce it."""
    changed = changed_since(read_config(run_dir), nases.evaluator)
    if changed:
        console.print(f"not as it was when the run was made: {', '.join(changed)}", highlight=False)
