"""The page: the template, filled with the figures and tables of the searches."""

from __future__ import annotations

import base64
import functools
import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from nases_env.escaping import quoted
from nases_env.quantity import Quantity
from nases_env.report.cells import draw_cell, legend
from nases_env.report.comparison import common_length, comparison_figure, summarize
from nases_env.report.data import OK, Child, Design, Run, are_comparable
from nases_env.report.figures import figures
from nases_env.report.sample import NUM_BEST, NUM_FAILURES
from nases_env.report.text import compact, count, date, duration, elapsed, milliseconds, percent, printable_lines

FOLDER = Path(__file__).parent
BASELINE = "random_search"

MAX_POINTS, MIN_POINTS = 1500, 150  # in a figure
MAX_POINTS_OF_ALL = 6000  # in one figure of each search, summed
NUM_ROWS = 25  # of a page of the table of children, and without JavaScript
MAX_REASON = 300  # characters
MAX_GENOTYPE = 4000
REFRESH_SECONDS = 2


def render(runs: Sequence[Run], *, version: str | None = None) -> str:
    """Return the page about ``runs``: a report on one search, or a comparison of several.

    Args:
        runs: at least one search.
        version: for a page that a server updates: a text that changes with the runs. The page requests ``version`` from its
            server every few seconds, and updates itself if the answer differs. None: a page without requests.
    """
    script = (FOLDER / "script.js").read_text(encoding="utf-8")
    limit = max(MIN_POINTS, min(MAX_POINTS, MAX_POINTS_OF_ALL // len(runs)))
    return _template().render(
        title=_title(runs),
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=_policy(script, is_live=version is not None),
        version=version,
        refresh_seconds=REFRESH_SECONDS,
        sections=[_section(run, runs, limit) for run in runs],
        comparison=_comparison(runs) if len(runs) > 1 else None,
    )


@functools.cache
def _template() -> jinja2.Template:
    """Return the template, which is compiled once per process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable_lines(value) if type(value) is str else value,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters.update(percent=percent, duration=duration, milliseconds=milliseconds)
    return environment.get_template("template.html")


def _policy(script: str, *, is_live: bool) -> str:
    """Return a content security policy that allows this script and no request, or only those for the version."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"{allowed}; connect-src 'self'" if is_live else allowed


def _title(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return f"{runs[0].agent} in {runs[0].env_id}"
    environments = sorted({run.env_id for run in runs})
    return f"{len(runs)} searches in {', '.join(environments)}"


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "figure": comparison_figure(runs),
        "agents": summarize(runs),
        "length": common_length(runs),
        "without_result": [run.name for run in runs if not run.has_result],
        "is_comparable": are_comparable(run.digest for run in runs),
    }


def _section(run: Run, runs: Sequence[Run], limit: int) -> dict[str, Any]:
    baselines = [each for each in runs if each.agent == BASELINE != run.agent and are_comparable([each.digest, run.digest])]
    baseline = min(baselines, key=lambda each: each.seed != run.seed, default=None)
    columns = _columns(run)
    rows = _rows(columns, _by_rank(run)) if len(runs) == 1 else []
    return {
        "run": run,
        "subtitle": _subtitle(run),
        "stats": _stats(run),
        "sampling": _sampling(run),
        "designs": [_design(design, run) for design in run.designs],
        "figures": figures(run, baseline, limit),
        "columns": columns,
        "rows": rows[:NUM_ROWS],
        "table": {"rows": rows, "rowsPerPage": NUM_ROWS, "decimals": [column.decimals for column in columns]},
        "failures": [_failure(child) for child in run.failures[-NUM_FAILURES:]],
        "failure_counts": _failure_counts(run),
        "finalists": [
            (finalist, run.child(finalist.number), None if finalist.second.status == OK else finalist.second.status)
            for finalist in run.finalists
        ],
        "latencies": [(latency, run.child(latency.number)) for latency in run.latencies],
        "num_passes": min((latency.num_passes for latency in run.latencies), default=0),
        "legend": legend(graph for design in run.designs for graph in design.graphs),
        "next_commands": _next_commands(run),
        "command": _command(run),
        "seconds": run.seconds_by_device,
    }


def _subtitle(run: Run) -> str:
    num_promotions = run.totals.num_promotions
    num_children = run.totals.num_trials - num_promotions
    progress = count(num_children, "child", "children")
    if run.budget is not None:
        progress = f"{num_children:,} of {count(run.budget, 'child', 'children')}"
    parts = [f"Seed {run.seed}", progress]
    if num_promotions:
        parts.append(count(num_promotions, "promotion"))
    if run.is_trained and "preset" in run.settings:
        parts.insert(1, f"preset {run.settings['preset']}")
    if run.finished is None:
        parts.append(f"{run.state}, started {date(run.started)}")
    else:
        parts.append(f"finished {date(run.finished)}")
    return " · ".join(parts)


def _stats(run: Run) -> list[tuple[str, str, str]]:
    """Return the key figures of a search: name, value and detail."""
    stats: list[tuple[str, str, str]] = []
    if run.best is not None and run.has_result:
        best = run.child(run.best)
        finalist = next((each for each in run.finalists if each.number == run.best), None)
        if finalist is None or not finalist.is_confirmed:
            evaluations = "one evaluation"
        else:
            evaluations = "mean of two evaluations" if finalist.second.fidelity == best.fidelity else "second evaluation"
        stats.append(
            (
                f"Best {run.reward_quantity.name}",
                run.format_reward(run.best_reward),
                f"child {run.best}, {evaluations}",
            )
        )
        rewards = np.array(run.totals.rewards)
        median, lowest = map(run.format_reward, (float(np.median(rewards)), float(rewards.min())))
        stats.append(("Median child", median, f"lowest {lowest}"))
        if not run.has_metric_rewards:
            value = run.quantity.format(best.valid_accuracy)
            stats.append((f"Validation {run.quantity.name}", value, f"child {run.best}, in the search"))
        if best.num_params:
            stats.append(("Parameters", compact(best.num_params), f"{compact(best.num_flops)} FLOPs per image"))
    totals, num_failures = run.totals, run.totals.num_failures
    stats.append(("Architectures", f"{totals.num_distinct:,}", f"in {count(totals.num_trials, 'evaluation')}"))
    stats.append(("Failed", f"{num_failures:,}", "without a result" if num_failures else "all have a result"))
    total = sum(run.seconds_by_device.values())
    if total:
        stats.append(("Evaluation time", duration(total), f"on {', '.join(run.seconds_by_device)}"))
    if run.finished is not None and (seconds := elapsed(run.started, run.finished)) >= 0:
        is_resumed = "--resume" in run.command
        stats.append(("Wall time", duration(seconds), "since it was resumed" if is_resumed else "from start to end"))
    return stats


def _sampling(run: Run) -> str:
    """Return which trials are shown, as part of a sentence; empty if all are."""
    if run.stride == 1:
        return ""
    return (
        f"{len(run.children):,} of {run.totals.num_trials:,} trials: 1 of every {run.stride:,}, and in addition all that "
        f"were the best so far, the finalists, the best {NUM_BEST:,} architectures, those that no smaller or faster one "
        f"surpasses, and the last {NUM_FAILURES} failures"
    )


def _design(design: Design, run: Run) -> dict[str, Any]:
    child = run.child(design.number)
    return {
        "number": design.number,
        "reward": run.format_reward(child.reward),
        "cells": [(graph.name, draw_cell(graph, f"child {design.number}")) for graph in design.graphs],
        "summary": design.summary,
        "genotype": design.genotype[:MAX_GENOTYPE] + ("…" if len(design.genotype) > MAX_GENOTYPE else ""),
    }


def _by_rank(run: Run) -> list[Child]:
    """Return the children: the best of each architecture first, as the search ranks them, then the others by rank."""
    top = run.ranking()
    listed = {child.number for child in top}
    others = [child for child in run.children if child.number not in listed]
    return [*top, *sorted(others, key=lambda child: child.rank, reverse=True)]


class _Column(NamedTuple):
    """A column of the table of children: its heading, the value of a child (None: not known), and its decimals."""

    heading: str
    value: Callable[[Child], str | float | None]
    decimals: int = 0


_FIRST_COLUMNS = (
    _Column("child", lambda child: child.number),
    _Column("status", lambda child: child.status.replace("_", " ")),
)
_COST_COLUMNS = (
    _Column("rung", lambda child: child.fidelity),
    _Column("parameters", lambda child: child.num_params or None),
    _Column("MFLOPs", lambda child: round(child.num_flops / 1e6, 2) if child.num_flops else None, 2),
    _Column("memory (KB)", lambda child: round(child.activation_bytes / 1e3, 1) or None, 1),
    _Column("file (KB)", lambda child: round(child.file_bytes / 1e3, 1) or None, 1),
    _Column("latency (ms)", lambda child: round(child.latency * 1e3, 3) or None, 3),
    _Column("epochs", lambda child: child.num_epochs or None),
    _Column("seconds", lambda child: round(child.seconds, 2) if child.seconds else None, 2),
)


def _columns(run: Run) -> list[_Column]:
    """Return the columns of which at least one child has a value."""
    rewards = [_result_column("reward", run.reward_quantity, lambda child: child.reward)]
    if not run.has_metric_rewards:
        rewards.append(_result_column(run.quantity.name, run.quantity, lambda child: child.valid_accuracy))
    columns = [*_FIRST_COLUMNS, *rewards, *_COST_COLUMNS]
    return [column for column in columns if any(column.value(child) is not None for child in run.children)]


def _result_column(heading: str, quantity: Quantity, value: Callable[[Child], float]) -> _Column:
    """Return a column with a value of the children that have a result."""
    factor, decimals, unit = (100, 2, " (%)") if quantity.is_percentage else (1, 4, "")
    return _Column(
        heading + unit, lambda child: round(factor * value(child), decimals) if child.status == OK else None, decimals
    )


def _rows(columns: Sequence[_Column], children: Sequence[Child]) -> list[list[str | float | None]]:
    return [[column.value(child) for column in columns] for child in children]


def _failure(child: Child) -> tuple[int, str, str]:
    reason = child.reason if len(child.reason) <= MAX_REASON else f"{child.reason[:MAX_REASON]}…"
    return child.number, child.status.replace("_", " "), reason or "no reason was recorded"


def _failure_counts(run: Run) -> list[tuple[str, int]]:
    counts = [(status.replace("_", " "), number) for status, number in run.totals.failures.items()]
    return sorted(counts, key=lambda pair: -pair[1])


def _command(run: Run) -> str:
    """Return the command that repeats a search."""
    words = _words(run)
    return shlex.join(["nases", *words[1:]]) if words and _is_nases(words[0]) else f"python {run.command}"


def _search_program(run: Run) -> str:
    """Return the program that resumes a search: the one that started it, because only this one knows a custom agent."""
    words = _words(run)
    return "nases search" if not words or _is_nases(words[0]) else f"python {quoted(words[0])}"


def _words(run: Run) -> list[str]:
    """Return the words of the command; empty if it is damaged."""
    try:
        return shlex.split(run.command)
    except ValueError:
        return []


def _is_nases(program: str) -> bool:
    path = Path(program)
    return path.stem == "nases" or path.parts[-2:] == ("nases_env", "__main__.py")  # python -m nases_env


def _next_commands(run: Run) -> list[tuple[str, str]]:
    """Return the commands that are useful next, with what they do."""
    name = quoted(run.name)
    commands = []
    if run.state == "stopped":
        commands.append((f"{_search_program(run)} --resume {name}", "resumes the search"))
    if run.is_trained and run.best is not None:
        commands.append((f"nases train {name}", "trains the best child with a longer schedule and tests it once"))
        if not run.latencies:
            commands.append((f"nases report {name} --latency", "measures the latency of the best children for this page"))
        commands.append((f"nases predict {name} image.png", "classifies an image, after the training"))
    commands.append((f"tensorboard --logdir {name}", "shows the curves of the search and the metrics of the agent"))
    commands.append((f"nases status {name}", "shows the state of the search"))
    return commands
