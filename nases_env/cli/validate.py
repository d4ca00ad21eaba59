"""``nases validate``: retrain children of a search and compare them with the recorded results."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.text import Text

from nases_env.command_line import parse
from nases_env.console import Console
from nases_env.envs import NASESEnv
from nases_env.errors import InputError, require_minimum
from nases_env.evaluation import UNEVALUATED, Evaluation
from nases_env.execution import ExecutionSettings
from nases_env.progress import Progress
from nases_env.search.environment import make_env
from nases_env.search.options import SearchArgs
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import changed_configuration, read_config, read_trajectory
from nases_env.seeding import numpy_generator

GPU_TOLERANCE = 0.02  # of an accuracy; different summation orders diverge during training


@dataclass(frozen=True)
class ValidateArgs:
    """Retrain children of a search from the recorded architectures and seeds, and compare the results.

    Print one line per child, starting with a check mark or a cross. The exit status is 1 if a result differs or is missing.
    """

    run_dir: tyro.conf.Positional[Path] = field(metadata={"help": "The run directory."})
    sample: int | None = field(
        default=None, metadata={"help": "Number of children to retrain, sampled at random. Default: all."}
    )
    seed: int | None = field(default=None, metadata={"help": "With --sample: random seed of the sample. Default: 0."})
    tolerance: float | None = field(
        default=None,
        metadata={"help": f"Allowed difference of an accuracy in [0, 1]. Default: 0 on a CPU, {GPU_TOLERANCE} on a GPU."},
    )
    device: str | None = field(default=None, metadata={"help": "Torch device. Default: that of the search."})
    data_dir: str | None = field(
        default=None, metadata={"help": "Directory with the data set. Default: the search's value."}
    )
    num_envs: int = field(default=1, metadata={"help": "Number of concurrent evaluations."})
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(
        default_factory=ExecutionSettings, metadata={"help": "Where and how children are evaluated:"}
    )


ARGS = ValidateArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases validate``."""
    validate_command(parse(ValidateArgs, prog="nases validate", args=options))


def validate_command(args: ValidateArgs) -> None:
    """Run ``nases validate``; exit with status 1 if a result differs or is missing.

    Raises:
        InputError: if ``run_dir`` is not a run directory, or its children cannot be retrained.
    """
    require_minimum(0, tolerance=args.tolerance)
    require_minimum(1, num_envs=args.num_envs)
    if args.seed is not None and args.sample is None:
        raise InputError("--seed is only for --sample; add --sample, or omit it")
    if args.execution.store is not None:
        raise InputError("nases validate retrains the children, so it has no --store; omit it")
    execution = args.execution
    if execution.executor == "slurm" and execution.work_dir is None:  # all nodes share the run directory
        execution = dataclasses.replace(execution, work_dir=str(args.run_dir / "validate"), checkpoint_interval=math.inf)
    console = Console()
    search_args = load_args(SearchArgs, args.run_dir)
    given = {name: getattr(args, name) for name in ("device", "data_dir") if getattr(args, name) is not None}
    search_args = dataclasses.replace(search_args, **given)
    records = _select_records(args)
    env = make_env(search_args)
    try:
        env.reset(seed=search_args.seed)
        env.start(execution, max_in_flight=args.num_envs)
        changed = changed_configuration(read_config(args.run_dir), env.evaluator)
        if changed:  # the results are then expected to differ
            console.print(f"warning: changed since the search: {', '.join(changed)}")
        num_wrong, quantity = 0, env.evaluator.quantity
        with Progress("validate", len(records), "children") as progress:
            for number, (record, evaluation) in enumerate(_evaluate(env, records), start=1):
                differences = _differences(record, evaluation, args.tolerance)
                num_wrong += bool(differences)
                mark = Text("✘", "red") if differences else Text("✔", "green")
                valid = quantity.format(evaluation.valid_accuracy)
                result = "; ".join(differences) or f"{evaluation.status.value}, valid {valid}"
                with progress.hidden():
                    console.print(mark, f"child {record['child']}: {result}", soft_wrap=True)
                progress.update(number)
    finally:
        env.close()
    console.print(f"{len(records) - num_wrong} of {len(records)} children were reproduced")
    if num_wrong:
        sys.exit(1)


def _select_records(args: ValidateArgs) -> list[dict[str, Any]]:
    """Return the records to check in the order of the search: each architecture and rung once, without failures."""
    results = {
        (record["key"], record.get("fidelity")): record
        for record in read_trajectory(args.run_dir)
        if record["is_new"] and record["status"] not in UNEVALUATED
    }
    records = list(results.values())
    if args.sample is not None:
        if args.sample < 1:
            raise InputError(f"--sample must be at least 1, not {args.sample}")
        chosen = numpy_generator(args.seed or 0, "validate").permutation(len(records))[: args.sample]
        records = [records[index] for index in sorted(chosen)]
    if not records:
        raise InputError(f"{args.run_dir} has no child with a result to retrain; wait for the search, or resume it")
    return records


def _evaluate(env: NASESEnv, records: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Evaluation]]:
    if not env.executor.in_background:
        for record in records:
            yield record, _submit(env, record).result()
        return
    futures = {_submit(env, record): record for record in records}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _submit(env: NASESEnv, record: dict[str, Any]) -> Future[Evaluation]:
    return env.executor.submit(env.to_architecture(record["genotype"]), record["seed"], record.get("fidelity"))


def _differences(record: dict[str, Any], evaluation: Evaluation, tolerance: float | None) -> list[str]:
    """Describe each difference between a record and a new evaluation, or why there is no new evaluation."""
    if evaluation.status in UNEVALUATED:
        return [f"could not be evaluated ({evaluation.status.value}): {evaluation.reason}"]
    if tolerance is None:
        on_cpu = record["device"] == "cpu" and evaluation.device == "cpu"
        tolerance = 0.0 if on_cpu else GPU_TOLERANCE
    now = evaluation.to_dict()
    differences = [
        f"{name} {record[name]} is now {now[name]}"
        for name in ("key", "status", "num_params", "num_flops", "num_epochs")
        if record[name] != now[name]
    ]
    now["reward"] = evaluation.reward
    names = ["valid_accuracy", "train_accuracy", *([] if evaluation.score is None else ["reward"])]
    return differences + [
        f"{name} {record[name]:.4%} is now {now[name]:.4%}" for name in names if abs(record[name] - now[name]) > tolerance
    ]
