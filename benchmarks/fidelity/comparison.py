"""Compare short trainings with the final training: which reward finds the cells that are best in the end?

    python -m benchmarks.fidelity --output fidelity.json --table fidelity.csv

Random cells are trained with the recipe of the final training, with several seeds, and with short variants of a preset.
Trainings of a cell with the same number of the seed have the same initial weights, unlike in a search. The final training
uses the training split, and is measured on the validation split after each epoch and on the test images once, at its end.
The numbers of parameters and of FLOPs are signals that need no training. Each signal is compared with the mean final
validation accuracy of each cell (used to choose settings) and with its mean final test accuracy (only reported); the
signals of the final training itself, which are those of the first seed, with the means of the other seeds. Seconds are CPU
seconds, or wall time on a GPU. The short training ``distillation`` uses the outputs of a wider network, the teacher, which
is trained once before the other trainings. Its training is not part of their seconds.

``--further-cells`` also trains given cells, such as those that searches chose, to compare them with the random ones.

The same command resumes the trainings in ``--work-dir``, the final ones after their last checkpoint. With ``--archive``,
finished trainings are also kept in one file, from which another machine continues.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from tqdm import tqdm

from benchmarks.common.archive import archived
from benchmarks.common.identity import digest_of_own_images
from benchmarks.common.report import TextTable, format_interval
from benchmarks.common.workers import map_unordered
from benchmarks.fidelity.cells import FIRST_FURTHER, MEANS, describe_further_cells, mean_row, read_cells, sample_cells
from benchmarks.fidelity.rungs import RungSchedule, describe_schedule, make_schedules
from benchmarks.fidelity.signals import (
    FINAL,
    FLOPS_EXPONENTS,
    SHORT_TRAININGS,
    Numbers,
    Signal,
    average,
    ceiling,
    describe,
    rewards_of_training,
    scores_of_epochs,
    signals_of_rungs,
    signals_of_sizes,
    signals_of_training,
)
from benchmarks.fidelity.trainings import Job, find_teacher, read_teacher, run
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import ChildSettings, final_settings, resolve_preset
from nases_env.search.option_checks import require_at_least
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import numpy_generator
from nases_env.training import load_images

RUNGS = (1, 3, 7)  # the ends of the cosine cycles of the recipe cpu, before its last
MIN_CELLS = 3
TABLE_WIDTH = 200  # characters
SUBSET_SIZE = 16  # cells in a simulated search with rungs
Results = dict[tuple[int, int], dict[str, Any]]
"""The finished results of one training, by cell and repeat."""
PerSeed = list[list[dict[str, Any]]]
"""The results of one training by seed, each a list with one result per cell."""


class Comparison(NamedTuple):
    """A signal, and the final validation and test accuracies that it should predict, of shape (cells, seeds)."""

    signal: Signal
    valid: Numbers
    test: Numbers


@dataclass
class Args:
    """Options of the benchmark."""

    search_space: str = "enas_micro"
    """Name of the search space."""
    dataset: str = "cifar10"
    """Name of the data set."""
    data_dir: str | None = None
    """Directory with the data; unset: NASES_DATA_DIR."""
    preset: str = "cpu"
    """Preset of the short trainings, and of the recipe of the final training."""
    num_cells: int = 32
    """Number of random cells."""
    further_cells: Path | None = None
    """File with further cells, such as those that searches chose: one architecture per line, as in best.json. They are
    trained after the random ones and compared with them. The signals are compared by the random cells only."""
    num_seeds: int = 2
    """Number of final trainings of each cell."""
    trainings: tuple[str, ...] = tuple(SHORT_TRAININGS)
    """Short trainings to compare."""
    num_trainings: int | None = None
    """Number of trainings to run now; unset: all. 0 analyzes what is finished."""
    seed: int = 0
    """Seed of the cells and of all trainings."""
    device: str = "cpu"
    """Torch device."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel trainings, with one thread each."""
    num_resamples: int = 1000
    """Number of bootstrap samples of the intervals, and of random subsets for the rung schedules; at least 1."""
    work_dir: Path = Path("runs/fidelity")
    """Directory of the trainings."""
    archive: Path | None = None
    """File of finished trainings. Those that it contains are not repeated; those of this run are added."""
    table: Path | None = None
    """CSV file for all measurements, one row per training and epoch."""
    output: Path | None = None
    """JSON file for the analysis."""

    def __post_init__(self) -> None:
        if self.num_cells < MIN_CELLS or self.num_seeds < 2 or self.num_processes < 1:
            raise InputError(f"fidelity needs at least {MIN_CELLS} --num-cells, 2 --num-seeds and 1 --num-processes")
        if self.num_cells > FIRST_FURTHER:
            raise InputError(f"--num-cells must be at most {FIRST_FURTHER}, not {self.num_cells}")
        require_at_least(self, 0, "num_trainings")
        require_at_least(self, 1, "num_resamples")
        for name in self.trainings:
            if name not in SHORT_TRAININGS:
                hint = did_you_mean(name, SHORT_TRAININGS)
                raise InputError(f"unknown training {name!r}{hint}; known: {', '.join(SHORT_TRAININGS)}")
        resolve_preset(self.preset)


