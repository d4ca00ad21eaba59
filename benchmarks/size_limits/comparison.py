"""Compare searches with a limit of the number of parameters to networks without a search that have as many parameters.

    python -m benchmarks.size_limits --output size_limits.json --figure size_limits.svg

With each seed and under each limit, an agent and random search have the same CPU seconds (on a GPU: wall time) to search
``enas_micro_sized``. Their best children, and the widest residual network and the widest network of depthwise-separable
convolutions within the limit, get the same final training. Each of them is measured on the test images once; test images are
not used for any choice.

The preset ``cpu`` is shortened, so that all searches and trainings take about three CPU hours: children are trained on 4,000
images for one epoch, and final networks on 15,000 images for seven.

The same command resumes the searches and trainings in ``--work-dir``. The jobs are ordered by seed, so that the first seeds
are complete for all limits and methods first.
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
from benchmarks.real_search.analysis import Row
from benchmarks.real_search.jobs import Job, run_jobs
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.searches import AGENTS, Search
from benchmarks.real_search.separable_network import SeparableNetworks
from benchmarks.real_search.trainings import BASELINE_SPACES, Training
from benchmarks.size_limits.analysis import FIGURE_FORMATS, analyze, draw, make_table
from nases_env.atomic_io import write_atomically
from nases_env.devices import device_name, resolve_device
from nases_env.envs import ImageEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import ChildSettings, Limits, TrainingEvaluator, final_settings
from nases_env.search import SearchArgs, make_env

REFERENCE = "random_search"  # the agent to which the other methods are compared
BASELINES = {ResidualNetworks.name: "residual network", SeparableNetworks.name: "depthwise-separable network"}
"""The methods without a search and their labels."""

TABLE_WIDTH = 160  # characters


@dataclass
class Args:
    """Options of the benchmark."""

    env_id: str = "NASES-CIFAR10-v0"
    """Id of an environment that trains children."""
    preset: str = "cpu"
    """Preset of the children and of the recipe of the final training, except for the following six options."""
    search_epochs: int = 1
    """Epochs of a child."""
    search_images: int = 4000
    """Training images of a child."""
    valid_images: int = 500
    """Validation images of a child."""
    final_epochs: int = 7
    """Epochs of the final training."""
    final_cycles: int = 3
    """Cycles of the learning rate in the final training."""
    final_images: int = 15000
    """Training images of the final training."""
    limits: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Maximum numbers of parameters."""
    agents: tuple[str, ...] = ("model_assisted", REFERENCE)
    """Names of the agents; random_search must be one of them."""
    search_seconds: float = 300.0
    """CPU seconds of each search, or wall time on a GPU. A search ends with the child during which they pass."""
    num_seeds: int = 3
    """Number of searches of each agent under each limit."""
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
    work_dir: Path = Path("runs/size_limits")
    """Directory of the searches and trainings; only one process at a time may use it."""
    output: Path | None = None
    """JSON file for the analysis."""
    figure: Path | None = None
    """Image file for the test accuracy by the number of parameters: .svg, .png or .pdf."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        if REFERENCE not in self.agents:
            raise InputError(f"--agents must contain {REFERENCE}, to which the other methods are compared")
        if not self.limits or min(self.limits) < 1:
            raise InputError("--limits must be numbers of parameters, such as 10000 30000")
        if not 0 < self.search_seconds < float("inf"):
            raise InputError(f"--search-seconds must be a positive number, not {self.search_seconds}")
        for option, minimum in {"num_seeds": 1, "first_seed": 0, "num_processes": 1, "num_jobs": 0}.items():
            value = getattr(self, option)
            if value is not None and value < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {value}")
        if self.figure is not None and self.figure.suffix not in FIGURE_FORMATS:
            raise InputError(f"--figure must end in {', '.join(FIGURE_FORMATS)}, not {self.figure.name!r}")


class Comparison:
    """All searches and final trainings. The training of a child is known when its search is finished."""

    def __init__(self, args: Args) -> None:
        self.args = args
        require_trained_children(make_env(SearchArgs(env_id=args.env_id)), args.env_id)
        env = make_env(SearchArgs(env_id=args.env_id, preset=args.preset, data_dir=args.data_dir, device=args.device))
        assert isinstance(env, ImageEnv)
        assert isinstance(env.evaluator, TrainingEvaluator)
        resolve_device(args.device)
        self.preset, self._evaluator = env.preset, env.evaluator
        self.settings: ChildSettings = dataclasses.replace(
            env.settings,
            num_epochs=args.search_epochs,
            num_train_images=args.search_images,
            num_valid_images=args.valid_images,
        )
        self.final_settings: ChildSettings = dataclasses.replace(
            final_settings(self.settings, self.preset),
            num_epochs=args.final_epochs,
            num_cycles=args.final_cycles,
            num_train_images=args.final_images,
        )
        self.seeds = range(args.first_seed, args.first_seed + args.num_seeds)
        self.limits = sorted(set(args.limits))
        agents = list(dict.fromkeys(args.agents))
        self.labels = {name: AGENTS[name].label for name in agents} | BASELINES
        self.searches = {
            (name, limit, seed): self._search(name, limit, seed)
            for seed in self.seeds
            for limit in self.limits
            for name in agents
        }

    def _search(self, agent: str, limit: int, seed: int) -> Search:
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
            search_space="enas_micro_sized",
            limits=Limits(max_params=limit),
        )

    def training(self, method: str, limit: int, seed: int) -> Training | None:
        """Return the final training of a method; None if its search is not finished."""
        search = self.searches.get((method, limit, seed))
        if search is None:
            space = method
            train, _ = self._evaluator.images()
            family, num_classes, channels = BASELINE_SPACES[method], len(train.class_names), train.image_shape[0]
            decisions = family.largest(limit, self.final_settings, num_classes, channels).decisions
        else:
            child = search.best_child()
            if child is None:
                return None
            space, decisions = "enas_micro_sized", child.decisions
        return Training(
            search_space=space,
            decisions=decisions,
            seed=seed,
            dataset=self._evaluator.dataset,
            settings=self.final_settings,
            data_dir=self.args.data_dir,
            device=self.args.device,
            work_dir=self.args.work_dir,
        )

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
            for limit in self.limits:
                for method in self.labels:
                    search = self.searches.get((method, limit, seed))
                    if search is not None and search.path not in started and search.children() is None:
                        return search
                    training = self.training(method, limit, seed)
                    if training is not None and training.path not in started and training.read() is None:
                        return training
        return None

    def num_unfinished(self) -> int:
        """Return the number of unfinished jobs, counting each training that is not known yet as one."""
        trainings = [self.training(*key) for key in self._keys()]
        num_trainings = sum(training is None or training.read() is None for training in trainings)
        return num_trainings + sum(search.children() is None for search in self.searches.values())

    def _keys(self) -> list[tuple[str, int, int]]:
        return [(method, limit, seed) for method in self.labels for limit in self.limits for seed in self.seeds]

    def rows(self) -> dict[int, list[Row]]:
        """Return one row for each finished final training, by limit."""
        rows: dict[int, list[Row]] = {limit: [] for limit in self.limits}
        for method, limit, seed in self._keys():
            training = self.training(method, limit, seed)
            result = None if training is None else training.read()
            if training is None or result is None:
                continue
            search = self.searches.get((method, limit, seed))
            child, children = (None, None) if search is None else (search.best_child(), search.children())
            rows[limit].append(Row.make(method, seed, training.key, result, child, children))
        return rows


def main(args: Args) -> None:
    """Compare searches with limits of the number of parameters to networks without a search by their test accuracy."""
    comparison = Comparison(args)
    run_jobs(comparison, args.num_jobs, args.num_processes, args.device)
    report: dict[str, Any] = {
        "benchmark": "size_limits",
        "settings": {**dataclasses.asdict(args), "preset": comparison.preset},
        "device": device_name(resolve_device(args.device)),
        "torch": torch.__version__,
        "num_unfinished_jobs": comparison.num_unfinished(),
        **analyze(comparison.rows(), REFERENCE),
    }
    for table in make_table(report, comparison.labels):
        Console(width=TABLE_WIDTH).print(table.to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())
    if args.figure is not None:
        write_atomically(args.figure, draw(report, comparison.labels, args.figure.suffix[1:]))
