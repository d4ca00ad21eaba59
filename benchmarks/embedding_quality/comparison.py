"""Compare embeddings: settings of pretraining, by reconstruction and by the results of agents that use the embedding.

    python -m benchmarks.embedding_quality --output embeddings.json

Each embedding is pretrained and measured. Then agents use it on the landscapes of NASES-Synthetic-v0: random
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
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.common import statistics
from benchmarks.common.console import wide_console
from benchmarks.common.identity import describe_environment, digest_of_files, digest_of_text, sources_of
from benchmarks.common.records import Record, RecordFile
from benchmarks.common.report import TextTable, write_report
from benchmarks.common.statistics import Numbers
from benchmarks.common.workers import map_unordered
from benchmarks.search_quality.comparison import AGENTS, MIN_WIDTH, Job, complete
from nases_env.embedding import (
    PRESETS,
    PretrainSettings,
    QualityReport,
    load_embedding,
    pretrain,
    quality_report,
    save_embedding,
)
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import RandomLandscapeEvaluator
from nases_env.search import SearchArgs, make_env
from nases_env.search_spaces import SearchSpace, get_search_space, importable_name
from nases_env.seeding import numpy_generator

# The best settings found for least squares, with the schedule, standardization and noise of the default. With the default
# learning rate of 2e-2, its error stays far above the error with 5e-3.
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
"""Compared pretraining settings by name. Uncalibrated and calibrated settings use the cross-entropy loss."""

REFERENCE = "calibrated_n20"  # the settings of the built-in weights of enas_micro, with which the others are compared
EMBEDDING_AGENTS = ("elite_reinforce", "model_assisted")  # agents that use an embedding
BASELINES = ("random_search", "regularized_evolution")  # agents that use none
ENV_ID = "NASES-Synthetic-v0"


@dataclass
class Args:
    """Options of the benchmark."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    """Names of the pretraining settings."""
    num_steps: int | None = None
    """Number of steps of every pretraining; unset: as in the settings."""
    num_pretrainings: int = 1
    """Number of pretrainings of each setting, with seeds from 0; landscape s uses pretraining s modulo this number."""
    num_seeds: int = 60
    """Number of landscapes, at least 2."""
    num_assisted_seeds: int | None = None
    """Number of landscapes for model-assisted REINFORCE, which takes ten times as long; unset: all."""
    budgets: tuple[int, ...] = (100, 200)
    """Numbers of children after which the best is compared; a search ends at the largest."""
    search_space: str = "enas_micro"
    """Name of a built-in search space or MODULE:CLASS of a custom one; it must define cell_graphs."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel pretrainings and searches, with one thread each; 1 runs them in the main process."""
    output: Path = Path("embedding_quality.json")
    """JSON file for the measurements; the other files are written next to it."""

    def __post_init__(self) -> None:
        for name in self.settings:
            if name not in SETTINGS:
                raise InputError(f"unknown settings {name!r}{did_you_mean(name, SETTINGS)}; known: {', '.join(SETTINGS)}")
        minimums = {"num_steps": 1, "num_pretrainings": 1, "num_seeds": 2, "num_assisted_seeds": 2, "num_processes": 1}
        for option, number in minimums.items():
            if getattr(self, option) is not None and getattr(self, option) < number:
                raise InputError(f"--{option.replace('_', '-')} must be at least {number}, not {getattr(self, option)}")
        if self.num_assisted_seeds is not None and self.num_assisted_seeds > self.num_seeds:
            raise InputError(f"--num-assisted-seeds must be at most --num-seeds, {self.num_seeds}")
        if not self.settings or min(self.budgets, default=0) < 1:
            raise InputError(
                "pass at least one name with --settings, and at least one number of children, 1 or larger, with --budgets"
            )
        if self.output.suffix != ".json":
            raise InputError(f"--output must end in .json, as {self.output.with_suffix('.json')} does, not {self.output}")

    def num_landscapes(self, agent: str) -> int:
        """Return the number of landscapes that ``agent`` searches."""
        return self.num_assisted_seeds or self.num_seeds if agent == "model_assisted" else self.num_seeds


