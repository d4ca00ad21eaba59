"""Searches are compared by agent, with intervals over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from nases_env.report import render
from nases_env.report.comparison import bootstrap, comparison_figure, summarize
from nases_env.report.figures import best_so_far
from tests.report.runs import make_children, make_run


def test_agents_are_ranked_with_intervals_over_seeds() -> None:
    runs = [
        make_run(make_children(50, seed, mean=mean), agent=agent, seed=seed)
        for agent, mean in (("random_search", 0.4), ("reinforce", 0.6))
        for seed in range(5)
    ]
    best, other = summarize(runs)
    assert (best.agent, other.agent) == ("reinforce", "random_search")
    finals = [best_so_far(run.children)[-1].reward for run in runs[5:]]
    assert best.final.value == pytest.approx(np.mean(finals))
    assert best.final.interval is not None
    assert min(finals) <= best.final.interval[0] < best.final.value < best.final.interval[1] <= max(finals)
    assert best.confirmed is not None
    assert best.confirmed.value == pytest.approx(0.75 * best.final.value)
    page = render(runs)
    assert str(best.final) in page
    assert "Best reward so far, by agent" in page
    assert page.count("<article") == 10


def test_bootstrap_interval_is_that_of_the_normal_approximation_for_many_searches() -> None:
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.015)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.015)


def test_one_search_per_agent_has_no_interval_and_no_band() -> None:
    runs = [make_run(make_children(20, seed), agent=f"agent{seed}") for seed in range(2)]
    assert all(summary.final.interval is None for summary in summarize(runs))
    figure = comparison_figure(runs)
    assert figure is not None
    assert "band" not in figure.drawings[0]


def test_random_search_is_shown_next_to_other_agents_with_the_same_evaluations() -> None:
    run, baseline = make_run(make_children(20)), make_run(make_children(20, 1), agent="random_search")
    assert render([run, baseline]).count("Random search with seed 0 reached") == 1
    other = make_run(make_children(20, 1), agent="random_search", digest="b")
    page = render([run, other])
    assert "Random search with" not in page
    assert "are evaluated in different ways" in page


def test_searches_without_a_result_are_named() -> None:
    page = render([make_run([], name="runs/empty"), make_run(make_children(5, num_failed=5), name="runs/failed")])
    assert "Without a result: runs/empty, runs/failed" in page
