"""What a reproduction came to, with its conditions, beside random search and the paper's Table 1."""

from __future__ import annotations

import json
import statistics
from typing import Any

from nases_env.atomic_io import write_atomically
from nases_env.cli.train import search_cost
from nases_env.retraining import FinalFolder, FinalResult
from nases_env.retraining.plan import Plan
from nases_env.retraining.report import (
    SearchCost,
    conditions,
    error_text,
    markdown_table,
    mean_and_std,
    percent,
    search_days,
    summarize,
    table_1,
    table_1_row,
)

BASELINE = "random_search"


def make_report(plan: Plan) -> str:
    """Writes ``report.md`` and ``report.json`` on the finished ``plan``; gives the former.

    Raises:
        InputError: if a result cannot be read, or a file cannot be written.
    """
    seeds = range(plan.seeds)
    embeddings = [json.loads(plan.embedding(seed).with_suffix(".json").read_text()) for seed in seeds]
    costs = {agent: [search_cost(plan.run_dir(seed, agent)) for seed in seeds] for agent in plan.args.agents}
    folders = {agent: [FinalFolder(plan.run_dir(seed, agent) / "final") for seed in seeds] for agent in plan.args.agents}
    finals = {
        agent: [result for seed, folder in enumerate(of_agent) if (result := folder.result(seed)) is not None]
        for agent, of_agent in folders.items()
    }
    configuration = folders[plan.args.agents[0]][0].read_config()["configuration"]
    values = {
        "preset": plan.preset,
        "env_id": plan.env_id,
        "budget": plan.budget,
        "embeddings": [
            {name: record[name] for name in ("kept_decisions", "simulated_entropy_mean", "distinct_architectures")}
            for record in embeddings
        ],
        "agents": {
            agent: {
                "searches": [vars(cost) for cost in costs[agent]],
                "final": summarize(finals[agent]),
                "test_errors": [result.test_error for result in finals[agent]],
                "less_error_than_random_search": _difference(finals, agent),
            }
            for agent in plan.args.agents
        },
        "conditions": conditions(configuration, finals[plan.args.agents[0]]),
    }
    text = _markdown(plan, values, costs, finals, configuration)
    write_atomically(plan.output / "report.json", (json.dumps(values, indent=2) + "\n").encode())
    write_atomically(plan.output / "report.md", text.encode())
    return text


def _difference(finals: dict[str, list[FinalResult]], agent: str) -> dict[str, Any] | None:
    """How much less the test error is than random search's with the same seed, in [-1, 1]; None where it did not search."""
    if BASELINE not in finals or agent == BASELINE:
        return None
    pairs = zip(finals[BASELINE], finals[agent], strict=True)
    differences = [random.test_error - result.test_error for random, result in pairs]
    mean, std = mean_and_std(differences)
    return {"mean": mean, "std": std}


def _markdown(
    plan: Plan,
    values: dict[str, Any],
    costs: dict[str, list[SearchCost]],
    finals: dict[str, list[FinalResult]],
    configuration: dict[str, Any],
) -> str:
    parts = [
        f"# Reproduction, preset {plan.preset}",
        f"{plan.seeds} seed{'s' * (plan.seeds > 1)} in {plan.env_id}: an embedding, a search of {plan.budget} children by "
        "each agent, and a final training of each search's best child by validation accuracy, all anew for each seed. "
        "Means ± standard deviations over seeds.",
        "## Stage 1: embeddings",
        markdown_table(
            ["seed", "decisions kept %", "entropy of decoded decisions", "distinct of 10,000"],
            *(
                [
                    seed,
                    f"{100 * record['kept_decisions']:.1f}",
                    f"{record['simulated_entropy_mean']:.3f}",
                    f"{record['distinct_architectures']:,}",
                ]
                for seed, record in enumerate(values["embeddings"])
            ),
        ),
        "## Stage 2: searches",
        markdown_table(
            ["agent", "best validation accuracy %", "hours of children"],
            *(
                [
                    agent,
                    percent(*mean_and_std([cost.valid_accuracy for cost in of_agent])),
                    f"{statistics.mean(cost.seconds for cost in of_agent) / 3600:.2g}",
                ]
                for agent, of_agent in costs.items()
            ),
        ),
        "## Final phase",
        values["conditions"],
        markdown_table(
            ["agent", "test error %", "less than random search's", "parameters, M", "hours each"],
            *(
                [
                    agent,
                    error_text(results),
                    _less(values["agents"][agent]["less_error_than_random_search"]),
                    f"{statistics.mean(result.num_params for result in results) / 1e6:.2g}",
                    f"{statistics.mean(result.hours for result in results):.2g}",
                ]
                for agent, results in finals.items()
            ),
        ),
    ]
    if configuration["dataset"] == "cifar10":
        cutout = configuration["settings"]["cutout"]
        rows = [table_1_row(agent, results, cutout, search_days(costs[agent])) for agent, results in finals.items()]
        parts += ["## Beside the paper's Table 1", table_1(rows)]
    return "\n\n".join(parts) + "\n"


def _less(difference: dict[str, Any] | None) -> str:
    return "–" if difference is None else percent(**difference, sign="+")