def settings_of(args: Args, name: str) -> ChildSettings:
    """Return the settings of a training by name."""
    _, preset = resolve_preset(args.preset)
    return final_settings(preset, args.preset) if name == FINAL else replace(preset, **SHORT_TRAININGS[name])


def random_cells(args: Args) -> list[Architecture]:
    """Return the random cells."""
    return sample_cells(args.search_space, args.num_cells, args.seed)


def make_jobs(args: Args) -> list[Job]:
    """Return all trainings, cell by cell, so that the finished ones are complete for the first cells."""
    further = [] if args.further_cells is None else read_cells(args.further_cells, args.search_space)
    cells = [*enumerate(random_cells(args)), *enumerate(further, FIRST_FURTHER)]
    repeats = [(FINAL, repeat) for repeat in range(args.num_seeds)]
    repeats += [(name, repeat) for name in args.trainings for repeat in range(args.num_seeds)]
    image_size = settings_of(args, FINAL).image_size
    images = digest_of_own_images(args.dataset, args.data_dir, image_size, with_test_images=True)
    return [
        Job(
            name=name,
            cell=index,
            key=cell.key,
            decisions=tuple(int(decision) for decision in cell.decisions),
            repeat=repeat,
            settings=settings_of(args, name),
            dataset=args.dataset,
            data_dir=args.data_dir,
            device=args.device,
            search_space=args.search_space,
            seed=args.seed,
            images=images,
            is_final=name == FINAL,
            work_dir=args.work_dir,
        )
        for index, cell in cells
        for name, repeat in repeats
    ]


def analyze(jobs: Sequence[Job], args: Args) -> dict[str, Any]:
    """Return the ceiling and the metrics of all signals of the cells whose trainings all finished and did not diverge.

    Raises:
        InputError: if fewer than ``MIN_CELLS`` cells are finished.
    """
    results, failed_cells = _read_results(jobs)
    failed_cells = {cell for cell in failed_cells if cell < FIRST_FURTHER}
    cells = _finished_cells(results, failed_cells, args)
    by_cell = {
        name: [[finished[cell, repeat] for cell in cells] for repeat in range(args.num_seeds)]
        for name, finished in results.items()
    }
    curves, losses, seconds = (_curves(by_cell[FINAL], name) for name in ("valid_accuracy", "train_loss", "seconds"))
    valid = curves[:, :, -1].T
    test = np.array([[result["test_accuracy"] for result in part] for part in by_cell[FINAL]]).T
    rungs = [rung for rung in RUNGS if rung < curves.shape[-1]]
    rng = numpy_generator(args.seed, "fidelity", "bootstrap")
    comparisons = _comparisons(by_cell, valid, test, rungs, args)
    sizes = _signals_of_sizes(cells, args)
    comparisons += [Comparison(signal, valid, test) for signal in sizes]
    rows = [_describe(comparison, rng, args) for comparison in comparisons]
    rewards = {
        name: [
            _describe(Comparison(signal, valid, test), rng, args)
            for signal in rewards_of_training(name, by_cell[name][0], sizes[-1].values)
        ]
        for name in args.trainings
    }
    exponent = get_search_space(args.search_space).flops_exponent
    scores = scores_of_epochs(curves[0], losses[0], sizes[-1].values, exponent)
    rung_rows = [
        {"signal": name, **row}
        for name, values in scores.items()
        for row in _describe_schedules(values, seconds[0], valid[:, 1:].mean(axis=1), rungs, args)
    ]
    return {
        "benchmark": "fidelity",
        "num_cells": len(cells),
        "num_failed_cells": len(failed_cells),
        "num_seeds": args.num_seeds,
        "final_seconds": float(seconds[0, :, -1].mean()),
        "teacher": _describe_teacher(jobs),
        "valid_accuracy": _mean_and_sd(valid),
        "test_accuracy": _mean_and_sd(test),
        "ceiling": {"valid": ceiling(valid), "test": ceiling(test)},
        "signals": sorted(rows, key=lambda row: -(row["spearman"][0] or 0.0)),
        "rewards": rewards,
        "rung_schedules": sorted(rung_rows, key=lambda row: row["cost"]),
        "further_cells": describe_further_cells(results[FINAL], args.num_seeds, test.mean(axis=1)),
    }


