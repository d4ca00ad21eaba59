"""The trials that a report keeps of a long search are few, and enough for everything that it states exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.report import Child, TrialSample, rank
from nases_env.report import sample as module
from nases_env.report.figures import best_so_far, reward_by
from tests.report.runs import count_all, make_run

MAX_CHILDREN, NUM_BEST, NUM_FAILURES = 8, 5, 3


@pytest.fixture(autouse=True, scope="module")
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUM_BEST", NUM_BEST)
        patch.setattr(module, "NUM_FAILURES", NUM_FAILURES)
        yield


@st.composite
def histories(draw: st.DrawFn) -> list[Child]:
    """Return trials with equal rewards and costs, repeated architectures, failures, and maybe rungs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    number, num_keys = draw(st.integers(0, 200)), draw(st.sampled_from([3, 30, 3000]))
    num_rewards, num_costs = draw(st.sampled_from([3, 10_000])), draw(st.sampled_from([4, 10_000]))
    share_of_failures, rungs = draw(st.sampled_from([0, 0.3, 1])), draw(st.sampled_from([(None,), (1, 3)]))
    return [
        Child(
            index + 1,
            f"key-{rng.integers(num_keys)}",
            "timed_out" if is_failure else "ok",
            0.0 if is_failure else float(rng.integers(num_rewards)) / num_rewards,
            num_params=int(rng.integers(num_costs)),
            seconds=float(rng.integers(num_costs)),
            fidelity=rungs[rng.integers(len(rungs))],
        )
        for index, is_failure in enumerate(rng.random(number) < share_of_failures)
    ]


def sampled(children: Sequence[Child], always: Sequence[int] = ()) -> tuple[list[Child], int]:
    """Return the children that are kept, and their stride."""
    sample = TrialSample[int](MAX_CHILDREN, always)
    for child in children:
        sample.add(child, partial(int, child.number))
    kept = sample.kept()
    assert all(child.number == details for child, details in kept)
    return [child for child, _ in kept], sample.stride


def front(children: Sequence[Child], cost: Callable[[Child], float]) -> list[Child]:
    """Return the children at the highest rung that no other surpasses or equals, except for later ones that are equal."""
    measured = [child for child in children if child.status == "ok" and cost(child) > 0]
    highest = max((child.fidelity or 0 for child in measured), default=0)
    values = [(cost(each), -each.reward, each.number, each) for each in measured if (each.fidelity or 0) == highest]
    return [
        each
        for value, loss, number, each in values
        if not any(a <= value and b <= loss and (a, b, c) < (value, loss, number) for a, b, c, _ in values)
    ]


@given(histories(), st.lists(st.integers(1, 250), max_size=3))
def test_few_children_are_kept_and_among_them_are_all_that_are_needed(children: list[Child], always: list[int]) -> None:
    kept, stride = sampled(children, always)
    spaced = children[::stride]
    assert len(spaced) <= MAX_CHILDREN
    assert stride == 1 or len(children[:: stride // 2]) > MAX_CHILDREN
    assert bin(stride).count("1") == 1
    numbers = [child.number for child in kept]
    assert numbers == sorted(set(numbers))
    needed = [
        *spaced,
        *best_so_far(children),
        *rank(children, [])[:NUM_BEST],
        *front(children, lambda child: child.num_params),
    ]
    needed += front(children, lambda child: child.seconds)
    needed += [child for child in children if child.status != "ok"][-NUM_FAILURES:]
    needed += [child for child in children if child.number in always]
    assert set(numbers) == {child.number for child in needed}


@given(histories())
def test_best_children_and_their_order_are_those_of_all(children: list[Child]) -> None:
    kept, _ = sampled(children)
    assert best_so_far(kept) == best_so_far(children)
    assert rank(kept, [])[:NUM_BEST] == rank(children, [])[:NUM_BEST]


@given(histories())
def test_children_that_no_cheaper_one_surpasses_are_those_of_all(children: list[Child]) -> None:
    kept, stride = sampled(children)
    runs = [make_run(children), make_run(kept, totals=count_all(children), stride=stride)]
    for value in (lambda child: child.num_params, lambda child: child.seconds):
        findings = [reward_by(run, "Cost", "Cost", value, str, 100) for run in runs]
        if findings[1] is not None:  # at least two children with a cost are kept
            assert findings[0] is not None
            assert findings[1].finding == findings[0].finding


def test_number_of_children_that_are_kept_does_not_grow_with_the_search() -> None:
    rng = np.random.default_rng(0)
    children = [Child(number, f"key-{number}", "ok", float(rng.random()), 1, 1, 1, 1.0) for number in range(1, 20_001)]
    kept, stride = sampled(children)
    assert stride == 4096
    assert len(kept) < 50
    assert sampled(children[:MAX_CHILDREN]) == (children[:MAX_CHILDREN], 1)


def test_details_of_other_children_are_not_made() -> None:
    sample = TrialSample[int](MAX_CHILDREN)
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number

    for number in range(1, 1001):
        sample.add(Child(number, "key", "ok", 0.5), partial(make, number))
    assert {number for _, number in sample.kept()} <= set(made)
    assert len(made) < 60
