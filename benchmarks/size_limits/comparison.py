"""Compare searches with a limit of the number of parameters to networks without a search that have as many parameters.

    python -m benchmarks.size_limits --output size_limits.json --figure size_limits.svg

With each seed and under each limit, an agent and random search have the same CPU seconds (on a GPU: wall time) to search
``enas_micro_sized``. Their best children, and the widest residual network and the widest network of depthwise-separable
convolutions within the limit, get the same final training. Each of them is measured on the test images once; test images are
not used for any choice.

The preset ``cpu`` is shortened, so that all searches and trainings take about three CPU hours: children are trained on 2,000
images for four epochs, and final networks on 15,000 images for seven.

The same command resumes the searches and trainings in ``--work-dir``. With ``--archive``, finished ones are also kept in one
file, from which another machine continues. The jobs are ordered by seed, so that the first seeds are complete first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.real_search.analysis import Row
from benchmarks.real_search.base import REFERENCE, ComparisonArgs, SearchComparison
from benchmarks.real_search.jobs import Job
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.searches import AGENTS, Search
from benchmarks.real_search.separable_network import SeparableNetworks
from benchmarks.real_search.trainings import BASELINE_SPACES, Training
from benchmarks.size_limits.analysis import analyze, draw, make_table
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Limits

BASELINES = {ResidualNetworks.name: "residual network", SeparableNetworks.name: "depthwise-separable network"}
"""The methods without a search and their labels."""

TABLE_WIDTH = 160  # characters


@dataclass
class Args(ComparisonArgs):
    """Options of the benchmark. The six options of images, epochs and cycles replace those of the preset."""

    search_epochs: int = 4
    """Epochs of a child."""
    search_images: int = 2000
    """Training images of a child."""
    valid_images: int = 500
    """Validation images of a child."""
    final_epochs: int | None = 7
    """Epochs of the final training."""
    final_cycles: int | None = 3
    """Cycles of the learning rate in the final training."""
    final_images: int | None = 15000
    """Training images of the final training."""
    limits: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Maximum numbers of parameters."""
    agents: tuple[str, ...] = ("model_assisted", REFERENCE)
    """Names of the agents; random_search must be one of them."""
    search_seconds: float = 300.0
    """CPU seconds of each search, or wall time on a GPU. A search ends with the child during which they pass."""
    num_seeds: int = 3
    """Number of searches of each agent under each limit."""
    work_dir: Path = Path("runs/size_limits")
    """Directory of the searches and trainings; only one process at a time may use it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.limits or min(self.limits) < 1:
            raise InputError("--limits must be numbers of parameters, such as 10000 30000")


class Comparison(SearchComparison):
    """All searches and final trainings of the benchmark."""

    args: Args

    def __init__(self, args: Args) -> None:
        super().__init__(args)
        self.search_settings: ChildSettings = dataclasses.replace(
            self.settings,
            num_epochs=args.search_epochs,
            num_train_images=args.search_images,
            num_valid_images=args.valid_images,
            flops_exponent=None,  # as the search space recommends
        )
        self.limits = sorted(set(args.limits))
        self.labels = {name: AGENTS[name].label for name in self.agents} | BASELINES
        self.searches = {
            (name, limit, seed): self._search(name, limit, seed)
            for seed in self.seeds
            for limit in self.limits
            for name in self.agents
        }

    def _search(self, agent: str, limit: int, seed: int) -> Search:
        args = self.args
        return Search(
            agent=agent,
            seed=seed,
            seconds=args.search_seconds,
            env_id=args.env_id,
            preset=self.preset,
            settings=self.search_settings,
            data_dir=args.data_dir,
            device=args.device,
            images=self.images,
            work_dir=args.work_dir,
            search_space="enas_micro_sized",
            limits=Limits(max_params=limit),
        )

    def training(self, method: str, limit: int, seed: int) -> Training | None:
        """Return the final training of a method; None if its search is not finished."""
        search = self.searches.get((method, limit, seed))
        settings = self.final_settings(self.search_settings)
        if search is None:
            space = method
            train, _ = self.evaluator.images()
            family, num_classes, channels = BASELINE_SPACES[method], len(train.class_names), train.image_shape[0]
            decisions = family.largest(limit, settings, num_classes, channels).decisions
        else:
            child = search.best_child()
            if child is None:
                return None
            space, decisions = "enas_micro_sized", child.decisions
        return Training(
            search_space=space,
            decisions=decisions,
            seed=seed,
            dataset=self.evaluator.dataset,
            settings=settings,
            data_dir=self.args.data_dir,
            device=self.args.device,
            images=self.images,
            work_dir=self.args.work_dir,
        )

    def jobs(self) -> Iterator[Job | None]:
        """Yield all searches and trainings, those of the first seeds first."""
        for seed in self.seeds:
            for limit in self.limits:
                for method in self.labels:
                    if method in self.agents:
                        yield self.searches[method, limit, seed]
                    yield self.training(method, limit, seed)

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
    comparison.run()
    report: dict[str, Any] = {
        "benchmark": "size_limits",
        **comparison.describe(),
        **analyze(comparison.rows(), REFERENCE),
    }
    for table in make_table(report, comparison.labels):
        Console(width=TABLE_WIDTH).print(table.to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())
    if args.figure is not None:
        write_atomically(args.figure, draw(report, comparison.labels, args.figure.suffix[1:]))