def _read_results(jobs: Sequence[Job]) -> tuple[dict[str, Results], set[int]]:
    """Return the finished results by training, and the cells with a training that did not finish normally."""
    results: dict[str, Results] = {job.name: {} for job in jobs}
    failed_cells: set[int] = set()
    for job in jobs:
        result = job.read()
        if result is not None and result["status"] == "ok":
            results[job.name][job.cell, job.repeat] = result
        elif result is not None:
            failed_cells.add(job.cell)
    return results, failed_cells


def _finished_cells(results: Mapping[str, Results], failed_cells: Set[int], args: Args) -> list[int]:
    """Return the cells with the results of all trainings; raise ``InputError`` if there are too few."""
    repeats = range(args.num_seeds)
    cells = [
        cell
        for cell in range(args.num_cells)
        if all((cell, repeat) in finished for finished in results.values() for repeat in repeats)
    ]
    if len(cells) < MIN_CELLS:
        failed = f", and {len(failed_cells)} cell{'s' * (len(failed_cells) > 1)} diverged" if failed_cells else ""
        raise InputError(
            f"the trainings of {len(cells)} cells are finished{failed}; at least {MIN_CELLS} are needed for the analysis"
        )
    return cells


def _curves(results: PerSeed, name: str) -> Numbers:
    """Return a measurement after each epoch, shape (seeds, cells, epochs)."""
    return np.array([[[epoch[name] for epoch in result["epochs"].values()] for result in part] for part in results])


def _comparisons(
    results: Mapping[str, PerSeed], valid: Numbers, test: Numbers, rungs: Sequence[int], args: Args
) -> list[Comparison]:
    """Return all signals with the final accuracies to predict.

    The final trainings with the first seed give the signals of the rungs, the others the accuracy to predict.

    Args:
        results: the results of the finished cells, by training.
        valid: final validation accuracies, shape (cells, seeds).
        test: final test accuracies, of the same shape.
        rungs: epochs after which the final training could be stopped.
        args: the options.
    """
    comparisons = [Comparison(signal, valid[:, 1:], test[:, 1:]) for signal in signals_of_rungs(results[FINAL][0], rungs)]
    for name in args.trainings:
        per_seed = [signals_of_training(name, part) for part in results[name]]
        if name == "half":
            signals = [average(f"{same[0].name}, {args.num_seeds} seeds", same) for same in zip(*per_seed, strict=True)]
        else:
            signals = per_seed[0]
        comparisons += [Comparison(signal, valid, test) for signal in signals]
    return comparisons


def _signals_of_sizes(cells: Sequence[int], args: Args) -> list[Signal]:
    """Return the signals that need no training, of the finished cells."""
    settings = settings_of(args, FINAL)
    images = load_images(args.dataset, train=False, data_dir=args.data_dir, image_size=settings.image_size)
    space, architectures = get_search_space(args.search_space), random_cells(args)
    with torch.device("meta"):
        networks = [
            space.build(architectures[cell], settings, num_classes=len(images.class_names), image_shape=images.image_shape)
            for cell in cells
        ]
    return signals_of_sizes(networks, images.image_shape)


def _describe(comparison: Comparison, rng: np.random.Generator, args: Args) -> dict[str, Any]:
    """Return the row of a signal in the report."""
    signal, valid, test = comparison
    on_valid = describe(signal, valid.mean(axis=1), rng, args.num_resamples)
    on_test = describe(signal, test.mean(axis=1), rng, args.num_resamples, ("spearman", "regret_1"))
    return {
        "name": signal.name,
        "seconds": signal.seconds,
        **on_valid,
        **{f"test_{name}": values for name, values in on_test.items()},
    }


def _describe_schedules(
    scores: Numbers, seconds: Numbers, accuracies: Numbers, rungs: Sequence[int], args: Args
) -> list[dict[str, Any]]:
    """Return the rows of all rung schedules in the report; see ``describe_schedule``."""
    num_epochs = scores.shape[-1]
    # Training all cells to the end is the schedule without early rungs.
    schedules = [RungSchedule((num_epochs,), 1), *make_schedules([*rungs, num_epochs])]
    return [
        describe_schedule(
            schedule,
            scores,
            seconds,
            accuracies,
            numpy_generator(args.seed, "fidelity", "subsets"),  # the same subsets for all schedules
            num_subsets=args.num_resamples,
            subset_size=SUBSET_SIZE,
        )
        for schedule in schedules
    ]


def _describe_teacher(jobs: Sequence[Job]) -> dict[str, float] | None:
    """Return the seconds and the validation accuracy of the teacher, or None if none was trained."""
    teacher = find_teacher(jobs)
    trained = None if teacher is None else read_teacher(teacher)
    return None if trained is None else {name: trained[0][name] for name in ("seconds", "valid_accuracy")}


