"""Compare embeddings: settings of pretraining, by reconstruction and by the results of agents that use the embedding.

    python -m benchmarks.embedding_quality --output embeddings.json

Each embedding is pretrained and measured, and then agents act through it on the landscapes of NASES-Synthetic-v0: random
rewards with interactions between decisions, on which a search takes seconds. The best reward within a budget is compared. An
embedding that reconstructs well may be hard to search in, because a step in it changes too much, or because good
architectures are not reachable. All rows search the same landscapes with the same seeds, landscape s with seed s, and are
compared in pairs; agents without an embedding search them too.

The tables in Markdown (.md), one line per search (.records.jsonl) and the pretrained embeddings (.embeddings/) are written
next to the output. The same command trains and searches only what is missing or was created with other settings or code.

To compare another embedding, add a line to SETTINGS.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from rich.console import Console
from tqdm import tqdm

from benchmarks.common import statistics
from benchmarks.common.identity import describe_environment, digest_of_files, digest_of_text, sources_of
from benchmarks.common.records import Record, RecordFile
from benchmarks.common.report import Grid
from benchmarks.common.statistics import Numbers
from benchmarks.common.workers import run_all
from benchmarks.search_quality.__main__ import MIN_WIDTH, ROWS, Job, complete
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.embedding import (
    PRESETS,
    PretrainSettings,
    QualityReport,
    load_embedding,
    pretrain,
    quality_report,
    save_embedding,
)
from nases_env.envs import NASESEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import RandomLandscapeEvaluator
from nases_env.search import SearchArgs, make_env
from nases_env.search_spaces import SearchSpace, get_search_space, import_path
from nases_env.seeding import numpy_generator

# Least squares as strong as it gets: with the default's schedule, standardisation and noise. At the default's learning rate
# of 2e-2 its error stays far above the one at 5e-3.
LEAST_SQUARES = PretrainSettings(loss="least_squares", learning_rate=5e-3, num_calibration_rounds=0)
UNCALIBRATED = PretrainSettings(num_calibration_rounds=0)

SETTINGS: dict[str, PretrainSettings] = {
    "paper": PRESETS["paper"],
    "least_squares_n12": dataclasses.replace(LEAST_SQUARES, embedding_size=12),
    "least_squares_n20": dataclasses.replace(LEAST_SQUARES, embedding_size=20),
    "least_squares_n30": dataclasses.replace(LEAST_SQUARES, embedding_size=30),
    "least_squares_n20_noise0.3": dataclasses.replace(LEAST_SQUARES, embedding_size=20, noise_std=0.3),
    "uncalibrated_n20": dataclasses.replace(UNCALIBRATED, embedding_size=20),
    "calibrated_n12": dataclasses.replace(PRESETS["default"], embedding_size=12),
    "calibrated_n20": dataclasses.replace(PRESETS["default"], embedding_size=20),
    "calibrated_n30": dataclasses.replace(PRESETS["default"], embedding_size=30),
    "calibrated_n20_noise0.3": dataclasses.replace(PRESETS["default"], embedding_size=20, noise_std=0.3),
}
"""How embeddings are pretrained, by the name of their row. Uncalibrated and calibrated are of the loss cross-entropy."""

REFERENCE = "calibrated_n20"  # the row with which the others are compared: what ships for enas_micro
AGENTS = ("reinforce", "model_assisted")  # which act through an embedding
BASELINES = ("random_search", "regularized_evolution")  # which need none
ENV_ID = "NASES-Synthetic-v0"


@dataclass
class Args:
    """What is compared."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    """Rows of the comparison."""
    num_steps: int | None = None
    """Steps of every pretraining; unset: those of the settings."""
    num_pretrainings: int = 1
    """Pretrainings of each row, with the seeds from 0 on; landscape s is searched through number s modulo this."""
    num_seeds: int = 60
    """Landscapes that are searched, at least 2."""
    num_assisted_seeds: int | None = None
    """Of these, the first ones, that model-assisted REINFORCE searches, which takes ten times as long; unset: all."""
    budgets: tuple[int, ...] = (100, 200)
    """Children after which the best is compared; a search ends at the largest."""
    search_space: str = "enas_micro"
    """Name of a built-in search space or MODULE:CLASS of a custom one; it must define cell_graphs."""
    num_processes: int = os.cpu_count() or 1
    """Pretrainings and searches side by side, one thread each; with 1, in the process of the command itself."""
    output: Path = Path("embedding_quality.json")
    """JSON file for the measurements; the other files are written next to it."""

    def __post_init__(self) -> None:
        for name in self.settings:
            if name not in SETTINGS:
                raise InputError(f"unknown settings {name!r}{did_you_mean(name, SETTINGS)}; known: {', '.join(SETTINGS)}")
        least = {"num_steps": 1, "num_pretrainings": 1, "num_seeds": 2, "num_assisted_seeds": 2, "num_processes": 1}
        for option, number in least.items():
            if getattr(self, option) is not None and getattr(self, option) < number:
                raise InputError(f"--{option.replace('_', '-')} must be at least {number}, not {getattr(self, option)}")
        if self.num_assisted_seeds is not None and self.num_assisted_seeds > self.num_seeds:
            raise InputError(f"--num-assisted-seeds must be at most --num-seeds, {self.num_seeds}")
        if not self.settings or min(self.budgets, default=0) < 1:
            raise InputError("name at least one row with --settings, and one number of children, from 1 on, with --budgets")
        if self.output.suffix != ".json":
            raise InputError(f"--output must end in .json, as {self.output.with_suffix('.json')} does, not {self.output}")

    def num_landscapes(self, agent: str) -> int:
        """Landscapes that ``agent`` searches."""
        return self.num_assisted_seeds or self.num_seeds if agent == "model_assisted" else self.num_seeds


class Pretraining(NamedTuple):
    """One embedding: how it is made, and the file that it is kept in."""

    settings: PretrainSettings
    seed: int
    search_space: str
    path: Path


class Searches(NamedTuple):
    """The searches of one row by one agent, in the order of landscapes."""

    row: str
    agent: str
    jobs: list[Job]


def make_pretrainings(args: Args, space: SearchSpace) -> dict[str, list[Pretraining]]:
    """Those of each row. The file's name holds a digest of all that decides what is in it."""
    folder = args.output.with_suffix(".embeddings")
    common = {
        "search_space": space.name,
        "decision_sizes": space.decision_sizes,
        "decisions_per_timestep": space.decisions_per_timestep,
        "code": digest_of_files(sources_of(pretrain)),
        "torch": metadata.version("torch"),
    }
    pretrainings: dict[str, list[Pretraining]] = {}
    for name in dict.fromkeys(args.settings):
        settings = dataclasses.replace(SETTINGS[name], embedding_size=SETTINGS[name].embedding_size_for(space))
        if args.num_steps is not None:
            settings = dataclasses.replace(settings, num_steps=args.num_steps)
        for seed in range(args.num_pretrainings):
            digest = digest_of_text(json.dumps({**common, **dataclasses.asdict(settings), "seed": seed}))
            path = folder / f"{name}-seed{seed}-{digest[:16]}.safetensors"
            pretrainings.setdefault(name, []).append(Pretraining(settings, seed, args.search_space, path))
    return pretrainings


