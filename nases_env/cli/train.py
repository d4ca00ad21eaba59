"""``nases train``: the final phase."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tqdm import tqdm

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS, Evaluation, Status, TrainingEvaluator, resolve_preset
from nases_env.retraining.folder import FinalFolder
from nases_env.retraining.report import (
    SearchCost,
    conditions,
    error_text,
    markdown_table,
    search_days,
    seed_rows,
    seeds_table,
    summarize,
    table_1,
    table_1_row,
)
from nases_env.retraining.result import FinalResult
from nases_env.retraining.training import FinalTraining
from nases_env.search import ChildOptions, SearchArgs, make_env
from nases_env.search.run_dir import is_finished, load_args, read_config, read_trajectory
from nases_env.search_spaces import get_search_space, parse_architecture
from nases_env.training import DATASETS, EpochRecord

USELESS = ("num_valid_images", "max_params")  # settings that say nothing of a final training


@dataclass(frozen=True)
class TrainArgs:
    """Train the best architecture of a search at length on all training images, and test it once: the final phase.

    Killed or interrupted, the same command goes on where it was. Several seeds may be trained side by side, by one command
    each with its own --seed and --device, into the same folder.
    """

    source: tyro.conf.Positional[Path] = field(
        metadata={"help": "The run folder of a search, or a JSON file of an architecture, such as best.json."}
    )
    output: Path | None = field(
        default=None, metadata={"help": "The folder for all of it; unset: final, in the run folder or beside the file."}
    )
    preset: str | None = field(
        default=None, metadata={"help": f"{', '.join(RETRAIN_PRESETS)} or auto; unset: that of the search, or auto."}
    )
    dataset: str | None = field(default=None, metadata={"help": f"{', '.join(DATASETS)}; unset: that of the search."})
    seeds: int = field(default=1, metadata={"help": "How many networks, each with a seed of its own."})
    seed: int = field(default=0, metadata={"help": "The first of the seeds."})
    data_dir: str | None = field(default=None, metadata={"help": "The folder with the data; unset: as the search."})
    device: str | None = field(default=None, metadata={"help": "A torch device, or auto; unset: as the search, or auto."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads; unset: as the search, or 1."})
    search_space: str | None = field(
        default=None, metadata={"help": "Of a file, where it is none that ships: one of your own as MODULE:CLASS."}
    )
    child: ChildOptions = field(
        default_factory=ChildOptions, metadata={"help": "One by one, in place of what the preset says:"}
    )


def train_command(args: TrainArgs) -> None:
    """Runs ``nases train``.

    Raises:
        InputError: if an argument is wrong, data are missing, the folder holds something else, or a training fails.
    """
    if args.seeds < 1 or args.seed < 0:
        raise InputError(f"--seeds must be at least 1 and --seed at least 0, not {args.seeds} and {args.seed}")
    is_run = args.source.is_dir()
    training = (_of_run if is_run else _of_file)(args)
    folder = FinalFolder(args.output or (args.source if is_run else args.source.parent) / "final")
    folder.open(training)
    console = Console()
    for seed in range(args.seed, args.seed + args.seeds):
        _train(folder, training, seed)
    report = make_report(folder, search_cost(args.source) if is_run else None)
    console.print(seeds_table(folder.results()))
    console.print(report["sentence"], highlight=False)
    console.print(f"everything is in {folder.path}", soft_wrap=True, highlight=False)


def _train(folder: FinalFolder, training: FinalTraining, seed: int) -> None:
    if folder.result(seed) is not None:
        print(f"seed {seed} is finished", file=sys.stderr)
        return
    with tqdm(
        total=training.settings.num_epochs, unit="epoch", desc=f"seed {seed}", file=sys.stderr, dynamic_ncols=True
    ) as bar:

        def show(record: EpochRecord) -> None:
            bar.set_postfix_str(f"loss {record.train_loss:.3f}, train {record.train_accuracy:.2%}", refresh=False)
            if bar.n == 0 and record.epoch > 1:
                bar.initial = record.epoch - 1  # so that the time left is that of the epochs to come
            bar.update(record.epoch - bar.n)

        try:
            folder.train(training, seed, show)
        except KeyboardInterrupt:
            bar.close()
            print("interrupted; the same command goes on after the last epoch", file=sys.stderr)
            raise


def make_report(folder: FinalFolder, cost: SearchCost | None) -> dict[str, Any]:
    """Writes ``report.json`` and ``report.md`` on all seeds of ``folder`` that are finished.

    Returns:
        What ``report.json`` holds; ``sentence`` sums it up.

    Raises:
        InputError: if there is no result, or a file cannot be written.
    """
    results = folder.results()
    if not results:
        raise InputError(f"{folder.path} has no finished training to report on")
    configuration = folder.read_config()["configuration"]
    sentence = f"test error {error_text(results)} % over {len(results)} seed{'s' * (len(results) > 1)}"
    report = {
        **summarize(results),
        "sentence": sentence,
        "conditions": conditions(configuration, results),
        "search": None if cost is None else vars(cost),
        "seeds": [{name: value for name, value in result.to_dict().items() if name != "curve"} for result in results],
    }
    write_atomically(folder.path / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_atomically(folder.path / "report.md", _markdown(report, configuration, results, cost).encode())
    return report


def _markdown(
    report: dict[str, Any], configuration: dict[str, Any], results: Sequence[FinalResult], cost: SearchCost | None
) -> str:
    parts = ["# Final training", report["conditions"], markdown_table(*seed_rows(results)), f"Mean: {report['sentence']}."]
    if cost is not None:
        parts.append(
            f"The architecture is the best of {cost.num_children} children of {cost.agent} by validation accuracy "
            f"({cost.valid_accuracy:.2%}); evaluating them took {cost.seconds / 3600:.2g} "
            f"{'GPU' if cost.on_gpu else 'CPU'} hours."
        )
    if configuration["dataset"] == "cifar10":
        days = "–" if cost is None else search_days([cost])
        method = "architecture of a file" if cost is None else cost.agent
        row = table_1_row(method, results, configuration["settings"]["cutout"], days)
        parts += ["## Beside the paper's Table 1", table_1([row])]
    return "\n\n".join(parts) + "\n"


def search_cost(run_dir: Path) -> SearchCost:
    """What the search in ``run_dir`` took and came to.

    Raises:
        InputError: if it is no run folder.
    """
    records = list(read_trajectory(run_dir))
    new = [Evaluation.from_dict(record) for record in records if record["is_new"]]
    return SearchCost(
        agent=str(read_config(run_dir)["agent"]),
        num_children=len(records),
        seconds=sum(evaluation.seconds for evaluation in new),
        on_gpu=any(evaluation.device != "cpu" for evaluation in new),
        valid_accuracy=max(evaluation.reward for evaluation in new),
    )


def _of_run(args: TrainArgs) -> FinalTraining:
    search = load_args(SearchArgs, args.source)
    if not is_finished(args.source, search.budget):
        raise InputError(f"the search in {args.source} is not finished; go on with it by --resume, or give its best.json")
    if args.search_space is not None:
        raise InputError(f"--search-space is for an architecture's file; {args.source} has its own")
    env = make_env(search)
    try:
        evaluator = env.unwrapped.evaluator  # type: ignore[attr-defined]
        if not isinstance(evaluator, TrainingEvaluator):
            raise InputError(f"the search in {args.source} trained no networks; give its best.json, and a --dataset")
        best = max(read_trajectory(args.source), key=lambda record: record["reward"])
        if best["status"] != Status.OK:
            raise InputError(f"no child of {args.source} could be trained; search again")
        preset = env.unwrapped.preset  # type: ignore[attr-defined]
        space = get_search_space(evaluator.search_space)
        architecture = space.from_json((args.source / "best.json").read_text())
    except OSError as error:
        raise InputError(f"cannot read {args.source / 'best.json'} ({error.strerror}); search again") from None
    finally:
        env.close()
    return FinalTraining(
        space,
        architecture,
        args.dataset or evaluator.dataset,
        _settings(args, preset),
        data_dir=args.data_dir or evaluator.data_dir,
        device=args.device or evaluator.device,
        num_threads=args.num_threads or evaluator.num_threads,
    )


def _of_file(args: TrainArgs) -> FinalTraining:
    try:
        text = args.source.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"cannot read {args.source} ({reason}); give a run folder or an architecture's JSON file") from None
    if args.dataset is None:
        raise InputError(f"{args.source} names no data set; give --dataset: {', '.join(DATASETS)}")
    space, architecture = parse_architecture(text, args.search_space)
    return FinalTraining(
        space,
        architecture,
        args.dataset,
        _settings(args, "auto"),
        data_dir=args.data_dir,
        device=args.device or "auto",
        num_threads=args.num_threads or 1,
    )


def _settings(args: TrainArgs, preset: str) -> Any:
    given = {name: value for name, value in vars(args.child).items() if value != "preset"}
    for name in USELESS:
        if name in given:
            option = f"--child.{name.replace('_', '-')}"
            raise InputError(f"{option} says nothing of a final training; leave it out")
    _, settings = resolve_preset(args.preset or preset, given, RETRAIN_PRESETS)
    return settings