class Pretraining(NamedTuple):
    """Settings, seed and file of one embedding."""

    settings: PretrainSettings
    seed: int
    search_space: str
    path: Path


class Searches(NamedTuple):
    """The searches of one agent with one pretraining setting, ordered by landscape."""

    row: str
    agent: str
    jobs: list[Job]


def make_pretrainings(args: Args, space: SearchSpace) -> dict[str, list[Pretraining]]:
    """Return the pretrainings by name of the settings. The file name has a digest of everything that determines the file."""
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
    """Train an embedding if its file does not exist, and measure the embedding in the file."""
    space = get_search_space(pretraining.search_space)
    if not pretraining.path.exists():
        save_embedding(pretrain(space, pretraining.settings, pretraining.seed)[0], pretraining.path)
    return pretraining.path, quality_report(load_embedding(space, pretraining.path), space, pretraining.seed)


def measure_all(pretrainings: Mapping[str, Sequence[Pretraining]], num_processes: int) -> dict[str, list[QualityReport]]:
    """Train and measure all embeddings; return their reports by name of the settings."""
    wanted = [pretraining for several in pretrainings.values() for pretraining in several]
    reports: dict[Path, QualityReport] = {}
    with (
        tqdm(total=len(wanted), unit="embedding", dynamic_ncols=True) as bar,
        closing(map_unordered(train_and_measure, wanted, num_processes)) as measured,
    ):
        for path, report in measured:
            reports[path] = report
            bar.update()
    return {name: [reports[pretraining.path] for pretraining in several] for name, several in pretrainings.items()}


def make_searches(args: Args, pretrainings: Mapping[str, Sequence[Pretraining]]) -> list[Searches]:
    """Return all searches: of EMBEDDING_AGENTS with every setting, and of BASELINES."""
    common = {"env_id": ENV_ID, "search_space": args.search_space, "budget": max(args.budgets)}
    first = next(iter(pretrainings.values()))[:1]  # the baselines do not use the embedding
    rows = [(name, agent, several) for name, several in pretrainings.items() for agent in EMBEDDING_AGENTS]
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
                "env_kwargs": {"landscape_seed": str(seed)},
            }
            jobs.append(Job(agent, changes, settings[number]))
        searches.append(Searches(name, agent, jobs))
    return searches


def _settings_of(agent: str, common: Mapping[str, Any], path: Path) -> str:
    """Return the digest of everything that determines a search of ``agent`` with ``path``, except for landscape and seed."""
    env = make_env(SearchArgs(**common, embedding=str(path), env_kwargs={"landscape_seed": "0"}))
    environment = describe_environment(env, None, None)
    if agent in BASELINES:
        del environment["embedding"]
    options = dataclasses.asdict(dataclasses.replace(AGENTS[agent].options, **common))
    code = digest_of_files(sources_of(AGENTS[agent].agent))
    return digest_of_text(json.dumps({**options, **environment, "agent_code": code}, default=str))


def run_searches(searches: Sequence[Searches], file: RecordFile[Record], args: Args) -> dict[tuple[str, str], Numbers]:
    """Return the best reward of the first n children, by row and agent; shape (landscapes, budgets)."""
    jobs = sorted((job for several in searches for job in several.jobs), key=lambda job: job.seed)
    records = complete(jobs, file, args.num_processes)
    by_job: dict[tuple[str, int, str], Record] = {
        (record.agent, record.seed, record.settings): record for several in records.values() for record in several
    }
    budgets = sorted(set(args.budgets))
    return {
        (row, agent): np.stack([by_job[job.agent, job.seed, job.settings].reward(budgets) for job in several])
        for row, agent, several in searches
    }