def remove_damaged(pretrainings: Sequence[Pretraining], space: SearchSpace) -> None:
    """Remove corrupt embedding files with a message; they are trained again."""
    for pretraining in pretrainings:
        if pretraining.path.exists():
            try:
                load_embedding(space, pretraining.path)
            except InputError:
                print(f"{pretraining.path} is corrupt: this embedding is trained again")
                pretraining.path.unlink()


def train_and_measure(pretraining: Pretraining) -> tuple[Path, QualityReport]:
    """Trains an embedding unless its file is there, and measures what the file holds."""
    space = get_search_space(pretraining.search_space)
    if not pretraining.path.exists():
        save_embedding(pretrain(space, pretraining.settings, pretraining.seed)[0], pretraining.path)
    return pretraining.path, quality_report(load_embedding(space, pretraining.path), space, pretraining.seed)


def measure_all(pretrainings: Mapping[str, Sequence[Pretraining]], num_processes: int) -> dict[str, list[QualityReport]]:
    """The reports of each row's embeddings."""
    wanted = [pretraining for several in pretrainings.values() for pretraining in several]
    reports: dict[Path, QualityReport] = {}
    with (
        tqdm(total=len(wanted), unit="embedding", dynamic_ncols=True) as bar,
        closing(run_all(train_and_measure, wanted, num_processes)) as measured,
    ):
        for path, report in measured:
            reports[path] = report
            bar.update()
    return {name: [reports[pretraining.path] for pretraining in several] for name, several in pretrainings.items()}


