"""``nases train``: the final training of an architecture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from nases_env.command_line import given_preset, parse, parse_quietly
from nases_env.console import Console
from nases_env.errors import InputError
from nases_env.evaluation import (
    RETRAIN_PRESETS,
    ChildSettings,
    Limits,
    TrainingEvaluator,
    auto_preset,
    final_settings,
    resolve_preset,
)
from nases_env.input_files import read_text
from nases_env.paths import absolute_path, require_utf8
from nases_env.progress import Progress
from nases_env.retraining.folder import FinalFolder
from nases_env.retraining.report import seeds_table, write_report
from nases_env.retraining.search_record import (
    OTHER_IMAGES,
    SearchRecord,
    changed_settings,
    describe_changes,
    read_search,
    searched_settings,
)
from nases_env.retraining.training import FinalTraining, TrainingFailedError, require_final_settings
from nases_env.search.environment import make_env
from nases_env.search.option_checks import require_at_least, require_num_threads
from nases_env.search.options import ChildOptions, SearchArgs
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import best_record, is_locked, read_config
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space, parse_architecture
from nases_env.streams import optional_output
from nases_env.training import DATASETS, EpochRecord


@dataclass(frozen=True)
class TrainArgs:
    """Train the best architecture of a search to convergence on all training images and test it once.

    The network is that of the search, unless --preset or --child change its size. You can also train the best architecture
    of a search that was stopped.

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
        metadata={
            "help": f"{', '.join(RETRAIN_PRESETS)} or auto; replaces the settings of the search, including the size of the "
            "network. Default: the settings of the search, with a longer training; auto if there is no search."
        },
    )
    dataset: str | None = field(default=None, metadata={"help": f"{', '.join(DATASETS)}. Default: the search's value."})
    seeds: int = field(default=1, metadata={"help": "Number of networks to train, each with its own seed."})
    seed: int = field(default=0, metadata={"help": "The first seed."})
    data_dir: str | None = field(
        default=None, metadata={"help": "Directory with the data set. Default: the search's value for its data set."}
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
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(
        default_factory=Limits,
        metadata={
            "help": "Limits of the network, without its auxiliary head; the defaults are those of the search. "
            "--max-latency limits searches only:"
        },
    )
    child: ChildOptions = field(
        default=None,
        metadata={"help": "Settings of the network and its training; the defaults are set by the search or --preset:"},
    )


ARGS = TrainArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases train``."""
    train_command(parse_train(options))


def parse_train(options: Sequence[str]) -> TrainArgs:
    """Parse the options of ``nases train``; child settings that are not given default to those of the search or preset."""
    given = parse_quietly(TrainArgs, options, TrainArgs(tyro.MISSING, child=ChildSettings()))
    given = given or TrainArgs(Path("best.json"), preset=given_preset(options))
    default = TrainArgs(tyro.MISSING, child=_default_settings(given), limits=_default_limits(given.source))
    args: TrainArgs = parse(TrainArgs, prog="nases train", args=options, default=default)
    return args


def _default_settings(args: TrainArgs) -> ChildSettings:
    """Return the settings of the final training without options of ``--child``."""
    dataset, data_dir, device = args.dataset, args.data_dir, args.device
    if args.source.is_dir():
        searched, search = searched_settings(args.source), load_args(SearchArgs, args.source)
        if args.preset is None:
            return final_settings(searched, search.preset)
        device = device or search.device
        name = read_config(args.source)["configuration"].get("dataset")
        if dataset in (None, name):
            dataset, data_dir = name, data_dir or search.data_dir
    preset = auto_preset(dataset, data_dir, device or "auto") if args.preset in (None, "auto") else args.preset
    return resolve_preset(preset, presets=RETRAIN_PRESETS)[1]


def _default_limits(source: Path) -> Limits:
    return load_args(SearchArgs, source).limits if source.is_dir() else Limits()


def train_command(args: TrainArgs) -> None:
    """Run ``nases train``.

    Raises:
        InputError: if an argument is invalid, data is missing, the output directory belongs to a different training run, or
            the training of a seed fails; the other seeds are trained and reported nevertheless.
    """
    require_at_least(args, 1, "seeds")
    require_num_threads(args)
    require_at_least(args, 0, "seed")
    if args.limits.max_latency not in (None, _default_limits(args.source).max_latency):
        raise InputError("--max-latency limits searches only; pass it to the search, or limit the costs with --max-flops")
    is_run = args.source.is_dir()
    training, search = _from_run(args) if is_run else (_from_file(args), None)
    training.check()
    output = args.output or (args.source if is_run else args.source.parent) / "final"
    require_utf8(output)
    folder = FinalFolder(output)
    folder.open(training)
    if search is not None and not search.has_same_images:
        print(f"note: {OTHER_IMAGES}", file=sys.stderr)
    console = Console(soft_wrap=True)
    with optional_output():
        if search is not None:
            changes = describe_changes(changed_settings(search.settings, training.settings))
            console.print(search.describe(), changes, sep="\n")
        errors = [_train(folder, training, seed) for seed in range(args.seed, args.seed + args.seeds)]
    failure = next((error for error in errors if error), None)
    if failure and not folder.results():
        raise failure
    report = write_report(folder, search)
    Console().print(seeds_table(folder.results()))
    console.print(report["sentence"])
    console.print(f"results: {folder.path}")
    if failure:
        raise failure


def _train(folder: FinalFolder, training: FinalTraining, seed: int) -> TrainingFailedError | None:
    """Train one seed; return the error if it fails, so that the others are trained."""
    if folder.is_finished(seed):
        print(f"seed {seed} is finished", file=sys.stderr)
        return None
    with Progress(f"seed {seed}", training.num_epochs, "epochs") as progress:

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
        except TrainingFailedError as error:
            return error
    return None


def _from_run(args: TrainArgs) -> tuple[FinalTraining, SearchRecord]:
    run_dir = args.source
    _require_idle(run_dir)
    if args.search_space is not None:
        raise InputError(f"--search-space is only for an architecture file; {run_dir} records its own")
    search = read_search(run_dir)
    env = make_env(load_args(SearchArgs, run_dir))
    try:
        evaluator = env.evaluator
        assert isinstance(evaluator, TrainingEvaluator)
        space = get_search_space(evaluator.search_space)
    finally:
        env.close()
    dataset = args.dataset or evaluator.dataset
    training = FinalTraining(
        space,
        _best_architecture(space, run_dir),
        dataset,
        _settings(args),
        data_dir=args.data_dir or (evaluator.data_dir if dataset == evaluator.dataset else None),
        device=args.device or evaluator.device,
        num_threads=args.num_threads or evaluator.num_threads,
        limits=args.limits,
    )
    _require_idle(run_dir)  # a search that was resumed since has removed its finalists
    has_same_images = _has_same_images(run_dir, evaluator, training)
    if not has_same_images and args.data_dir is None and args.dataset is None:
        where = evaluator.dataset if evaluator.data_dir is None else absolute_path(evaluator.data_dir)
        raise InputError(
            f"the images of {where} are not those of the search in {run_dir}; pass their directory (--data-dir), or, to "
            f"train on the present ones, --dataset {evaluator.dataset}"
        )
    return training, replace(search, has_same_images=has_same_images)


def _has_same_images(run_dir: Path, evaluator: TrainingEvaluator, training: FinalTraining) -> bool:
    if training.dataset != evaluator.dataset:
        return False
    now = replace(evaluator, data_dir=training.data_dir, device=training.device).describe()["images"]
    return bool(read_config(run_dir)["configuration"].get("images", now) == now)


def _require_idle(run_dir: Path) -> None:
    if is_locked(run_dir):
        raise InputError(f"a search is writing to {run_dir}; wait until it ends, or stop it")


def _best_architecture(space: SearchSpace, run_dir: Path) -> Architecture:
    best = best_record(run_dir)
    if best is None:
        raise InputError(f"no child of {run_dir} was trained successfully; resume the search, or run a new one")
    return space.from_genotype(best["genotype"])


def _from_file(args: TrainArgs) -> FinalTraining:
    text = read_text(args.source, "pass a run directory or an architecture file")
    if args.dataset is None:
        raise InputError(f"an architecture file does not specify a data set; pass --dataset: {', '.join(DATASETS)}")
    space, architecture = parse_architecture(text, args.search_space)
    return FinalTraining(
        space,
        architecture,
        args.dataset,
        _settings(args),
        data_dir=args.data_dir,
        device=args.device or "auto",
        num_threads=args.num_threads or 1,
        limits=args.limits,
    )


def _settings(args: TrainArgs) -> ChildSettings:
    default = _default_settings(args)
    settings = args.child or default
    require_final_settings(settings, default, "child")
    return settings
