"""Searches are compared by agent, with intervals over seeds."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from nases_env.quantity import Quantity
from nases_env.report import EvaluationDigest, are_comparable, render
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
    assert (best.label, other.label) == ("reinforce", "random_search")
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


def test_searches_with_different_options_are_compared_and_not_averaged() -> None:
    settings = {"preset": "cpu", "screen": "true", "num_envs": "4", "embedding": "seed-0/e.safetensors"}
    others = [{**settings, "screen": "false"}, {**settings, "screen": "false", "num_envs": "2"}]
    runs = [
        make_run(make_children(20, index), agent="model_assisted", seed=seed, settings=each, name=f"runs/{index}-{seed}")
        for index, each in enumerate([settings, *others])
        for seed in range(2)
    ]
    runs.append(make_run(make_children(20), agent="reinforce"))
    summaries = {summary.label: [run.name for run in summary.runs] for summary in summarize(runs)}
    assert summaries == {
        "model_assisted, screen true, num_envs 4": ["runs/0-0", "runs/0-1"],
        "model_assisted, screen false, num_envs 4": ["runs/1-0", "runs/1-1"],
        "model_assisted, screen false, num_envs 2": ["runs/2-0", "runs/2-1"],
        "reinforce": ["runs/test"],
    }
    figure = comparison_figure(runs)
    assert figure is not None
    assert all(
        f"{end}</text>" in figure.drawings[0] for end in ("true, num_envs 4", "false, num_envs 4", "false, num_envs 2")
    )


def test_labels_that_are_equal_when_shortened_are_numbered() -> None:
    settings = [{"batch": batch, "weights": "/data/searches/model.safetensors"} for batch in ("8", "16")]
    settings.append({"batch": "8", "weights": "/data/others/model.safetensors"})
    runs = [make_run(make_children(20), settings=each) for each in settings]
    assert {summary.label for summary in summarize(runs)} == {
        "reinforce, batch 8, weights /data/searches/model.safetensors (1)",
        "reinforce, batch 16, weights /data/searches/model.safetensors (2)",
        "reinforce, batch 8, weights /data/others/model.safetensors (3)",
    }
    figure = comparison_figure(runs)
    assert figure is not None
    assert all(f">…model.safetensors ({number})</text>" in figure.drawings[0] for number in (1, 2, 3))


def test_axis_of_rewards_that_are_different_metrics_has_no_unit() -> None:
    accuracy, similarity = make_run(make_children(20)), make_run(make_children(20), quantity=Quantity("SSIM"))
    axes = []
    for runs in ([accuracy, accuracy], [similarity, similarity], [accuracy, similarity]):
        figure = comparison_figure([runs[0], dataclasses.replace(runs[1], env_id="other")])
        assert figure is not None
        axes.append(re.findall("↑ ([^<]*)", figure.drawings[0]))
    assert axes == [["Best validation accuracy so far (%)"], ["Best validation SSIM so far"], ["Best reward so far"]]


def test_searches_that_differ_in_the_seed_and_the_execution_are_averaged() -> None:
    settings = {"preset": "cpu", "embedding": "seed-0/e.safetensors", "execution.executor": "auto", "time": "60.0"}
    other = {"preset": "cpu", "embedding": "seed-1/e.safetensors", "execution.executor": "slurm", "time": "null"}
    runs = [make_run(make_children(20, seed), seed=seed, settings=each) for seed, each in enumerate([settings, other])]
    assert [(summary.label, len(summary.runs)) for summary in summarize(runs)] == [("reinforce", 2)]
    limited = make_run(make_children(20), settings={**settings, "execution.time_limit": "60.0"})
    assert {summary.label for summary in summarize([*runs, limited])} == {
        "reinforce",
        "reinforce, execution.time_limit 60.0",
    }


def test_searches_are_ranked_after_the_same_number_of_children() -> None:
    short = make_run(make_children(30, mean=0.6), agent="short")
    first, later = make_children(30, 1, mean=0.4), make_children(600, 1, mean=0.9)[30:]
    long = [make_run([*first, *later], agent="long", name="runs/600"), make_run(first, agent="long", seed=1)]
    best, other = summarize([short, *long])
    assert (best.label, best.num_children, other.num_children) == ("short", "30", "30 to 600")
    assert other.at_length.value == pytest.approx(best_so_far(first)[-1].reward)
    assert other.final.value > best.final.value == best.at_length.value
    figure, page = comparison_figure([short, *long]), render([short, *long])
    assert figure is not None
    assert figure.finding == f"After 30 children, short is highest, at {best.at_length}."
    assert "<td>30 to 600</td>" in page
    assert "best of the first 30 (95% interval)" in page


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
    other = make_run(make_children(20, 1), agent="random_search", digest=EvaluationDigest("b"))
    page = render([run, other])
    assert "Random search with" not in page
    assert "are evaluated in different ways" in page


def test_searches_with_other_validation_splits_are_comparable() -> None:
    first, second = EvaluationDigest("a", "0", "images of 0"), EvaluationDigest("a", "1", "images of 1")
    assert are_comparable([first, second, first])
    assert not are_comparable([first, second._replace(configuration="b")])
    assert not are_comparable([first, second, first._replace(images="other images")])
    run = make_run(make_children(20), digest=first)
    page = render([run, make_run(make_children(20, 1), agent="random_search", seed=1, digest=second)])
    assert "are evaluated in different ways" not in page
    assert page.count("Random search with seed 1 reached") == 1


def test_searches_without_a_result_are_named() -> None:
    page = render([make_run([], name="runs/empty"), make_run(make_children(5, num_failed=5), name="runs/failed")])
    assert "Without a result: runs/empty, runs/failed" in page
