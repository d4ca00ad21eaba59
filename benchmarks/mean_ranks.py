"""Rank agents over several environments: the mean rank in finished comparisons of ``benchmarks.search_quality``.

    python -m benchmarks.search_quality --output nasbench201.json
    python -m benchmarks.search_quality --env-id NASES-Accel-v0 --output accel.json
    python -m benchmarks.mean_ranks --reports nasbench201.json accel.json --output mean_ranks.json

All comparisons need the same agents, seeds and budgets. In each environment, the agents are ranked for each seed and budget
by what is compared there, which is the test accuracy or the reward: 1 is the best, and equal agents share the mean of their
ranks. The ranks are averaged over environments and seeds. The 95% intervals are bootstrap intervals over seeds; they say
nothing about other environments. A rank depends on which agents are compared. An environment is named after the file of its
report. The tables in Markdown (.md) are written next to the output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from benchmarks.common import statistics
from benchmarks.common.console import wide_console
from benchmarks.common.report import TextTable, format_interval, write_report
from benchmarks.common.statistics import Numbers
from nases_env.command_line import run_command
from nases_env.errors import InputError
from nases_env.input_files import read_file
from nases_env.json_io import parse_json
from nases_env.paths import require_other_file
from nases_env.seeding import numpy_generator

MIN_WIDTH = 200  # characters of the tables if the output is not a terminal


@dataclass
class Args:
    """Options of the benchmark."""

    reports: tuple[Path, ...]
    """JSON files of finished comparisons, as written by benchmarks.search_quality; one for each environment."""
    output: Path = Path("mean_ranks.json")
    """JSON file for the ranks."""

    def __post_init__(self) -> None:
        if not self.reports:
            raise InputError("pass at least one report of benchmarks.search_quality with --reports")
        if self.output.suffix != ".json":
            raise InputError(f"--output must end in .json, as {self.output.with_suffix('.json')} does, not {self.output}")
        for report in self.reports:
            require_other_file(self.output, report)
        paths: dict[str, Path] = {}
        for path in self.reports:
            if (other := paths.setdefault(path.stem, path)) is not path:
                raise InputError(f"{other} and {path} name the same environment; pass each report once, or rename one")


class Comparison(NamedTuple):
    """A finished comparison.

    Attributes:
        path: file of its report.
        environment: the options that select the environment.
        measure: what is compared, "reward" or "test_accuracy".
        seeds: the seeds in order.
        budgets: the numbers of children in order.
        values: the compared quantity in [0, 1] by agent, shape (seeds, budgets).
    """

    path: Path
    environment: dict[str, Any]
    measure: str
    seeds: list[int]
    budgets: list[int]
    values: dict[str, Numbers]

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self.path.stem

    def ranks(self, agents: Sequence[str]) -> Numbers:
        """Return the rank of each agent, shape (agents, seeds, budgets)."""
        ranks: Numbers = scipy.stats.rankdata([-self.values[agent] for agent in agents], axis=0)
        return ranks


def read_comparison(path: Path) -> Comparison:
    """Read the report of a finished comparison.

    Raises:
        InputError: if the file cannot be read or is not such a report.
    """
    try:
        content = parse_json(read_file(path))
        settings, measure, agents = content["settings"], content["measure"], content["agents"]
        first, num_seeds, budgets = settings["first_seed"], settings["num_seeds"], sorted(set(settings["budgets"]))
        values = {
            agent: np.array([metrics["at"][str(budget)][measure]["values"] for budget in budgets], dtype=np.float64).T
            for agent, metrics in agents.items()
        }
        if content["benchmark"] != "search_quality" or any(
            each.shape != (num_seeds, len(budgets)) for each in values.values()
        ):
            raise ValueError("it has other content")
        names = ("env_id", "env_kwargs", "search_space", "random_landscapes")
        environment = {name: settings[name] for name in names if name in settings}
        return Comparison(path, environment, measure, list(range(first, first + num_seeds)), budgets, values)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass a report of benchmarks.search_quality") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{path} is not a report of benchmarks.search_quality; pass the JSON file in its --output"
        ) from None


def require_equal_settings(comparisons: Sequence[Comparison]) -> None:
    """Raise ``InputError`` unless all comparisons have the same agents, seeds and budgets."""
    first = comparisons[0]
    for other in comparisons[1:]:
        for option, is_equal in {
            "agents": other.values.keys() == first.values.keys(),
            "seeds": other.seeds == first.seeds,
            "budgets": other.budgets == first.budgets,
        }.items():
            if not is_equal:
                raise InputError(
                    f"{first.path} and {other.path} compare different {option}; run one of the comparisons again with the "
                    f"{option} of the other"
                )


def analyze(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return the mean rank of each agent by budget: over all environments, and in each of them."""
    agents, budgets = list(comparisons[0].values), comparisons[0].budgets
    rng = numpy_generator(comparisons[0].seeds[0], "mean ranks", "bootstrap")
    ranks = {comparison.name: comparison.ranks(agents) for comparison in comparisons}

    def estimates(by_seed: Numbers) -> dict[str, Any]:
        """Return an estimate for each agent and budget from ranks of shape (agents, seeds, budgets)."""
        return {
            agent: {str(budget): statistics.mean(rows[:, index], rng)._asdict() for index, budget in enumerate(budgets)}
            for agent, rows in zip(agents, by_seed, strict=True)
        }

    return {
        "budgets": budgets,
        "num_seeds": len(comparisons[0].seeds),
        "mean_rank": estimates(np.mean(list(ranks.values()), axis=0)),
        "environments": {
            comparison.name: {
                **comparison.environment,
                "measure": comparison.measure,
                "mean_rank": estimates(ranks[comparison.name]),
            }
            for comparison in comparisons
        },
    }


def make_tables(report: Mapping[str, Any]) -> list[TextTable]:
    """Return a table of the mean ranks, and one with those in each environment for each budget; the best agent first."""
    budgets, environments = [str(budget) for budget in report["budgets"]], report["environments"]
    ordered = sorted(report["mean_rank"].items(), key=lambda item: float(item[1][budgets[-1]]["value"]))
    title = f"mean rank of {len(ordered)} agents, environments: {len(environments)}, seeds: {report['num_seeds']}"
    rows = [[agent, *(format_interval(**at[budget], scale=1) for budget in budgets)] for agent, at in ordered]
    tables = [TextTable(title, ["agent", *(f"at {budget} (95%)" for budget in budgets)], rows)]
    for budget in budgets:
        rows = [
            [agent, *(f"{each['mean_rank'][agent][budget]['value']:.2f}" for each in environments.values())]
            for agent, _ in ordered
        ]
        tables.append(TextTable(f"mean rank by environment, {budget} children", ["agent", *environments], rows))
    return tables


def main(args: Args) -> None:
    """Compute the mean ranks of agents in several finished comparisons."""
    comparisons = [read_comparison(path) for path in args.reports]
    require_equal_settings(comparisons)
    report = analyze(comparisons)
    tables = make_tables(report)
    content = {"benchmark": "mean_ranks", "settings": dataclasses.asdict(args), **report}
    write_report(args.output, content, tables)
    console = wide_console(MIN_WIDTH)
    for table in tables:
        console.print(table.to_rich())
    console.print(f"ranks and tables: {args.output.with_suffix('.*')}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(Args, main)
