"""``nases train``: the final training of an architecture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from nases_env.command_line import given_preset, parse
from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS, ChildSettings, Status, TrainingEvaluator, resolve_preset
from nases_env.progress import Progress
from nases_env.retraining.folder import FinalFolder
from nases_env.retraining.report import search_cost, seeds_table, write_report
from nases_env.retraining.training import FinalTraining
from nases_env.search.options import ChildOptions, SearchArgs, load_args, make_env
from nases_env.search.run_dir import is_finished, read_trajectory
from nases_env.search_spaces import get_search_space, parse_architecture
from nases_env.training import DATASETS, EpochRecord

IGNORED_SETTINGS = ("num_valid_images", "max_params")  # settings without effect on a final training


@dataclass(frozen=True)
class TrainArgs:
    """Train the best architecture of a search to convergence on all training images and test it once.

    Rerun the command to resume it after an interruption. To train several seeds in parallel, run one command per seed, each
    with its own --seed and --device, with the same output directory.
    """

    source: tyro.conf.Positional[Path] = field(
        metadata={"help": "Run directory of a search, or JSON file with an architecture, such as best.json."}
    )
    output: Path | None = field(
        default=None, metadata={"help": "Output directory. Default: final, in the run directory or next to the file."}
    )
    preset: str | None = field(
        default=None,
        metadata={"help": f"{', '.join(RETRAIN_PRESETS)} or auto. Default: the search's value; auto if there is no search."},
    )
    dataset: str | None = field(default=None, metadata={"help": f"{', '.join(DATASETS)}. Default: the search's value."})
    seeds: int = field(default=1, metadata={"help": "Number of networks to train, each with its own seed."})
    seed: int = field(default=0, metadata={"help": "The first seed."})
    data_dir: str | None = field(
        default=None, metadata={"help": "Directory with the data sets. Default: the search's value."}
    )
    device: str | None = field(
        default=None, metadata={"help": "Torch device or auto. Default: the search's value; auto if there is no search."}
    )
    num_threads: int | None = field(
        default=None, metadata={"help": "Number of CPU threads. Default: the search's value; 1 if there is no search."}
    )
    search_space: str | None = field(
        default=None, metadata={"help": "Custom search space of an architecture file as MODULE:CLASS."}
    )
    child: ChildOptions = field(
        default=None, metadata={"help": "Settings of the network and its training; the defaults are set by --preset:"}
    )


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases train``."""
    train_command(parse_train(options))


def parse_train(options: Sequence[str]) -> TrainArgs:
    """Parse the options of ``nases train``; child settings that are not given default to the preset's values."""

    def read(preset: str) -> TrainArgs:
        _, child = resolve_preset(preset, presets=RETRAIN_PRESETS)
        default = TrainArgs(tyro.MISSING, child=child)
        args: TrainArgs = parse(TrainArgs, prog="nases train", args=options, default=default)
        return args

    preset = given_preset(options)
    args = read(preset or "auto")
    return read(load_args(SearchArgs, args.source).preset) if preset is None and args.source.is_dir() else args


def train_command(args: TrainArgs) -> None:
    """Run ``nases train``.

    Raises:
        InputError: if an argument is invalid, data is missing, the output directory belongs to a different training run, or
            training fails.
    """
    if args.seeds < 1 or args.seed < 0:
        raise InputError(f"--seeds must be at least 1 and --seed at least 0, not {args.seeds} and {args.seed}")
    is_run = args.source.is_dir()
    training = (_from_run if is_run else _from_file)(args)
    folder = FinalFolder(args.output or (args.source if is_run else args.source.parent) / "final")
    folder.open(training)
    console = Console()
    for seed in range(args.seed, args.seed + args.seeds):
        _train(folder, training, seed)
    report = write_report(folder, search_cost(args.source) if is_run else None)
    console.print(seeds_table(folder.results()))
    console.print(report["sentence"], highlight=False)
    console.print(f"results: {folder.path}", soft_wrap=True, highlight=False)


def _train(folder: FinalFolder, training: FinalTraining, seed: int) -> None:
    if folder.result(seed) is not None:
        print(f"seed {seed} is finished", file=sys.stderr)
        return
    with Progress(f"seed {seed}", training.settings.num_epochs, "epochs") as progress:

        def show(record: EpochRecord) -> None:
            if progress.done == 0:
                progress.initial = record.epoch - 1  # if resumed, excludes earlier epochs from the estimated time
            progress.update(record.epoch, [f"loss {record.train_loss:.3f}", f"train {record.train_accuracy:.2%}"])

        try:
            folder.train(training, seed, show)
        except KeyboardInterrupt:
            progress.close()
            print("interrupted; rerun the command to resume after the last epoch", file=sys.stderr)
            raise


def _from_run(args: TrainArgs) -> FinalTraining:
    search = load_args(SearchArgs, args.source)
    if not is_finished(args.source, search.budget):
        raise InputError(f"the search in {args.source} is not finished; resume it with --resume, or train its best.json")
    if args.search_space is not None:
        raise InputError(f"--search-space is only for an architecture file; {args.source} records its own")
    env = make_env(search)
    try:
        evaluator = env.unwrapped.evaluator  # type: ignore[attr-defined]
        if not isinstance(evaluator, TrainingEvaluator):
            raise InputError(f"the search in {args.source} did not train networks; train its best.json, with --dataset")
        best = max(read_trajectory(args.source), key=lambda record: record["reward"])
        if best["status"] != Status.OK:
            raise InputError(f"no child of {args.source} was trained successfully; run a new search")
        space = get_search_space(evaluator.search_space)
        architecture = space.from_json((args.source / "best.json").read_text())
    except OSError as error:
        raise InputError(f"cannot read {args.source / 'best.json'} ({error.strerror}); run the search again") from None
    finally:
        env.close()
    return FinalTraining(
        space,
        architecture,
        args.dataset or evaluator.dataset,
        _settings(args, search.preset),
        data_dir=args.data_dir or evaluator.data_dir,
        device=args.device or evaluator.device,
        num_threads=args.num_threads or evaluator.num_threads,
    )


def _from_file(args: TrainArgs) -> FinalTraining:
    try:
        text = args.source.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"cannot read {args.source} ({reason}); pass a run directory or an architecture file") from None
    if args.dataset is None:
        raise InputError(f"an architecture file does not specify a data set; pass --dataset: {', '.join(DATASETS)}")
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


def _settings(args: TrainArgs, preset: str) -> ChildSettings:
    settings = args.child or resolve_preset(args.preset or preset, presets=RETRAIN_PRESETS)[1]
    for name in IGNORED_SETTINGS:
        if getattr(settings, name) is not None:
            option = f"--child.{name.replace('_', '-')}"
            raise InputError(f"{option} has no effect on a final training; omit it")
    return settings
