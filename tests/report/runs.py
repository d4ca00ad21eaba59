"""Searches as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nases_env.report import Child, Curve, Design, EvaluationDigest, Finalist, Run, Totals, TotalsCounter
from nases_env.search_spaces import EnasMicro

SPACE = EnasMicro()


def make_children(number: int, seed: int = 0, *, num_failed: int = 0, mean: float = 0.7) -> list[Child]:
    """Return children with random rewards; the last ``num_failed`` timed out."""
    rng = np.random.default_rng(seed)
    rewards, sizes, seconds = (
        rng.normal(mean, 0.1, number).clip(0, 1),
        rng.lognormal(11, 0.5, number),
        rng.lognormal(size=number),
    )
    return [
        Child(index + 1, f"key-{index}", "ok", float(rewards[index]), int(sizes[index]), 10**6, 6, float(seconds[index]))
        if index < number - num_failed
        else Child(index + 1, f"key-{index}", "timed_out", 0.0, reason="it took more than 60 seconds")
        for index in range(number)
    ]


def count_all(children: Iterable[Child]) -> Totals:
    """Return the totals of ``children``."""
    counter = TotalsCounter()
    for child in children:
        counter.add(child)
    return counter.totals()


def make_run(children: list[Child], **changes: Any) -> Run:
    """Return a finished search with these children; ``changes`` replaces fields."""
    measured = [child for child in children if child.status == "ok"]
    best = max(measured, key=lambda child: child.reward, default=None)
    architecture = SPACE.sample(np.random.default_rng(0))
    values: dict[str, Any] = {
        "name": "runs/test",
        "agent": "reinforce",
        "env_id": "NASES-Digits-v0",
        "seed": 0,
        "budget": len(children),
        "state": "finished",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00",
        "command": "agents/reinforce.py --env-id NASES-Digits-v0",
        "versions": {"torch": "2.8"},
        "settings": {"preset": "cpu"},
        "digest": EvaluationDigest("a"),
        "is_trained": True,
        "totals": count_all(children),
        "children": children,
        "is_embedded": True,
        "vectors": np.random.default_rng(0).normal(size=(len(children), 20)),
    }
    if best is not None:
        second = Child(best.number, best.key, "ok", best.reward / 2)
        values |= {
            "best": best.number,
            "best_reward": 0.75 * best.reward,
            "finalists": [Finalist(best.number, second, 0.75 * best.reward)],
            "designs": [Design(best.number, "{}", SPACE.cell_graphs(architecture))],
            "curves": [Curve(best.number, [1, 2, 3], [0.1, 0.5, 0.6])],
            "operators": {"identity": (0.2, 0.1), "sep_conv_3x3": (0.8, 0.9)},
        }
    return Run(**{**values, **changes})