def analyze(best: Mapping[tuple[str, str], Numbers], budgets: Sequence[int]) -> dict[str, Any]:
    """Compute the mean best reward and its difference from REFERENCE, by agent, row and budget.

    Each agent is compared with the baselines on the same landscapes.

    Args:
        best: the result of ``run_searches``.
        budgets: numbers of children, ascending.
    """
    rng = numpy_generator(0, "embedding quality", "bootstrap")
    metrics: dict[str, Any] = {}
    for agent in EMBEDDING_AGENTS:
        rows = {row: values for (row, by), values in best.items() if by == agent}
        num_landscapes = len(next(iter(rows.values())))
        rows.update({name: best[name, name][:num_landscapes] for name in BASELINES})
        metrics[agent] = {"num_landscapes": num_landscapes, "rows": {}}
        for row, values in rows.items():
            metrics[agent]["rows"][row] = at = {}
            for index, budget in enumerate(budgets):
                at[str(budget)] = {
                    **statistics.mean(values[:, index], rng)._asdict(),
                    "values": values[:, index].tolist(),
                }
                if REFERENCE in rows and row != REFERENCE:
                    difference = values[:, index] - rows[REFERENCE][:, index]
                    at[str(budget)]["difference"] = statistics.mean(difference, rng)._asdict()
    return metrics


def quality_table(
    pretrainings: Mapping[str, Sequence[Pretraining]], reports: Mapping[str, Sequence[QualityReport]]
) -> TextTable:
    """Return the table of quality metrics, averaged over the pretrainings of each setting."""
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
        f"samples, and how many of {report.num_decisions} decisions a step of 0.1 changes"
    )
    headings = ["settings", "loss", "n", "noise", "accuracy", "entropy: min", "mean", "distinct", "changed"]
    return TextTable(title, headings, rows)


def search_table(agent: str, metrics: Mapping[str, Any]) -> TextTable:
    """Return the table of the rewards that an agent found with each embedding, and of the baselines."""
    rows = metrics["rows"]
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
    title = f"best reward of {agent}, mean over {metrics['num_landscapes']} landscapes (95%)"
    return TextTable(f"{title}; {' and '.join(BASELINES)} use no embedding", headings, lines)


def _interval(estimate: Mapping[str, float] | None, sign: str = "") -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:{sign}.3f} ({estimate['low']:{sign}.3f} to {estimate['high']:{sign}.3f})"


def main(args: Args) -> None:
    """Compare embeddings by quality metrics and by the results of agents that use them."""
    space = get_search_space(args.search_space)
    architecture = space.sample(numpy_generator(0, "embedding quality", "architecture"))
    RandomLandscapeEvaluator(space).evaluate(
        architecture, 0
    )  # raises an error for a space without graphs before any training
    pretrainings = make_pretrainings(args, space)
    remove_damaged([pretraining for several in pretrainings.values() for pretraining in several], space)
    file = RecordFile(args.output.with_suffix(".records.jsonl"), Record.from_json)
    reports = measure_all(pretrainings, args.num_processes)
    searches = make_searches(args, pretrainings)
    best = run_searches(searches, file, args)
    metrics = analyze(best, sorted(set(args.budgets)))
    content = {
        "benchmark": "embedding_quality",
        "settings": dataclasses.asdict(args),
        "search_space": importable_name(space),
        "embeddings": {
            name: {
                "settings": dataclasses.asdict(pretrainings[name][0].settings),
                "reports": [dataclasses.asdict(report) for report in several],
            }
            for name, several in reports.items()
        },
        "search": metrics,
    }
    tables = [quality_table(pretrainings, reports), *(search_table(agent, metrics[agent]) for agent in EMBEDDING_AGENTS)]
    write_report(args.output, content, tables)
    console = wide_console(MIN_WIDTH)
    for text_table in tables:
        console.print(text_table.to_rich())
    console.print(f"measurements and tables: {args.output.with_suffix('.*')}", highlight=False, soft_wrap=True)
