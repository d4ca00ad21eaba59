"""The report on a reproduction: its conditions and results, compared with random search and Table 1 of the paper."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, one_line
from nases_env.escaping import escape_markdown
from nases_env.json_io import read_object
from nases_env.quantity import REWARD
from nases_env.report.text import duration
from nases_env.retraining.folder import FinalFolder
from nases_env.retraining.plan import Plan
from nases_env.retraining.report import (
    TABLE_1_HEADING,
    describe_training,
    format_percent,
    format_test_error,
    mean_and_std,
    search_days,
    summarize,
    table_1,
    table_1_row,
)
from nases_env.retraining.result import FinalResult
from nases_env.retraining.search_record import SearchRecord, changed_settings, describe_changes, read_search
from nases_env.tables import markdown_table

BASELINE = "random_search"
EMBEDDING_METRICS = {"reconstruction_accuracy": float, "reconstructed_decision_entropy_mean": float, "num_unique": int}


def write_protocol_report(plan: Plan) -> str:
    """Write ``report.md`` and ``report.json`` on the finished ``plan`` and return the text of ``report.md``.

    Raises:
        InputError: if a result cannot be read, or a file cannot be written.
    """
    seeds = range(plan.seeds)
    embeddings = [_read_metrics(plan.embedding(seed).with_suffix(".json")) for seed in seeds]
    searches = {agent: [read_search(plan.run_dir(seed, agent)) for seed in seeds] for agent in plan.agents}
    folders = {agent: [FinalFolder(plan.run_dir(seed, agent) / "final") for seed in seeds] for agent in plan.agents}
    finals = {
        agent: [result for seed, folder in enumerate(of_agent) if (result := folder.result(seed)) is not None]
        for agent, of_agent in folders.items()
    }
    config = folders[plan.agents[0]][0].read_config()
    values = {
        "preset": plan.preset,
        "env_id": plan.env_id,
        "budget": plan.budget,
        "embeddings": [{name: record[name] for name in EMBEDDING_METRICS} for record in embeddings],
        "agents": {
            agent: {
                "searches": [asdict(search) for search in searches[agent]],
                "final": summarize(finals[agent]),
                "test_errors": [result.test_error for result in finals[agent]],
                "less_error_than_random_search": _difference(finals, agent),
            }
            for agent in plan.agents
        },
        "conditions": describe_training(config, finals[plan.agents[0]]),
        "changed_settings": changed_settings(plan.child, plan.final),
    }
    text = _to_markdown(plan, values, searches, finals, config["configuration"])
    write_atomically(plan.output / "report.json", (json.dumps(values, indent=2) + "\n").encode())
    write_atomically(plan.output / "report.md", text.encode(errors="backslashreplace"))
    return text


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, EMBEDDING_METRICS)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({one_line(error)}); remove it to pretrain the embedding again") from None


def _difference(finals: dict[str, list[FinalResult]], agent: str) -> dict[str, Any] | None:
    """Compare the test error with random search's, paired by seed.

    Returns:
        Mean and standard deviation of the reduction, in [-1, 1]; None without random search or for random search itself.
    """
    if BASELINE not in finals or agent == BASELINE:
        return None
    pairs = zip(finals[BASELINE], finals[agent], strict=True)
    mean, std = mean_and_std([random.test_error - result.test_error for random, result in pairs])
    return {"mean": mean, "std": std}


def _to_markdown(
    plan: Plan,
    values: dict[str, Any],
    searches: dict[str, list[SearchRecord]],
    finals: dict[str, list[FinalResult]],
    configuration: dict[str, Any],
) -> str:
    env_id = escape_markdown(plan.env_id)
    parts = [
        f"# Reproduction, preset {plan.preset}",
        f"{plan.seeds} seed{'s' * (plan.seeds > 1)} in {env_id}. Each seed has its own embedding, a search of "
        f"{plan.budget} children per agent, and a final training of the best child of each search by its reward. "
        "Values are means ± standard deviations over seeds.",
        "## Stage 1: embeddings",
        markdown_table(
            ["seed", "reconstruction accuracy %", "entropy of reconstructed decisions", "unique of 10,000"],
            *(
                [
                    seed,
                    f"{100 * record['reconstruction_accuracy']:.1f}",
                    f"{record['reconstructed_decision_entropy_mean']:.3f}",
                    f"{record['num_unique']:,}",
                ]
                for seed, record in enumerate(values["embeddings"])
            ),
        ),
        "## Stage 2: searches",
        markdown_table(
            ["agent", "best reward %" if plan.child.rewards_accuracy else "best reward", "time of evaluation"],
            *(
                [
                    agent,
                    _format_reward(plan, *mean_and_std([search.reward for search in of_agent])),
                    duration(statistics.mean(search.seconds for search in of_agent)),
                ]
                for agent, of_agent in searches.items()
            ),
        ),
        "## Final training",
        escape_markdown(values["conditions"]),
        escape_markdown(describe_changes(values["changed_settings"])),
        markdown_table(
            ["agent", "test error %", "reduction from random search", "parameters, M", "time each"],
            *(
                [
                    agent,
                    format_test_error(results),
                    _format_reduction(values["agents"][agent]["less_error_than_random_search"]),
                    f"{statistics.mean(result.num_params for result in results) / 1e6:.2g}",
                    duration(statistics.mean(result.seconds for result in results)),
                ]
                for agent, results in finals.items()
            ),
        ),
    ]
    if configuration["dataset"] == "cifar10":
        cutout = configuration["settings"]["cutout_length"]
        rows = [table_1_row(agent, results, cutout, search_days(searches[agent])) for agent, results in finals.items()]
        parts += [TABLE_1_HEADING, table_1(rows)]
    return "\n\n".join(parts) + "\n"


def _format_reward(plan: Plan, mean: float, std: float | None) -> str:
    if plan.child.rewards_accuracy:
        return format_percent(mean, std)
    return REWARD.format(mean) + ("" if std is None else f" ± {REWARD.format(std)}")


def _format_reduction(difference: dict[str, Any] | None) -> str:
    return "–" if difference is None else format_percent(**difference, sign="+")
