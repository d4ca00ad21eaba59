"""Compare agents on real data: searches with equal CPU seconds, each followed by the final training of its best child.

    python -m benchmarks.real_search --output real_search.json --figure real_search.svg

With each seed, every agent searches until its CPU seconds are used up, including its own computation (on a GPU: wall time).
The five children with the best reward are evaluated again, as in every search, and the one with the best mean
gets the final training on all training images, as by ``nases train``. It is measured on the test images once. Test images
are not used for any choice.

Networks without a search are trained in the same way with the same seeds: the child of the random search with the median
reward, the largest of 1,000 random cells, the cell of ENAS, and a residual network with as many parameters as the networks
chosen with that seed have on average.

The same command resumes the searches and trainings in ``--work-dir``. The jobs are ordered by seed, so that the first seeds
are complete for all methods first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.common.searches import require_trained_children
from benchmarks.real_search.analysis import Row, analyze, draw, make_table
from benchmarks.real_search.jobs import Job, run_jobs
from benchmarks.real_search.largest import largest_cell
from benchmarks.real_search.published import enas_genotype
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.searches import AGENTS, Child, Search, median_child
from benchmarks.real_search.trainings import Training
from nases_env.atomic_io import write_atomically
from nases_env.devices import device_name, resolve_device
from nases_env.envs import ImageEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import TrainingEvaluator, final_settings
from nases_env.search import SearchArgs, make_env

REFERENCE = "random_search"  # the agent to which the other methods are compared
MEDIAN, LARGEST, ENAS, RESIDUAL = "median_random_cell", "largest_random_cell", "enas_cell", "residual_network"
BASELINES = {
    MEDIAN: "median random cell",
    LARGEST: "largest random cell",
    ENAS: "cell of ENAS",
    RESIDUAL: "residual network",
}
"""The methods without a search and their labels."""

FIGURE_FORMATS = (".svg", ".png", ".pdf")
TABLE_WIDTH = 200  # characters


@dataclass
class Args:
    """Options of the benchmark."""

    env_id: str = "NASES-CIFAR10-v0"
    """Id of an environment that trains children."""
    preset: str = "cpu"
    """Preset of the children and of the recipe of the final training."""
    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents; random_search must be one of them."""
    search_seconds: float = 600.0
    """CPU seconds of each search, or wall time on a GPU. A search ends with the child during which they pass; the default is
    enough for about 60 children of the preset cpu."""
    num_largest: int = 1000
    """Number of random cells of which the one with the most FLOPs is trained without a search."""
    num_seeds: int = 5
    """Number of searches of each agent."""
    first_seed: int = 0
    """First seed; the others follow consecutively."""
    data_dir: str | None = None
    """Directory with the data; unset: NASES_DATA_DIR."""
    device: str = "cpu"
    """A torch device; auto: the GPU if there is one."""
    num_processes: int | None = None
    """Number of parallel jobs, with one thread each; unset: the number of CPU cores, or 1 on a GPU."""
    num_jobs: int | None = None
    """Number of searches and final trainings to run now; unset: all. 0 analyzes what is finished."""
    work_dir: Path = Path("runs/real_search")
    """Directory of the searches and trainings; only one process at a time may use it."""
    output: Path | None = None
    """JSON file for the analysis."""
    figure: Path | None = None
    """Image file for the test accuracy of each method: .svg, .png or .pdf."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        if REFERENCE not in self.agents:
            raise InputError(f"--agents must contain {REFERENCE}, to which the other methods are compared")
        if not 0 < self.search_seconds < float("inf"):
            raise InputError(f"--search-seconds must be a positive number, not {self.search_seconds}")
        minimums = {"num_largest": 1, "num_seeds": 1, "first_seed": 0, "num_processes": 1, "num_jobs": 0}
        for option, minimum in minimums.items():
            value = getattr(self, option)
            if value is not None and value < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {value}")
        if self.figure is not None and self.figure.suffix not in FIGURE_FORMATS:
            raise InputError(f"--figure must end in {', '.join(FIGURE_FORMATS)}, not {self.figure.name!r}")


class Comparison:
    """All searches and final trainings. A training is known when the searches that it depends on are finished."""

    def __init__(self, args: Args) -> None:
        self.args = args
        require_trained_children(make_env(SearchArgs(env_id=args.env_id)), args.env_id)
        env = make_env(SearchArgs(env_id=args.env_id, preset=args.preset, data_dir=args.data_dir, device=args.device))
        assert isinstance(env, ImageEnv)
        assert isinstance(env.evaluator, TrainingEvaluator)
        resolve_device(args.device)
        self.preset, self.settings, self._evaluator = env.preset, env.settings, env.evaluator
        self.dataset, self.space = env.evaluator.dataset, env.search_space
        self.seeds = range(args.first_seed, args.first_seed + args.num_seeds)
        agents = list(dict.fromkeys(args.agents))
        self.labels = {name: AGENTS[name].label for name in agents} | BASELINES
        self.searches = {(name, seed): self._search(name, seed) for seed in self.seeds for name in agents}

    def _search(self, agent: str, seed: int) -> Search:
        args = self.args
        return Search(
            agent=agent,
            seed=seed,
            seconds=args.search_seconds,
            env_id=args.env_id,
            preset=self.preset,
            settings=self.settings,
            data_dir=args.data_dir,
            device=args.device,
            work_dir=args.work_dir,
        )

    def chosen(self, method: str, seed: int) -> Child | None:
        """Return the child of a search that a method trains; None if it trains none, or the search is not finished."""
        search = self.searches.get((REFERENCE if method == MEDIAN else method, seed))
        children = None if search is None else search.children()
        if search is None or children is None:
            return None
        return median_child(children) if method == MEDIAN else search.best_child()

    def training(self, method: str, seed: int) -> Training | None:
        """Return the final training of a method; None if a search that it depends on is not finished."""
        space, decisions = self.space.name, None
        if method == ENAS:
            decisions = self.space.from_genotype(enas_genotype()).decisions
        elif method == LARGEST:
            decisions = self._largest(seed)
        elif method == RESIDUAL:
            chosen = [self.chosen(name, number) for name, number in self.searches if number == seed]
            sizes = [child.evaluation.num_params for child in chosen if child is not None]
            if len(sizes) == len(chosen):
                space, decisions = ResidualNetworks.name, (round(sum(sizes) / len(sizes)),)
        elif (child := self.chosen(method, seed)) is not None:
            decisions = child.decisions
        if decisions is None:
            return None
        return Training(
            search_space=space,
            decisions=decisions,
            seed=seed,
            dataset=self.dataset,
            settings=final_settings(self.settings, self.preset),
            data_dir=self.args.data_dir,
            device=self.args.device,
            work_dir=self.args.work_dir,
        )

    def _largest(self, seed: int) -> tuple[int, ...]:
        train, _ = self._evaluator.images()
        num_classes, args = len(train.class_names), self.args
        cell = largest_cell(self.space.name, self.settings, num_classes, train.image_shape, args.num_largest, seed)
        return cell.decisions

    def ready_jobs(self) -> Iterator[Job]:
        """Yield the jobs that are not finished, each one when everything that it depends on is finished, first seeds first.

        The iterator ends when no job is ready, although some may be later.
        """
        started: set[Path] = set()
        while (job := self._next_job(started)) is not None:
            started.add(job.path)
            yield job

    def _next_job(self, started: set[Path]) -> Job | None:
        for seed in self.seeds:
            for (_, number), search in self.searches.items():
                if number == seed and search.path not in started and search.children() is None:
                    return search
            for method in self.labels:
                training = self.training(method, seed)
                if training is not None and training.path not in started and training.read() is None:
                    return training
        return None

    def num_unfinished(self) -> int:
        """Return the number of unfinished jobs, counting each training that is not known yet as one."""
        trainings = [self.training(method, seed) for method in self.labels for seed in self.seeds]
        known = {training.path: training for training in trainings if training is not None}
        num_trainings = trainings.count(None) + sum(training.read() is None for training in known.values())
        return num_trainings + sum(search.children() is None for search in self.searches.values())

    def rows(self) -> list[Row]:
        """Return one row for each finished final training of each method."""
        rows = []
        for method in self.labels:
            for seed in self.seeds:
                training = self.training(method, seed)
                result = None if training is None else training.read()
                if training is None or result is None:
                    continue
                child = self.chosen(method, seed)
                search = self.searches.get((method, seed))
                children = None if search is None else search.children()
                rows.append(Row.make(method, seed, training.key, result, child, children))
        return rows


def main(args: Args) -> None:
    """Compare searches with equal CPU seconds and networks without a search by their test accuracy."""
    comparison = Comparison(args)
    run_jobs(comparison, args.num_jobs, args.num_processes, args.device)
    report: dict[str, Any] = {
        "benchmark": "real_search",
        "settings": {**dataclasses.asdict(args), "preset": comparison.preset},
        "device": device_name(resolve_device(args.device)),
        "torch": torch.__version__,
        "num_unfinished_jobs": comparison.num_unfinished(),
        **analyze(comparison.rows(), REFERENCE),
    }
    table = make_table(report, comparison.labels)
    Console(width=TABLE_WIDTH).print(table.to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())
    if args.figure is not None:
        write_atomically(args.figure, draw(report, comparison.labels, args.figure.suffix[1:]))
