"""Statistics of records, and their tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.common import statistics
from benchmarks.common.records import Record
from benchmarks.common.statistics import Numbers
from nases_env.atomic_io import write_atomically
from nases_env.seeding import numpy_generator

Report = dict[str, Any]


@dataclass(frozen=True)
class TextTable:
    """A table of text that is printed and written as Markdown."""

    title: str
    headings: list[str]
    rows: list[list[str]]

    def to_rich(self) -> Table:
        """Return the table for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """Return a Markdown heading and a pipe table."""
        rule = ["---", *["---:"] * (len(self.headings) - 1)]
        return "\n".join(
            [f"### {self.title}", "", *(f"| {' | '.join(row)} |" for row in [self.headings, rule, *self.rows]), ""]
        )


def write_report(output: Path, content: Mapping[str, Any], tables: Sequence[TextTable]) -> None:
    """Write ``content`` to the JSON file ``output``, and ``tables`` in Markdown next to it."""
    write_atomically(output, (json.dumps(content, indent=2, default=str) + "\n").encode())
    write_atomically(output.with_suffix(".md"), "\n".join(table.to_markdown() for table in tables).encode())


def analyze(
    records: Mapping[str, Sequence[Record]],
    budgets: Sequence[int],
    baseline: str,
    differences: Mapping[str, tuple[str, str]],
    seed: int,
) -> Report:
    """Compute the metrics of each agent at each budget, and the differences between agents; all in [0, 1].

    Args:
        records: records by agent; all agents have the same seeds in the same order.
        budgets: numbers of children.
        baseline: agent to which the probability of improvement refers.
        differences: pairs (ours, theirs) of agents by title; pairs with an agent that was not run are omitted.
        seed: seed of the bootstrap.
    """
    measure = "reward" if next(iter(records.values()))[0].test_accuracies is None else "test_accuracy"
    rng = numpy_generator(seed, "search quality", "bootstrap")
    rewards = {name: np.stack([record.reward(budgets) for record in rows]) for name, rows in records.items()}
    compared = rewards
    if measure == "test_accuracy":
        compared = {name: np.stack([record.test_accuracy(budgets) for record in rows]) for name, rows in records.items()}
    agents: Report = {}
    for name, rows in records.items():
        agents[name] = {"seconds_per_search": float(np.mean([record.seconds for record in rows])), "at": {}}
        for index, budget in enumerate(budgets):
            agents[name]["at"][str(budget)] = {
                measure: _summary(compared[name][:, index], rng),
                "reward": _summary(rewards[name][:, index], rng),
                "distinct_children": float(np.mean([record.num_distinct(budget) for record in rows])),
            }
            if baseline in records and name != baseline:
                probability = statistics.probability_of_improvement(
                    compared[name][:, index], compared[baseline][:, index], rng
                )
                agents[name]["at"][str(budget)]["probability_of_improvement"] = probability._asdict()
    paired = {
        title: {
            str(budget): statistics.mean(compared[ours][:, index] - compared[theirs][:, index], rng)._asdict()
            for index, budget in enumerate(budgets)
        }
        for title, (ours, theirs) in differences.items()
        if ours in records and theirs in records
    }
    return {"measure": measure, "baseline": baseline, "agents": agents, "differences": paired}


def make_tables(report: Report) -> list[TextTable]:
    """Return one table per budget, best agent first, and a table of the differences."""
    measure, agents = report["measure"], report["agents"]
    budgets = list(next(iter(agents.values()))["at"])
    num_seeds = len(next(iter(agents.values()))["at"][budgets[0]][measure]["values"])
    name = "test accuracy %" if measure == "test_accuracy" else "reward %"
    tables = []
    for budget in budgets:
        columns: dict[str, list[str]] = {}
        for agent in sorted(agents, key=lambda agent: -agents[agent]["at"][budget][measure]["mean"]):
            metrics = agents[agent]["at"][budget]
            compared, better = metrics[measure], metrics.get("probability_of_improvement")
            cells = {
                "agent": agent,
                f"{name} (95%)": format_interval(compared["mean"], compared["low"], compared["high"]),
                "sd": f"{100 * compared['sd']:.2f}",
                f"P(> {report['baseline']}) (95%)": format_interval(**better, scale=1) if better else "–",
                "reward %": f"{100 * metrics['reward']['mean']:.2f}",
                "distinct": f"{metrics['distinct_children']:.1f}",
                "s/search": f"{agents[agent]['seconds_per_search']:.2f}",
            }
            if measure == "reward":
                del cells["reward %"]
            for heading, cell in cells.items():
                columns.setdefault(heading, []).append(cell)
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        tables.append(TextTable(f"best by reward of {budget} children, {num_seeds} seeds", list(columns), rows))
    if report["differences"]:
        rows = []
        for title, at in report["differences"].items():
            rows.append([title, *(format_interval(**at[budget], sign="+") for budget in budgets)])
        headings = ["difference", *(f"at {budget} (95%)" for budget in budgets)]
        tables.append(TextTable(f"differences in {name}, paired by seed", headings, rows))
    return tables


def _summary(values: Numbers, rng: np.random.Generator) -> Report:
    estimate = statistics.mean(values, rng)
    return {
        "mean": estimate.value,
        "sd": float(values.std(ddof=1)),
        "low": estimate.low,
        "high": estimate.high,
        "values": values.tolist(),
    }


def format_interval(value: float, low: float, high: float, scale: float = 100, sign: str = "") -> str:
    """Format a value and the bounds of its interval, multiplied by ``scale``."""
    return f"{scale * value:{sign}.2f} ({scale * low:{sign}.2f} to {scale * high:{sign}.2f})"
