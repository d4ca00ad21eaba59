"""The choice of the best child at the end of a search."""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nases_agents.random_search import RandomSearch

from nases_env.evaluation import Evaluation, Status
from nases_env.search import SearchArgs, SearchCallback, SearchLoop, SearchRun
from nases_env.search.reporting import Summary
from nases_env.search.run_dir import FINALISTS, best_record, trial_record, write_finalists
from nases_env.search.trials import Finalist
from nases_env.search_spaces import Architecture
from tests.search.acting import CallAfter
from tests.search.rungs import ToyRungs, toy_env
from tests.search.test_resume import resume, start_search


def search_with(num_finalists: int, seed: int = 0, budget: int = 30, rungs: tuple[int, ...] = ()) -> SearchLoop:
    env = toy_env(rungs=rungs)
    search = SearchLoop(env, budget, num_finalists=num_finalists)
    search.run(RandomSearch(env, SearchArgs(seed=seed)))
    return search


def test_best_children_are_evaluated_with_other_seeds() -> None:
    search = search_with(4)
    assert {finalist.trial for finalist in search.finalists} == set(search.ranking()[:4])
    for finalist in search.finalists:
        first, second = finalist.trial.evaluation, finalist.second
        assert second.key == first.key
        assert second.seed != first.seed
        assert finalist.mean_reward == pytest.approx((first.reward + second.reward) / 2)
    means = [finalist.mean_reward for finalist in search.finalists]
    assert means == sorted(means, reverse=True)
    assert search.best is search.finalists[0].trial
    assert len(search.trials) == 30


def test_second_evaluation_is_at_the_last_rung() -> None:
    search = search_with(3, rungs=(1, 3))
    assert [finalist.second.fidelity for finalist in search.finalists] == [3, 3, 3]


def test_zero_finalists_keep_the_best_reward() -> None:
    search = search_with(0)
    assert search.finalists == []
    assert search.best is search.ranking()[0]
    assert search.is_complete


def test_one_child_is_not_evaluated_again() -> None:
    assert search_with(5, budget=1).finalists == []


def test_second_reward_has_no_selection_bias_and_the_choice_is_better() -> None:
    """The first reward of the best child exceeds its expected reward; the second one does not."""
    first_bias, second_bias, gains = [], [], []
    for seed in range(40):
        search = search_with(5, seed)
        evaluator = search.env.evaluator
        assert isinstance(evaluator, ToyRungs)
        mean_noise = evaluator.noise / 2
        top = search.ranking()[0]
        second = next(finalist.second for finalist in search.finalists if finalist.trial is top)
        expected = evaluator.quality(top.architecture) + 0.01 + mean_noise
        first_bias.append(top.evaluation.reward - expected)
        second_bias.append(second.reward - expected)
        assert search.best is not None
        gains.append(evaluator.quality(search.best.architecture) - evaluator.quality(top.architecture))
    standard_error = np.std(second_bias, ddof=1) / np.sqrt(len(second_bias))
    assert np.mean(first_bias) > 5 * standard_error
    assert abs(np.mean(second_bias)) < 3 * standard_error
    assert np.mean(gains) > 0


@pytest.mark.parametrize(
    ("num_failed", "status"), [(1, Status.FAILED), (2, Status.TIMED_OUT), (2, Status.OUT_OF_MEMORY), (3, Status.FAILED)]
)
def test_finalist_without_a_second_result_is_not_chosen_unless_all_are(
    num_failed: int, status: Status, tmp_path: Path
) -> None:
    """The finalists with the best first rewards cannot be evaluated again."""
    expected = search_with(3)
    env = toy_env(rungs=())
    failing = [trial.evaluation.key for trial in expected.ranking()[:num_failed]]
    submit_again = env.submit_again

    def submit(architecture: Architecture) -> Future[Evaluation]:
        future = submit_again(architecture)
        if architecture.key not in failing:
            return future
        failed: Future[Evaluation] = Future()
        failed.set_result(replace(future.result(), status=status, reason="worker killed"))
        return failed

    env.submit_again = submit  # type: ignore[method-assign]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        search = SearchLoop(env, 30, callbacks=[Summary(tmp_path)], num_finalists=3)
        with search:
            search.run(RandomSearch(env, SearchArgs(seed=0)))
    ranking = search.ranking()
    confirmed = [each.trial.number for each in expected.finalists if each.trial.evaluation.key not in failing]
    numbers = [trial.number for trial in ranking[:num_failed]]
    assert [finalist.trial.number for finalist in search.finalists] == confirmed + numbers
    assert search.best is search.finalists[0].trial
    for finalist in search.finalists[len(confirmed) :]:
        assert finalist.mean_reward == finalist.trial.evaluation.reward
    write_finalists(tmp_path, search.finalists)
    records = [trial_record(trial, env.search_space) for trial in search.trials]
    best = best_record(tmp_path, records)
    assert best is not None
    assert (best["child"], best["mean_reward"]) == (search.best.number, search.finalists[0].mean_reward)
    if confirmed:
        children = ", ".join(map(str, sorted(numbers)))
        assert f" {children} could not be evaluated again (worker killed) and took no part in the choice" in out.getvalue()
    else:
        assert search.best is ranking[0]
        assert "no finalist could be evaluated again (worker killed); the best child is" in out.getvalue()


def test_second_evaluation_that_diverged_counts_as_reward_0() -> None:
    diverged = Finalist(search_with(0).trials[0], Evaluation("", 0, Status.DIVERGED))
    assert diverged.mean_reward == diverged.trial.evaluation.reward / 2


def test_stopped_search_chooses_among_finalists_too() -> None:
    class StopAt(SearchCallback):
        def on_trial(self, loop, trial, *, is_replayed):  # type: ignore[no-untyped-def]
            if trial.number == 10:
                loop.stop()

    env = toy_env(rungs=())
    search = SearchLoop(env, 30, callbacks=[StopAt()], num_finalists=3)
    search.run(RandomSearch(env, SearchArgs()))
    assert len(search.trials) == 10
    assert len(search.finalists) == 3
    assert not search.is_complete


def test_files_of_a_stopped_search_have_the_chosen_finalist(tmp_path: Path) -> None:
    args = SearchArgs("tests.search.rungs:ToyRungs-v0", budget=30, num_finalists=3, run_dir=tmp_path / "run")
    with SearchRun(args, agent="random_search", callbacks=[CallAfter(10, SearchLoop.stop)]) as run:
        run.search(RandomSearch(run.env, args))
    chosen = run.loop.best
    assert chosen is not None
    assert chosen is not run.loop.ranking()[0], "the second evaluation changes nothing"
    best = best_record(tmp_path / "run")
    assert best is not None
    assert best["child"] == chosen.number
    assert run.env.to_architecture((tmp_path / "run" / "best.json").read_text()) == chosen.architecture
    start_search("random_search", tmp_path / "whole", env_id=args.env_id, budget=30, num_finalists=3)
    resume("random_search", tmp_path / "run")
    for name in ("best.json", FINALISTS):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_vector_environment_chooses_once() -> None:
    env = toy_env(rungs=())
    chosen: list[Evaluation] = []

    class Listen(SearchCallback):
        def on_finalist(self, loop, finalist):  # type: ignore[no-untyped-def]
            chosen.append(finalist.second)

    search = SearchLoop(env, 6, 3, callbacks=[Listen()], num_finalists=2)
    rng = np.random.default_rng(0)
    for _ in range(3):
        search.evaluate_all([env.search_space.sample(rng) for _ in range(3)])
    assert len(chosen) == len(search.finalists) == 2
