"""Figures show the right children and state what they show."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from nases_env.report import Child, Latency, rank
from nases_env.report.figures import (
    best_so_far,
    embedding_map,
    figures,
    reward_by,
    reward_by_child,
    reward_by_latency,
    thin,
)
from tests.report.runs import count_all, make_children, make_run


def test_thinned_children_include_those_to_keep() -> None:
    children = make_children(1000)
    numbers = [child.number for child in thin(children, 100, [7, 13], 1)]
    assert {1, 7, 13, 1000} <= set(numbers)
    assert len(numbers) <= 102
    assert numbers == sorted(numbers)
    assert thin(children, 1000, [], 1) == children


def test_points_of_a_long_search_are_evenly_spaced_although_it_keeps_others() -> None:
    children = make_children(1000)
    kept = [child for child in children if child.number % 4 == 1 or child.number <= 300]
    assert [child.number for child in thin(kept, 250, [7], 4)] == [1, 5, 7, *range(9, 1001, 4)]
    totals = count_all(children)
    run = make_run(kept, totals=totals, stride=4, best=None, vectors=None)
    assert run.spaced == children[::4]
    figure = reward_by_child(run, None, 250)
    assert figure is not None
    numbers = sorted(int(number) for number in re.findall(r"<title>child (\d+):", figure.drawings[0]))
    records = {child.number for child in best_so_far(children)}
    assert set(numbers) == {*range(1, 1001, 4), *records}
    assert f"{len(numbers)} of 1,000 children are shown, evenly spaced, and every new best one." in figure.note
    assert "The median is that of the last 40 children." in figure.note


def test_best_so_far_prefers_higher_rungs_and_ignores_failures() -> None:
    children = [
        Child(1, "a", "ok", 0.5, fidelity=1),
        Child(2, "b", "timed_out", 0.0, fidelity=1),
        Child(3, "c", "ok", 0.4, fidelity=1),
        Child(4, "c", "ok", 0.45, fidelity=3, is_promotion=True),
        Child(5, "d", "ok", 0.9, fidelity=1),
    ]
    assert [child.number for child in best_so_far(children)] == [1, 4]
    assert [child.number for child in rank(children, [])] == [4, 5, 1]


def test_finding_names_the_best_reward_and_when_it_was_reached() -> None:
    children = make_children(30)
    best = max(children, key=lambda child: child.reward)
    figure = reward_by_child(make_run(children), None, 100)
    assert figure is not None
    assert figure.finding == f"The best reward, {100 * best.reward:.2f}%, was reached after {best.number} of 30."


def test_every_child_is_a_point_with_a_text() -> None:
    children = make_children(30)
    figure = reward_by(make_run(children), "Size", "Parameters", lambda child: child.num_params, str, 100)
    assert figure is not None
    titles = re.findall(r"<title>child (\d+): ", figure.drawings[0])
    assert sorted(map(int, titles)) == list(range(1, 31))


def test_map_is_that_of_the_principal_components() -> None:
    """Points in a plane of a space of many dimensions keep their distances, up to the scale of the drawing."""
    rng = np.random.default_rng(0)
    plane, basis = rng.normal(size=(40, 2)) * [5, 1], np.linalg.qr(rng.normal(size=(20, 20)))[0][:2]
    run = make_run(make_children(40), vectors=plane @ basis + rng.normal(size=20))
    figure = embedding_map(run, 100)
    assert figure is not None
    assert "100% of the variance" in figure.note
    drawn = {
        int(number): (float(x), float(y))
        for x, y, number in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>child (\d+):', figure.drawings[0])
    }
    points = np.array([drawn[number] for number in range(1, 41)])
    before = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    after = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999


def test_map_without_actions_says_so() -> None:
    figure = embedding_map(make_run(make_children(10), is_embedded=False), 100)
    assert figure is not None
    assert "architecture vectors; not every child has an action" in figure.finding


def test_figures_without_data_are_left_out() -> None:
    children = [replace(child, num_params=0, seconds=0.0) for child in make_children(10)]
    shown = [figure.title for figure in figures(make_run(children, vectors=None, operators={}, curves=[]), None, 100)]
    assert shown == ["Reward by child"]


def test_latencies_are_points_with_quartiles_in_milliseconds() -> None:
    children = make_children(9)
    latencies = [Latency(7, 0.001, 0.002, 0.004, 99), Latency(3, 0.0005, 0.001, 0.0015, 99)]
    figure = reward_by_latency(make_run(children, latencies=latencies))
    assert figure is not None
    assert figure.finding == "Child 7, the best, takes 2.00 ms. The fastest of these, child 3, takes 1.00 ms."
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', figure.drawings[0])]
    bars = [tuple(map(float, bar)) for bar in re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)" class="series', figure.drawings[0])]
    (left, _), (start, end) = bars[0], bars[1]
    assert left < xs[0]
    assert start < xs[1] == left < end  # the median of one is the lower quartile of the other
    assert re.findall(r'class="label s\d">(child \d)<', figure.drawings[0]) == ["child 7", "child 3"]


def test_one_latency_has_no_figure() -> None:
    assert reward_by_latency(make_run(make_children(9), latencies=[Latency(7, 0.001, 0.002, 0.004, 99)])) is None
