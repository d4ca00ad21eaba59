"""Search and final training within a given time on one device.

    python -m benchmarks.search_then_train --search-minutes 10 --train-minutes 10 --output session.json

REINFORCE with elites evaluates as many children as fit into the minutes of the search, ``--num-envs`` of them concurrently.
The child with the highest reward is trained on all training images and tested once. The number of epochs is
computed from the measured time per epoch. No choice depends on the test images.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nases_agents.elite_reinforce import Args as AgentArgs
from nases_agents.elite_reinforce import EliteReinforce
from rich.console import Console

from benchmarks.common.searches import require_trained_children
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.devices import device_name, resolve_device
from nases_env.envs import ImageEnv
from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS, TrainingEvaluator, resolve_preset
from nases_env.execution import ExecutionSettings
from nases_env.model_io import TrainedModel, save_model
from nases_env.retraining import FinalTraining
from nases_env.retraining.timing import time_training
from nases_env.search import SearchCallback, SearchLoop, Trial, make_env
from nases_env.search.time_budget import UNLIMITED_BUDGET
from nases_env.search_spaces import get_search_space
from nases_env.training import EpochRecord


@dataclass(frozen=True)
class Args:
    """Options of the benchmark."""

    env_id: str = "NASES-CIFAR10-v0"
    """Id of an environment that trains children."""
    preset: str = "auto"
    """Preset of the children and of the final training; auto: gpu if there is a GPU, otherwise cpu."""
    search_minutes: float = 10.0
    """Minutes of the search; children that are running at the end are finished."""
    train_minutes: float = 10.0
    """Minutes of the final training, which lasts at least one epoch."""
    num_envs: int = 1
    """Number of concurrent evaluations; if more than one, children are evaluated in worker processes."""
    workers_per_gpu: int = 1
    """Number of worker processes per GPU."""
    data_dir: str | None = None
    """Directory with the data; unset: the environment variable NASES_DATA_DIR, or a directory in the user's cache."""
    device: str = "auto"
    """A torch device; auto: the GPU if there is one."""
    seed: int = 0
    """Seed of the search and of the final training."""
    model: Path | None = None
    """Save the trained model to this file; nases_env.load_model reads it."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        for option in ("search_minutes", "train_minutes"):
            if not getattr(self, option) > 0:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {getattr(self, option)}")
        if self.num_envs < 1:
            raise InputError(f"--num-envs must be at least 1, not {self.num_envs}")


class Deadline(SearchCallback):
    """Ends a search at a deadline, but not before the first child; children in flight are finished."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if time.monotonic() >= self.deadline:
            loop.propose_no_more()


def search(args: Args, console: Console) -> tuple[SearchLoop, dict[str, Any]]:
    """Search until the time is over and stop the workers; return the search and its measurements."""
    options = AgentArgs(
        env_id=args.env_id,
        budget=UNLIMITED_BUDGET,
        seed=args.seed,
        num_envs=args.num_envs,
        preset=args.preset,
        data_dir=args.data_dir,
        device=args.device,
        execution=ExecutionSettings(workers_per_gpu=args.workers_per_gpu),
    )
    nases = require_trained_children(make_env(options), args.env_id)
    nases.reset(seed=args.seed)
    nases.start(options.execution, max_in_flight=args.num_envs)
    start = time.monotonic()
    deadline = Deadline(start + 60 * args.search_minutes)
    with SearchLoop(nases, UNLIMITED_BUDGET, args.num_envs, [deadline]) as timed:
        timed.run(EliteReinforce(nases, options), options.ask_batch_size)
        minutes = (time.monotonic() - start) / 60
    assert timed.best is not None
    evaluations = [child.evaluation for child in timed.trials]
    metrics = {
        "minutes": minutes,
        "num_children": len(evaluations),
        "num_distinct": len({evaluation.key for evaluation in evaluations}),
        "children_per_minute": len(evaluations) / minutes,
        "best_valid_accuracy": timed.best.evaluation.valid_accuracy,
        "best_so_far": [max(evaluation.reward for evaluation in evaluations[: n + 1]) for n in range(len(evaluations))],
        "statuses": sorted({evaluation.status.value for evaluation in evaluations}),
        "genotype": json.loads(nases.search_space.to_json(timed.best.architecture)),
    }
    console.print(
        f"search: {metrics['num_children']} children in {minutes:.1f} minutes, best validation accuracy "
        f"{metrics['best_valid_accuracy']:.2%}",
        highlight=False,
    )
    return timed, metrics


def train(args: Args, timed: SearchLoop, console: Console) -> tuple[TrainedModel, dict[str, Any]]:
    """Train and test the best child of a search; return the model and the measurements."""
    nases = timed.env
    assert isinstance(nases, ImageEnv)
    assert isinstance(nases.evaluator, TrainingEvaluator)
    assert timed.best is not None
    space = get_search_space(nases.evaluator.search_space)
    _, settings = resolve_preset(nases.preset, {}, RETRAIN_PRESETS)
    final = FinalTraining(
        space, timed.best.architecture, nases.evaluator.dataset, settings, data_dir=args.data_dir, device=args.device
    )
    timing = time_training(
        space, settings, final.train_images, device=args.device, num_threads=1, architectures=[final.architecture]
    )
    num_epochs = max(1, int((60 * args.train_minutes - timing.overhead) / timing.per_epoch))
    final = replace(final, settings=replace(settings, num_epochs=num_epochs, min_steps=0, num_cycles=1))
    ends = [time.perf_counter()]

    def note(record: EpochRecord) -> None:
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        model, result = final.run(args.seed, Path(folder) / "checkpoint", note)
    seconds = [after - before for before, after in pairwise(ends)]
    low, high = result.test_error_interval
    console.print(
        f"final: {num_epochs} epochs in {result.seconds / 60:.1f} minutes, {median(seconds):.2f} s each; "
        f"test error {result.test_error:.2%} ({low:.2%}–{high:.2%}), {result.num_params:,} parameters",
        highlight=False,
    )
    return model, {
        **{name: value for name, value in result.to_dict().items() if name != "curve"},
        "seconds_per_epoch": {"median": median(seconds), "min": min(seconds), "max": max(seconds)},
        "settings": asdict(final.settings),
    }


def main(args: Args) -> None:
    """Search for a given time, train the best child for a given time, and test it once."""
    console = Console()
    console.print(f"on {device_name(resolve_device(args.device))}", highlight=False)
    timed, found = search(args, console)
    model, trained = train(args, timed, console)
    if args.output is not None:
        settings = {option: value for option, value in asdict(args).items() if option not in ("output", "model")}
        record = {
            "benchmark": "search_then_train",
            "settings": settings,
            "torch": torch.__version__,
            "search": found,
            "final": trained,
        }
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())
    if args.model is not None:
        save_model(model, args.model)


if __name__ == "__main__":
    run_command(Args, main)