def make_searches(args: Args, pretrainings: Mapping[str, Sequence[Pretraining]]) -> list[Searches]:
    """All searches: those of every row by the agents that need an embedding, and those of the others."""
    common = {"env_id": ENV_ID, "search_space": args.search_space, "budget": max(args.budgets)}
    first = next(iter(pretrainings.values()))[:1]  # the environment has an embedding, even where the agent needs none
    rows = [(name, agent, several) for name, several in pretrainings.items() for agent in AGENTS]
    rows += [(name, name, first) for name in BASELINES]
    searches = []
    for name, agent, several in rows:
        settings = [_settings_of(agent, common, pretraining.path) for pretraining in several]
        jobs = []
        for seed in range(args.num_landscapes(agent)):
            number = seed % len(several)
            changes = {
                **common,
                "embedding": str(several[number].path),
                "seed": seed,
                "env_kwargs": {"landscape_seed": seed},
            }
            jobs.append(Job(agent, changes, settings[number]))
        searches.append(Searches(name, agent, jobs))
    return searches


def _settings_of(agent: str, common: Mapping[str, Any], path: Path) -> str:
    """Digest of all that decides a search of ``agent`` through the embedding in ``path``, but the landscape and the seed."""
    env = make_env(SearchArgs(**common, embedding=str(path), env_kwargs={"landscape_seed": 0}))
    environment = describe_environment(cast(NASESEnv, env.unwrapped), None, None)
    if agent in BASELINES:
        del environment["embedding"]
    options = dataclasses.asdict(dataclasses.replace(ROWS[agent].options, **common))
    code = digest_of_files(sources_of(ROWS[agent].agent))
    return digest_of_text(json.dumps({**options, **environment, "agent_code": code}, default=str))


def run_searches(searches: Sequence[Searches], file: RecordFile, args: Args) -> dict[tuple[str, str], Numbers]:
    """Return the best reward of the first n children, by row and agent; shape (landscapes, budgets)."""
    jobs = sorted((job for several in searches for job in several.jobs), key=lambda job: job.seed)
    records = complete(jobs, file, args.num_processes)
    by_job: dict[tuple[str, int, str], Record] = {
        (record.agent, record.seed, record.settings): record for several in records.values() for record in several
    }
    budgets = sorted(set(args.budgets))
    return {
        (row, agent): np.stack([by_job[job.agent, job.seed, job.settings].valid_accuracy(budgets) for job in several])
        for row, agent, several in searches
    }


def analyse(best: Mapping[tuple[str, str], Numbers], budgets: Sequence[int]) -> dict[str, Any]:
    """The figures of each agent: for each row, budget by budget, the mean best reward and its difference from REFERENCE's.

    Each agent is compared with the baselines on the same landscapes.

    Args:
        best: as ``run_searches`` gives it.
        budgets: children, ascending.
    """
    rng = numpy_generator(0, "embedding quality", "bootstrap")
    figures: dict[str, Any] = {}
    for agent in AGENTS:
        rows = {row: values for (row, by), values in best.items() if by == agent}
        num_landscapes = len(next(iter(rows.values())))
        rows.update({name: best[name, name][:num_landscapes] for name in BASELINES})
        figures[agent] = {"num_landscapes": num_landscapes, "rows": {}}
        for row, values in rows.items():
            figures[agent]["rows"][row] = at = {}
            for index, budget in enumerate(budgets):
                at[str(budget)] = {
                    **statistics.mean(values[:, index], rng)._asdict(),
                    "values": values[:, index].tolist(),
                }
                if REFERENCE in rows and row != REFERENCE:
                    difference = values[:, index] - rows[REFERENCE][:, index]
                    at[str(budget)]["difference"] = statistics.mean(difference, rng)._asdict()
    return figures


