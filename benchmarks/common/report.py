"""From records to figures, and from figures to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.common import statistics
from benchmarks.common.records import Record
from benchmarks.common.statistics import Numbers
from nases_env.seeding import numpy_generator

Report = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table of text, to be printed and to be written as Markdown."""

    title: str
    headings: list[str]
    rows: list[list[str]]

    def to_rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """A heading and a pipe table."""
        rule = ["---", *["---:"] * (len(self.headings) - 1)]
        return "\n".join(
            [f"### {self.title}", "", *(f"| {' | '.join(row)} |" for row in [self.headings, rule, *self.rows]), ""]
        )


def analyse(
    records: Mapping[str, Sequence[Record]],
    budgets: Sequence[int],
    baseline: str,
    differences: Mapping[str, tuple[str, str]],
    seed: int,
) -> Report:
    """The figures of each agent at each budget, and the differences between agents; accuracies in [0, 1].

    Args:
        records: of each agent, in the order of the same seeds.
        budgets: children.
        baseline: the agent over which the probability of improvement is given.
        differences: names of pairs (ours, theirs) of agents; those of which one was not run are left out.
        seed: of the bootstrap.
    """
    measure = "valid_accuracy" if next(iter(records.values()))[0].test_accuracies is None else "test_accuracy"
    rng = numpy_generator(seed, "search quality", "bootstrap")
    valid = {name: np.stack([record.valid_accuracy(budgets) for record in rows]) for name, rows in records.items()}
    compared = valid
    if measure == "test_accuracy":
        compared = {name: np.stack([record.test_accuracy(budgets) for record in rows]) for name, rows in records.items()}
    agents: Report = {}
    for name, rows in records.items():
        agents[name] = {"seconds_per_search": float(np.mean([record.seconds for record in rows])), "at": {}}
        for index, budget in enumerate(budgets):
            agents[name]["at"][str(budget)] = {
                measure: _summary(compared[name][:, index], rng),
                "valid_accuracy": _summary(valid[name][:, index], rng),
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


def tables(report: Report) -> list[Grid]:
    """One table a budget, the best agent first, and one of the differences."""
    measure, agents = report["measure"], report["agents"]
    budgets = list(next(iter(agents.values()))["at"])
    num_seeds = len(next(iter(agents.values()))["at"][budgets[0]][measure]["values"])
    name = "test accuracy %" if measure == "test_accuracy" else "validation accuracy %"
    grids = []
    for budget in budgets:
        columns: dict[str, list[str]] = {}
        for agent in sorted(agents, key=lambda agent: -agents[agent]["at"][budget][measure]["mean"]):
            figures = agents[agent]["at"][budget]
            compared, better = figures[measure], figures.get("probability_of_improvement")
            cells = {
                "agent": agent,
                f"{name} (95 %)": _interval(compared["mean"], compared["low"], compared["high"]),
                "sd": f"{100 * compared['sd']:.2f}",
                f"P(> {report['baseline']}) (95 %)": _interval(**better, scale=1) if better else "–",
                "validation %": f"{100 * figures['valid_accuracy']['mean']:.2f}",
                "distinct": f"{figures['distinct_children']:.1f}",
                "s/search": f"{agents[agent]['seconds_per_search']:.2f}",
            }
            if measure == "valid_accuracy":
                del cells["validation %"]
            for heading, cell in cells.items():
                columns.setdefault(heading, []).append(cell)
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        grids.append(Grid(f"best by validation of {budget} children, {num_seeds} seeds", list(columns), rows))
    if report["differences"]:
        rows = []
        for title, at in report["differences"].items():
            rows.append([title, *(_interval(**at[budget], sign="+") for budget in budgets)])
        headings = ["difference", *(f"at {budget} (95 %)" for budget in budgets)]
        grids.append(Grid(f"differences in {name}, paired by seed", headings, rows))
    return grids


def _summary(values: Numbers, rng: np.random.Generator) -> Report:
    estimate = statistics.mean(values, rng)
    return {
        "mean": estimate.value,
        "sd": float(values.std(ddof=1)),
        "low": estimate.low,
        "high": estimate.high,
        "values": values.tolist(),
    }


def _interval(value: float, low: float, high: float, scale: float = 100, sign: str = "") -> str:
    return f"{scale * value:{sign}.2f} ({scale * low:{sign}.2f} to {scale * high:{sign}.2f})"