def _mean_and_sd(accuracies: Numbers) -> dict[str, float]:
    """Return the mean and the standard deviation between cells of accuracies of shape (cells, seeds)."""
    return {"mean": float(accuracies.mean()), "sd": float(accuracies.mean(axis=1).std(ddof=1))}


def to_csv(jobs: Sequence[Job]) -> str:
    """Return the measurements of all finished trainings, one row per training and epoch; accuracies in [0, 1]."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        result = job.read()
        if result is None:
            continue
        for epoch, values in result["epochs"].items():
            row = {"key": job.key, "training": job.name, "seed": job.repeat, "epoch": epoch}
            row |= {name: f"{value:.5g}" for name, value in values.items()}
            rows.append(row)
        if "test_accuracy" in result:
            rows[-1]["test_accuracy"] = f"{result['test_accuracy']:.5g}"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def make_tables(report: dict[str, Any]) -> list[TextTable]:
    """Return the tables of the signals, of the rung schedules, and of the further cells if there are any."""
    headings = ["signal", "Spearman (95%)", "Kendall", "regret of top 1 in %", "of top 3", "Spearman, test", "seconds"]
    rows = [
        [
            row["name"],
            _estimate(row["spearman"]),
            _estimate(row["kendall"]),
            _estimate(row["regret_1"], 100),
            _estimate(row["regret_3"], 100),
            _estimate(row["test_spearman"]),
            f"{row['seconds']:.1f}",
        ]
        for row in report["signals"]
    ]
    between, with_mean = ("–" if value is None else f"{value:.2f}" for value in report["ceiling"]["valid"].values())
    title = (
        f"{report['num_cells']} cells, {report['num_failed_cells']} left out because a training diverged, "
        f"{report['num_seeds']} seeds; ceiling: {between} between two final trainings, "
        f"{with_mean} with their mean"
    )
    if report["teacher"] is not None:
        title += f"; the teacher of the distillation was trained once, in {report['teacher']['seconds']:.1f} seconds"
    num_exponents = len(FLOPS_EXPONENTS)
    reward_rows = [
        [name, signal, *(_estimate([row["spearman"][0], None, None]) for row in part)]
        for name, rows_of_training in report["rewards"].items()
        for signal, part in (
            ("valid_accuracy", rows_of_training[:num_exponents]),
            ("training_speed", rows_of_training[num_exponents:]),
        )
    ]
    rung_rows = [
        [row["name"], row["signal"], _estimate(row["regret"], 100), f"{row['cost']:.0%}"] for row in report["rung_schedules"]
    ]
    tables = [
        TextTable(title, headings, rows),
        TextTable(
            "Spearman correlation of rewards with the final accuracy, by the exponent of the FLOPs",
            ["training", "signal", *(f"{exponent:g}" for exponent in FLOPS_EXPONENTS)],
            reward_rows,
        ),
        TextTable(
            f"successive halving among {min(SUBSET_SIZE, report['num_cells'])} cells",
            ["epochs (kept)", "ranked by", "regret in % (95% of the subsets)", "seconds"],
            rung_rows,
        ),
    ]
    if report["further_cells"]:
        tables.append(_table_of_further_cells(report))
    return tables


def _table_of_further_cells(report: dict[str, Any]) -> TextTable:
    rows = report["further_cells"]
    labeled = [*((str(row["line"]), row) for row in rows), ("mean", mean_row(rows))]
    return TextTable(
        f"further cells; the mean test accuracy of the random ones is {report['test_accuracy']['mean']:.1%}",
        ["line", "validation accuracy", "test accuracy", "random cells that are worse"],
        [[label, *(f"{row[name]:.1%}" for name in MEANS)] for label, row in labeled],
    )


def _estimate(values: Sequence[float | None], scale: float = 1.0) -> str:
    value, low, high = values
    if value is None:
        return "–"
    return f"{scale * value:.2f}" if low is None or high is None else format_interval(value, low, high, scale)


def main(args: Args) -> None:
    """Measure how well short trainings predict the final accuracy."""
    jobs = make_jobs(args)
    with archived(args.archive, args.work_dir, lambda: [job.path for job in jobs if job.read() is not None]):
        pending = [job for job in jobs if job.read() is None]
        if args.num_trainings is not None:
            pending = pending[: args.num_trainings]
        teacher = find_teacher(pending)
        teachers = [] if teacher is None or read_teacher(teacher) is not None else [teacher]
        # The teacher is trained before the processes start.
        trainings = itertools.chain(map_unordered(run, teachers, 1), map_unordered(run, pending, args.num_processes))
        for _ in tqdm(trainings, total=len(teachers) + len(pending), unit="training"):
            pass
    if args.table is not None:
        write_atomically(args.table, to_csv(jobs).encode())
    report = analyze(jobs, args)
    for table in make_tables(report):
        Console(width=TABLE_WIDTH).print(table.to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2) + "\n").encode())