def quality_grid(pretrainings: Mapping[str, Sequence[Pretraining]], reports: Mapping[str, Sequence[QualityReport]]) -> Grid:
    """What the embeddings keep; the mean of each row's pretrainings."""
    rows = []
    for name, several in reports.items():
        settings = pretrainings[name][0].settings
        shares = [
            [report.reconstruction_accuracy, report.prior_decision_entropy_min, report.prior_decision_entropy_mean]
            for report in several
        ]
        distinct = np.mean([report.num_unique for report in several])
        changed = np.mean([report.perturbation_sensitivity["0.1"] for report in several])
        row = [name, settings.loss.replace("_", " "), str(settings.embedding_size), f"{settings.noise_std:g}"]
        row += [f"{share:.3f}" for share in np.mean(shares, axis=0)]
        rows.append([*row, f"{distinct:,.0f}", f"{changed:.1f}"])
    report = next(iter(reports.values()))[0]
    steps = sorted({several[0].settings.num_steps for several in pretrainings.values()})
    title = (
        f"embeddings of {report.search_space} after {' or '.join(map(str, steps))} steps: reconstruction accuracy "
        f"({report.chance_accuracy:.3f} by chance), entropy of decisions (1 is uniform), distinct of {report.num_samples:,} "
        f"and how many of {report.num_decisions} decisions a step of 0.1 changes"
    )
    headings = ["settings", "loss", "n", "noise", "kept", "entropy: least", "mean", "distinct", "changed"]
    return Grid(title, headings, rows)


def search_grid(agent: str, figures: Mapping[str, Any]) -> Grid:
    """What an agent found through the embeddings, and the baselines without."""
    rows = figures["rows"]
    budgets = list(next(iter(rows.values())))
    headings = ["settings", *(f"best of {budget}" for budget in budgets)]
    if REFERENCE in rows:
        headings += [f"– {REFERENCE} at {budget}" for budget in budgets]
    lines = []
    for row, at in rows.items():
        line = [row, *(_interval(at[budget]) for budget in budgets)]
        if REFERENCE in rows:
            line += [_interval(at[budget].get("difference"), sign="+") for budget in budgets]
        lines.append(line)
    title = f"best reward of {agent}, mean over {figures['num_landscapes']} landscapes (95 %)"
    return Grid(f"{title}; {' and '.join(BASELINES)} need no embedding", headings, lines)


def _interval(estimate: Mapping[str, float] | None, sign: str = "") -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:{sign}.3f} ({estimate['low']:{sign}.3f} to {estimate['high']:{sign}.3f})"


def main(args: Args) -> None:
    """Compare embeddings by what they keep and by what agents find through them."""
    space = get_search_space(args.search_space)
    architecture = space.sample(numpy_generator(0, "embedding quality", "architecture"))
    RandomLandscapeEvaluator(space).evaluate(architecture, 0)  # a space without graphs is refused before anything is trained
    pretrainings = make_pretrainings(args, space)
    remove_damaged([pretraining for several in pretrainings.values() for pretraining in several], space)
    file = RecordFile(args.output.with_suffix(".records.jsonl"))
    try:
        reports = measure_all(pretrainings, args.num_processes)
        searches = make_searches(args, pretrainings)
        best = run_searches(searches, file, args)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, probably because memory ran out; run the same command with fewer --num-processes "
            f"to resume from the files next to {args.output}"
        ) from error
    figures = analyse(best, sorted(set(args.budgets)))
    content = {
        "benchmark": "embedding_quality",
        "settings": dataclasses.asdict(args),
        "search_space": import_path(space),
        "embeddings": {
            name: {
                "settings": dataclasses.asdict(pretrainings[name][0].settings),
                "reports": [dataclasses.asdict(report) for report in several],
            }
            for name, several in reports.items()
        },
        "search": figures,
    }
    grids = [quality_grid(pretrainings, reports), *(search_grid(agent, figures[agent]) for agent in AGENTS)]
    write_atomically(args.output, (json.dumps(content, indent=2, default=str) + "\n").encode())
    write_atomically(args.output.with_suffix(".md"), "\n".join(grid.to_markdown() for grid in grids).encode())
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, MIN_WIDTH))
    for grid in grids:
        console.print(grid.to_rich())
    console.print(f"figures and tables: {args.output.with_suffix('.*')}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(Args, main)
