"""Compare agents on real data: searches with equal CPU seconds, each followed by the final training of its best child.

    python -m benchmarks.real_search --output real_search.json --figure real_search.svg

With each seed, every agent searches until its CPU seconds are used up, including its own computation (on a GPU: wall time).
The five children with the best reward are evaluated again, as in every search, and the one with the best mean
gets the final training on all training images, as by ``nases train``. It is measured on the test images once. Test images
are not used for any choice. ``--final-epochs``, ``--final-cycles`` and ``--final-images`` shorten the final trainings.

Networks without a search are trained in the same way with the same seeds: the child of the random search with the median
reward, the largest of 200 random cells, the cell of ENAS, and a residual network with as many parameters as the networks
chosen with that seed have on average. ``--baselines`` limits these networks, and ``--agents`` the searches.

The same command resumes the searches and trainings in ``--work-dir``. With ``--archive``, finished ones are also kept in one
file, from which another machine continues. The jobs are ordered by seed, so that the first seeds are complete first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from benchmarks.real_search.analysis import Row, analyze, draw, make_table
from benchmarks.real_search.base import REFERENCE, ComparisonArgs, SearchComparison
from benchmarks.real_search.jobs import Job
from benchmarks.real_search.largest import LargestCell
from benchmarks.real_search.published import enas_genotype
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.searches import AGENTS, Child, Search, median_child
from benchmarks.real_search.trainings import Training
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, did_you_mean
from nases_env.search_spaces import EnasMicro

MEDIAN, LARGEST, ENAS, RESIDUAL = "median_random_cell", "largest_random_cell", "enas_cell", "residual_network"
BASELINES = {
    MEDIAN: "median random cell",
    LARGEST: "largest random cell",
    ENAS: "cell of ENAS",
    RESIDUAL: "residual network",
}
"""The methods without a search and their labels."""

TABLE_WIDTH = 200  # characters


@dataclass
class Args(ComparisonArgs):
    """Options of the benchmark. The default of ``search_seconds`` gives 17 to 37 children on CIFAR-10 (preset ``cpu``)."""

    minimums: ClassVar[dict[str, int]] = {**ComparisonArgs.minimums, "num_largest": 1}

    search_space: str | None = None
    """Name of the search space; unset: that of the environment."""
    baselines: tuple[str, ...] = tuple(BASELINES)
    """Methods without a search to train: median_random_cell, largest_random_cell, enas_cell (for enas_micro only) and
    residual_network."""
    num_largest: int = 200
    """Number of random cells of which the one with the most FLOPs is trained without a search."""
    work_dir: Path = Path("runs/real_search")
    """Directory of the searches and trainings; only one process at a time may use it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.baselines:
            if name not in BASELINES:
                raise InputError(f"unknown baseline {name!r}{did_you_mean(name, BASELINES)}; known: {', '.join(BASELINES)}")


class Comparison(SearchComparison):
    """All searches and final trainings of the benchmark."""

    args: Args

    def __init__(self, args: Args) -> None:
        super().__init__(args, args.search_space)
        if ENAS in args.baselines and self.search_space.name != EnasMicro.name:
            raise InputError(
                f"{ENAS} is a cell of {EnasMicro.name}, not of {self.search_space.name}; omit it from --baselines"
            )
        baselines = {name: label for name, label in BASELINES.items() if name in args.baselines}
        self.labels = {name: AGENTS[name].label for name in self.agents} | baselines
        self.searches = {(name, seed): self._search(name, seed) for seed in self.seeds for name in self.agents}

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
            images=self.images,
            work_dir=args.work_dir,
            search_space=args.search_space,
        )

    def jobs(self) -> Iterator[Job | None]:
        """Yield all jobs, those of the first seeds first."""
        for seed in self.seeds:
            for agent in self.agents:
                yield self.searches[agent, seed]
            if LARGEST in self.labels:
                yield self._largest(seed)
            for method in self.labels:
                yield self.training(method, seed)

    def chosen(self, method: str, seed: int) -> Child | None:
        """Return the child of a search that a method trains; None if it trains none, or the search is not finished."""
        search = self.searches.get((REFERENCE if method == MEDIAN else method, seed))
        children = None if search is None else search.children()
        if search is None or children is None:
            return None
        return median_child(children) if method == MEDIAN else search.best_child()

    def training(self, method: str, seed: int) -> Training | None:
        """Return the final training of a method; None if a search that it depends on is not finished."""
        space, decisions = self.search_space.name, None
        if method == ENAS:
            decisions = self.search_space.from_genotype(enas_genotype()).decisions
        elif method == LARGEST:
            cell = self._largest(seed).read()
            decisions = None if cell is None else cell.decisions
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
            dataset=self.evaluator.dataset,
            settings=self.final_settings(self.settings),
            data_dir=self.args.data_dir,
            device=self.args.device,
            images=self.images,
            work_dir=self.args.work_dir,
        )

    def _largest(self, seed: int) -> LargestCell:
        train, _ = self.evaluator.images()
        return LargestCell(
            search_space=self.search_space.name,
            settings=self.settings,
            num_classes=len(train.class_names),
            image_shape=train.image_shape,
            num_cells=self.args.num_largest,
            seed=seed,
            work_dir=self.args.work_dir,
        )

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
    comparison.run()
    report: dict[str, Any] = {
        "benchmark": "real_search",
        **comparison.describe(),
        **analyze(comparison.rows(), REFERENCE),
    }
    table = make_table(report, comparison.labels)
    Console(width=TABLE_WIDTH).print(table.to_rich())
    if args.output is not None:
        write_atomically(args.output, (json.dumps(report, indent=2, default=str) + "\n").encode())
    if args.figure is not None:
        write_atomically(args.figure, draw(report, comparison.labels, args.figure.suffix[1:]))
