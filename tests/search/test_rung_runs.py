"""Searches with rungs on digits: run directory, resume, commands."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nases_agents.random_search import RandomSearch

from nases_env.cli import main as cli
from nases_env.cli.status import StatusArgs, status_command
from nases_env.cli.validate import ValidateArgs, validate_command
from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.execution import ExecutionSettings, Store
from nases_env.retraining.search_record import read_search
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import FINALISTS, STORE, best_record, read_finalists
from nases_env.training.train_step import TrainingStep
from tests.commands import ROOT, error_of, run_here, script
from tests.search.acting import CallAfter
from tests.search.test_loop import trajectory
from tests.search.test_resume import Killed, interrupt_after, resume, start_search

pytestmark = pytest.mark.usefixtures("tiny_children", "without_reports")

TOY: dict[str, Any] = {
    "env_id": "tests.search.rungs:ToyRungs-v0",
    "budget": 12,
    "rungs": (1, 3, 9),
    "reduction_factor": 2,
    "num_finalists": 2,
    "num_envs": 3,
}
DIGITS: dict[str, Any] = {
    **{**TOY, "env_id": "NASES-Digits-v0", "preset": "smoke", "budget": 4, "rungs": (1, 2, 4)},
    "search_space": "nasbench201",  # whose children are small
}
NUM_TRIALS = 12 + 6 + 3


def finalists(run_dir: Path) -> list[dict[str, Any]]:
    return [{**record, "second": {**record["second"], "seconds": None}} for record in read_finalists(run_dir)]


@pytest.fixture(scope="module")
def whole(without_reports: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an uninterrupted search with a toy reward."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    start_search("random_search", run_dir, **TOY)
    return run_dir


@pytest.fixture(scope="module")
def trained(without_reports: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a search on digits."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    start_search("random_search", run_dir, **DIGITS, execution=ExecutionSettings("serial"))
    return run_dir


def test_run_directory_has_all_rungs_and_finalists(trained: Path) -> None:
    records = trajectory(trained)
    assert [record["fidelity"] for record in records].count(1) == 4
    assert [record["fidelity"] for record in records].count(2) == 2
    assert [record["fidelity"] for record in records].count(4) == 1
    assert [record["is_promotion"] for record in records] == [record["fidelity"] > 1 for record in records]
    assert [record["num_epochs"] for record in records] == [record["fidelity"] for record in records]
    best = best_record(trained)
    assert best is not None
    assert best["child"] == finalists(trained)[0]["child"]
    assert json.loads((trained / "best.json").read_text()) == {"search_space": "nasbench201", **best["genotype"]}
    assert {finalist["second"]["fidelity"] for finalist in finalists(trained)} == {4}
    assert not (trained / "checkpoints").exists()
    with Store(trained / STORE, read_only=True) as store:
        assert len(list(store.rows())) == len(records) + 2


def test_promoted_children_are_not_trained_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    epochs: list[int] = []
    begin_epoch = TrainingStep.begin_epoch

    def count(step: TrainingStep, *args: Any) -> None:
        epochs.append(1)
        begin_epoch(step, *args)

    monkeypatch.setattr(TrainingStep, "begin_epoch", count)
    start_search("random_search", tmp_path / "run", **{**DIGITS, "num_finalists": 0}, execution=ExecutionSettings("serial"))
    assert sum(epochs) == 4 * 1 + 2 * (2 - 1) + 1 * (4 - 2)
    assert trajectory(tmp_path / "run") == trajectory(trained)


def test_search_that_is_killed_twenty_times_equals_an_uninterrupted_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(trajectory(whole)) == NUM_TRIALS > 20
    run: Callable[[Path], None] = partial(start_search, "random_search", **TOY)
    for num_recorded in range(1, 21):
        with monkeypatch.context() as context:
            interrupt_after(num_recorded, context)
            with pytest.raises(Killed):
                run(tmp_path / "cut")
        assert len(trajectory(tmp_path / "cut")) == num_recorded
        run = partial(resume, "random_search")
    resume("random_search", tmp_path / "cut")
    assert trajectory(tmp_path / "cut") == trajectory(whole)
    assert finalists(tmp_path / "cut") == finalists(whole)


def test_search_continues_after_its_budget_was_reduced_below_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        interrupt_after(7, context)
        with pytest.raises(Killed):
            start_search("random_search", tmp_path / "run", **{**TOY, "budget": 30})
    args = dataclasses.replace(load_args(SearchArgs, tmp_path / "run"), budget=31)
    stop = CallAfter(12, lambda loop: loop.propose_no_more())
    with SearchRun(args, agent="random_search", callbacks=[stop]) as run:
        run.search(RandomSearch(run.env, args))
    assert run.loop.budget < 30
    resume("random_search", tmp_path / "run", budget=32)
    assert sum(not record["is_promotion"] for record in trajectory(tmp_path / "run")) == 32


def test_recorded_children_are_counted_without_promotions(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    resume("random_search", tmp_path / "run", budget=14)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["num_resumed"] == 12


def test_json_log_counts_recorded_children_without_promotions(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    resume("random_search", tmp_path / "run", budget=13, log_json=True)
    start = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (start["event"], start["budget"], start["num_recorded"]) == ("start", 13, 12)


def test_search_killed_between_finalists_is_resumed(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = NASESEnv.submit_again
    evaluated: list[str] = []

    def kill_at_second(env: NASESEnv, architecture: Any) -> Future[Evaluation]:
        if evaluated:
            raise Killed
        evaluated.append(architecture.key)
        return again(env, architecture)

    with monkeypatch.context() as context:
        context.setattr(NASESEnv, "submit_again", kill_at_second)
        with pytest.raises(Killed):
            start_search("random_search", tmp_path / "cut", **TOY)
    assert not (tmp_path / "cut" / FINALISTS).exists()
    resume("random_search", tmp_path / "cut")
    assert finalists(tmp_path / "cut") == finalists(whole)


@pytest.mark.parametrize("agent", ["random_search", "ppo", "model_assisted"])
def test_larger_budget_continues_a_finished_run(agent: str, tmp_path: Path) -> None:
    """The first part must be that of the smaller budget, whose promotions are finished before it ends."""
    start_search(agent, tmp_path / "run", **{**TOY, "budget": 7})
    before = trajectory(tmp_path / "run")
    resume(agent, tmp_path / "run", budget=11)
    records = trajectory(tmp_path / "run")
    assert records[: len(before)] == before
    assert sum(not record["is_promotion"] for record in records) == 11
    assert sum(record["fidelity"] == 3 for record in records) == 5
    resume(agent, tmp_path / "run", budget=12)


@pytest.mark.usefixtures("forked_workers")
def test_trajectory_does_not_depend_on_the_executor(trained: Path, tmp_path: Path) -> None:
    start_search("random_search", tmp_path / "run", **DIGITS, execution=ExecutionSettings("processes", num_workers=2))
    assert trajectory(tmp_path / "run") == trajectory(trained)
    assert finalists(tmp_path / "run") == finalists(trained)


def test_commands_read_a_run_with_rungs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_command(StatusArgs(trained))
    shown = capsys.readouterr().out
    assert "4 of 4 children, 3 promoted, 0 in flight, 0 failed" in shown
    validate_command(ValidateArgs(trained))
    assert "7 of 7 children were reproduced" in capsys.readouterr().out
    shown = run_here(cli.main, "pareto", str(trained)).stdout
    assert "1 of 1 children at the highest rung are on the Pareto front" in shown
    search = read_search(trained)
    assert search.num_children == 4
    assert search.reward == finalists(trained)[0]["mean_reward"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rungs", "2;6"), "--rungs must be numbers of epochs separated by commas, such as 1,3,7, not 2;6"),
        (("--rungs", "6,2"), "rungs must be increasing numbers of epochs, not 6, 2"),
        (("--rungs", "0,2"), "rungs must be increasing numbers of epochs, not 0, 2"),
        (("--rungs", "1,2", "--child.num-epochs", "7"), "num_epochs (--child.num-epochs) has no effect with rungs; omit it"),
        (("--rungs", "1,2", "--reduction-factor", "1"), "--reduction-factor must be at least 2, not 1"),
        (("--reduction-factor", "3"), "--reduction-factor has no effect without --rungs; omit it"),
        (("--rungs", "2", "--reduction-factor", "3"), "--reduction-factor has no effect with one rung; omit it"),
        (("--num-finalists", "-1"), "--num-finalists must be 0 or at least 2, not -1"),
        (("--num-finalists", "1"), "--num-finalists must be 0 or at least 2, not 1"),
        (("--env-id", "NASES-Synthetic-v0", "--num-finalists", "2"), "--num-finalists has no effect in NASES-Synthetic-v0"),
        (("--env-id", "NASES-Synthetic-v0", "--rungs", "1,2"), "NASES-Synthetic-v0 does not take --rungs"),
    ],
)
def test_wrong_options_are_one_line(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    given = (*options, "--run-dir", str(tmp_path / "run"))
    if "--env-id" not in options:
        given += ("--preset", "smoke")
    assert message in error_of(run_here(script(ROOT / "agents" / "random_search.py"), *given))
    assert not (tmp_path / "run").exists()
