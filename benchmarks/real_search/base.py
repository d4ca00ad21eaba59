"""What the benchmarks of searches on real data share: their options, and the order of searches and final trainings."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.common.archive import archived
from benchmarks.common.identity import digest_of_own_images
from benchmarks.common.searches import require_trained_children
from benchmarks.real_search.jobs import Job, run_jobs
from benchmarks.real_search.searches import AGENTS
from nases_env.devices import device_name, resolve_device
from nases_env.envs import ImageEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import ChildSettings, TrainingEvaluator, final_settings
from nases_env.search import SearchArgs, make_env

REFERENCE = "random_search"  # the agent to which the other methods are compared
FIGURE_FORMATS = (".svg", ".png", ".pdf")


@dataclass
class ComparisonArgs:
    """Options of all benchmarks of searches on real data."""

    minimums: ClassVar[dict[str, int]] = {
        **dict.fromkeys(("num_seeds", "num_processes", "final_epochs", "final_cycles", "final_images"), 1),
        **dict.fromkeys(("first_seed", "num_jobs"), 0),
    }

    env_id: str = "NASES-CIFAR10-v0"
    """Id of an environment that trains children."""
    preset: str = "cpu"
    """Preset of the children and of the recipe of the final training."""
    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents; random_search must be one of them."""
    search_seconds: float = 600.0
    """CPU seconds of each search, or wall time on a GPU. A search ends with the child during which they pass."""
    final_epochs: int | None = None
    """Epochs of the final training; unset: those of the recipe."""
    final_cycles: int | None = None
    """Cycles of the learning rate in the final training; unset: those of the recipe."""
    final_images: int | None = None
    """Training images of the final training; unset: all."""
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
    """Number of searches, final trainings and other jobs to run now; unset: all. 0 analyzes what is finished."""
    work_dir: Path = Path("runs/comparison")
    """Directory of the searches and trainings; only one process at a time may use it."""
    archive: Path | None = None
    """File of finished searches and trainings. Those that it contains are not repeated; those of this run are added."""
    output: Path | None = None
    """JSON file for the analysis."""
    figure: Path | None = None
    """Image file for the test accuracy: .svg, .png or .pdf."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        if REFERENCE not in self.agents:
            raise InputError(f"--agents must contain {REFERENCE}, to which the other methods are compared")
        if not 0 < self.search_seconds < float("inf"):
            raise InputError(f"--search-seconds must be a positive number, not {self.search_seconds}")
        for option, minimum in self.minimums.items():
            value = getattr(self, option)
            if value is not None and value < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {value}")
        if self.figure is not None and self.figure.suffix not in FIGURE_FORMATS:
            raise InputError(f"--figure must end in {', '.join(FIGURE_FORMATS)}, not {self.figure.name!r}")


class SearchComparison(ABC):
    """Searches and final trainings. A training is known when the searches that it depends on are finished.

    Args:
        args: the options.
        search_space: name of the search space; None: that of the environment.

    Attributes:
        preset: name of the preset of the children.
        settings: its settings, with those of the environment.
        evaluator: the evaluator of the environment.
        images: digest of the images; None for a fixed data set.
        search_space: the search space.
        seeds: the seeds of the searches and trainings.
        agents: names of the agents.

    Raises:
        InputError: if the environment does not train children, or the device does not exist.
    """

    def __init__(self, args: ComparisonArgs, search_space: str | None = None) -> None:
        self.args = args
        require_trained_children(make_env(SearchArgs(env_id=args.env_id)), args.env_id)
        env = make_env(
            SearchArgs(
                env_id=args.env_id,
                preset=args.preset,
                data_dir=args.data_dir,
                device=args.device,
                search_space=search_space,
            )
        )
        assert isinstance(env, ImageEnv)
        assert isinstance(env.evaluator, TrainingEvaluator)
        resolve_device(args.device)
        self.preset, self.settings, self.evaluator = env.preset, env.settings, env.evaluator
        self.images = digest_of_own_images(
            self.evaluator.dataset, args.data_dir, self.settings.image_size, with_test_images=True
        )
        self.search_space = env.search_space
        self.seeds = range(args.first_seed, args.first_seed + args.num_seeds)
        self.agents = list(dict.fromkeys(args.agents))

    def final_settings(self, searched: ChildSettings) -> ChildSettings:
        """Return the settings of the final trainings: the recipe of the preset, changed by the options.

        Args:
            searched: the child settings of the searches.
        """
        args = self.args
        options = {
            "num_epochs": args.final_epochs,
            "num_cycles": args.final_cycles,
            "num_train_images": args.final_images,
        }
        changed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return dataclasses.replace(final_settings(searched, self.preset), **changed)

    @abstractmethod
    def jobs(self) -> Iterator[Job | None]:
        """Yield all searches and trainings in the order in which they should run; None is a training that is not known."""

    def ready_jobs(self) -> Iterator[Job]:
        """Yield the jobs that are not finished, each one when everything that it depends on is finished.

        The iterator ends when no job is ready, although some may be later.
        """
        started: set[Path] = set()
        while (job := self._next_job(started)) is not None:
            started.add(job.path)
            yield job

    def _next_job(self, started: set[Path]) -> Job | None:
        return next((job for job in self.jobs() if job and job.path not in started and not job.is_finished), None)

    def num_unfinished(self) -> int:
        """Return the number of unfinished jobs, counting each training that is not known yet as one."""
        jobs = list(self.jobs())
        return jobs.count(None) + len({job.path for job in jobs if job and not job.is_finished})

    def run(self) -> None:
        """Run the unfinished jobs, and add the finished ones to the archive."""
        args = self.args
        with archived(args.archive, args.work_dir, self._finished):
            run_jobs(self, args.num_jobs, args.num_processes, args.device)

    def _finished(self) -> set[Path]:
        return {job.path for job in self.jobs() if job and job.is_finished}

    def describe(self) -> dict[str, Any]:
        """Return the part of the report on the settings and the state of the comparison."""
        return {
            "settings": {**dataclasses.asdict(self.args), "preset": self.preset},
            "device": device_name(resolve_device(self.args.device)),
            "torch": torch.__version__,
            "num_unfinished_jobs": self.num_unfinished(),
        }
