"""A search with a limited duration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nases_agents import random_search, reinforce, sb3
from nases_agents.random_search import RandomSearch

from nases_env.cli.status import StatusArgs, status_command
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Status
from nases_env.search import SearchArgs, SearchLoop, SearchRun, Trial, time_budget
from nases_env.search.callbacks import SearchCallback
from nases_env.search.parsing import parse_and_search
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import read_config, read_trajectory
from nases_env.search.time_budget import UNLIMITED_BUDGET, TimeBudget, format_budget, format_duration, parse_duration
from tests.commands import ROOT, error_of, run_here, script
from tests.search.rungs import ToyRungs

pytestmark = pytest.mark.usefixtures("tiny_children", "without_reports")


class Clock(SearchCallback):
    """Advances the time of the search by a second per trial."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=lambda: self.now))

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        self.now += not is_replayed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Make every trial last a second."""
    clock = Clock(monkeypatch)
    on_trial = TimeBudget.on_trial

    def advance(budget: TimeBudget, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        clock.on_trial(loop, trial, is_replayed=is_replayed)
        on_trial(budget, loop, trial, is_replayed=is_replayed)

    monkeypatch.setattr(TimeBudget, "on_trial", advance)
    return clock


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), (" 1.5H ", 5400)])
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "45", "m", "-3m", "0s", "3x", "1..5h", "30m1h", "nan", "infs"])
def test_other_texts_are_errors(text: str) -> None:
    with pytest.raises(InputError, match="a duration is written as 90s, 45m, 2h or 1h30m, not"):
        parse_duration(text)
    assert error_of(run_here(script(ROOT / "agents" / "random_search.py"), f"--time={text}")).startswith("error: --time: a")


@given(st.integers(1, 10**7))
def test_formatted_duration_is_parsed_again(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("budget", "seconds", "text"),
    [(1, None, "1 child"), (5, 90.0, "5 children for 1m30s"), (UNLIMITED_BUDGET, 60.0, "children for 1m")],
)
def test_budget_is_described(budget: int, seconds: float | None, text: str) -> None:
    assert format_budget(budget, seconds) == text


def args(path: Path, **options: Any) -> SearchArgs:
    return SearchArgs(**{"env_id": "NASES-Synthetic-v0", "budget": UNLIMITED_BUDGET, "run_dir": path, **options})


def search(given: SearchArgs) -> SearchRun:
    with SearchRun(given, agent="random_search") as run:
        run.search(RandomSearch(run.env, given))
    return run


@pytest.mark.parametrize("options", [{}, {"num_envs": 3}, {"ask_batch_size": 4}])
def test_search_ends_with_the_children_in_flight(options: dict[str, Any], clock: Clock, tmp_path: Path) -> None:
    run = search(args(tmp_path / "run", time=7.0, **options))
    assert run.loop.is_complete
    assert 7 <= len(run.loop.trials) <= 10
    assert run.loop.budget == run.loop.num_children == len(run.loop.trials)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["arguments"]["budget"] == config["budgets"][0] == len(run.loop.trials)
    assert "finished" in config


def test_search_that_is_interrupted_after_its_time_keeps_its_budget(clock: Clock, tmp_path: Path) -> None:
    class Interrupt(SearchCallback):
        def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
            if loop.budget < UNLIMITED_BUDGET:
                raise KeyboardInterrupt

    given = args(tmp_path / "run", time=7.0, num_envs=4)
    with pytest.raises(KeyboardInterrupt), SearchRun(given, agent="random_search", callbacks=[Interrupt()]) as run:
        run.search(RandomSearch(run.env, given))
    assert run.loop.num_children < run.loop.budget < UNLIMITED_BUDGET
    assert read_config(tmp_path / "run")["budgets"] == [run.loop.budget]
    resumed = search(load_args(SearchArgs, tmp_path / "run"))
    assert resumed.loop.is_complete
    assert resumed.loop.num_children == run.loop.budget


def test_waiting_during_the_replay_does_not_end_the_search(clock: Clock, tmp_path: Path) -> None:
    """The replay of infeasible proposals can take longer than a second."""
    search(args(tmp_path / "run", budget=9, time=None))
    given = dataclasses.replace(load_args(SearchArgs, tmp_path / "run"), budget=12, time=2.0)
    with SearchRun(given, agent="random_search") as run:

        class Waiting(RandomSearch):
            def ask(self, num_children: int = 1) -> list[Any]:
                if run.loop.num_trials < 7:
                    clock.now += 5.0
                    run.loop._wait()
                return super().ask(num_children)

        run.search(Waiting(run.env, given))
    assert run.loop.num_children >= 10
    assert read_config(tmp_path / "run")["arguments"]["budget"] == run.loop.num_children


def test_finished_search_is_continued(clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(args(tmp_path / "run", time=3.0))
    recorded = load_args(SearchArgs, tmp_path / "run")
    with pytest.raises(InputError, match="is finished"):
        search(recorded)
    clock.now = 0.0
    search(dataclasses.replace(recorded, budget=UNLIMITED_BUDGET))
    search(args(tmp_path / "whole", budget=8, time=None))
    keys, whole = ([record["key"] for record in read_trajectory(tmp_path / name)] for name in ("run", "whole"))
    assert len(keys) > 3
    assert keys == whole[: len(keys)]
    status_command(StatusArgs(tmp_path / "run"))
    assert f"{len(keys)} of {len(keys)} children" in capsys.readouterr().out


def test_time_is_reserved_for_the_finalists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    small: dict[str, Any] = {"search_space": "nasbench201", "child": dataclasses.replace(PRESETS["smoke"], num_epochs=1)}
    given = args(tmp_path / "run", env_id="NASES-Digits-v0", preset="smoke", **small, num_finalists=3, time=20.0)
    with SearchRun(given, agent="random_search", callbacks=[clock]) as run:
        evaluate = run.env.submit

        def submit(*arguments: Any) -> Any:
            future = evaluate(*arguments)
            evaluation = dataclasses.replace(future.result(), seconds=2.0)
            future = type(future)()
            future.set_result(evaluation)
            return future

        monkeypatch.setattr(run.env, "submit", submit)
        run.search(RandomSearch(run.env, given))
    # Child number n ends when the clock shows n - 1. Four rounds of 2 seconds are reserved, for a child and 3 finalists.
    assert len(run.loop.trials) == 13
    assert len(run.loop.finalists) == 3


def test_time_is_reserved_for_finalists_at_the_last_rung(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    options: dict[str, Any] = {"env_id": "tests.search.rungs:ToyRungs-v0", "rungs": (1, 4), "reduction_factor": 100}
    given = args(tmp_path / "run", **options, num_finalists=2, time=20.0)
    evaluate = ToyRungs.evaluate
    monkeypatch.setattr(ToyRungs, "evaluate", lambda *values: dataclasses.replace(evaluate(*values), seconds=1.0))
    with SearchRun(given, agent="random_search", callbacks=[clock]) as run:
        run.search(RandomSearch(run.env, given))
    # Child number n ends when the clock shows n - 1. A second is reserved for a child and 4 for each of the 2 finalists.
    assert run.loop.num_children == 12


@pytest.mark.parametrize(
    ("num_workers", "num_in_flight", "reserved"),
    [(2, 8, 4 * 10 + 3 * 10), (1, 4, 4 * 10 + 5 * 10), (8, 8, 10 + 10), (2, 0, 10 + 3 * 10)],
)
def test_time_is_reserved_for_all_children_of_a_worker(
    num_workers: int, num_in_flight: int, reserved: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    ends: list[float] = []
    executor = SimpleNamespace(num_workers=num_workers)
    loop: Any = SimpleNamespace(
        env=SimpleNamespace(rungs=(), executor=executor),
        is_replaying=False,
        num_children=1,
        num_envs=8,
        num_finalists=5,
        num_in_flight=num_in_flight,
        propose_no_more=lambda: ends.append(clock.now),
    )
    budget = TimeBudget(1000.0)
    trial: Any = SimpleNamespace(is_new=True, evaluation=Evaluation("key", 0, Status.OK, seconds=10.0))
    budget.on_trial(loop, trial, is_replayed=False)
    for clock.now in (1000.0 - reserved - 1.0, 1000.0 - reserved):
        budget.on_wait(loop)
    assert ends == [1000.0 - reserved]
    ends.clear()
    clock.now -= 1.0
    loop.num_in_flight = max(0, num_in_flight - 1)
    budget.on_trial(loop, trial, is_replayed=False)
    assert ends == [], "the next child ends in time too"


@pytest.mark.parametrize(("is_finished", "budget"), [(True, UNLIMITED_BUDGET), (False, 3)])
def test_resumed_search_keeps_its_budget_unless_it_is_finished(is_finished: bool, budget: int, tmp_path: Path) -> None:
    search(args(tmp_path / "run", budget=3, quiet=True))
    config = read_config(tmp_path / "run")
    if not is_finished:
        del config["finished"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    resumed: list[SearchArgs] = []
    parse_and_search(random_search.Args, resumed.append, options=["--resume", str(tmp_path / "run"), "--time", "30s"])
    assert [(each.budget, each.time) for each in resumed] == [(budget, 30.0)]


@pytest.mark.parametrize("no_limit", ["none", "None"])
def test_recorded_time_can_be_removed(no_limit: str, clock: Clock, tmp_path: Path) -> None:
    search(args(tmp_path / "run", time=3.0))
    run = script(ROOT / "agents" / "random_search.py")
    result = run_here(run, "--resume", str(tmp_path / "run"), "--time", no_limit, "--budget", "9")
    assert result.returncode == 0
    assert sum(1 for _ in read_trajectory(tmp_path / "run")) == 9


@pytest.mark.parametrize("module", [reinforce, sb3])
def test_agents_end_in_time(module: Any, clock: Clock, tmp_path: Path) -> None:
    given = module.Args(env_id="NASES-Synthetic-v0", budget=UNLIMITED_BUDGET, run_dir=tmp_path / "run", time=30.0)
    module.main(given)
    assert 29 <= sum(1 for _ in read_trajectory(tmp_path / "run")) <= 31
    module.main(dataclasses.replace(load_args(module.Args, tmp_path / "run"), budget=35, time=None))
    assert sum(1 for _ in read_trajectory(tmp_path / "run")) == 35


def test_budget_is_unlimited_by_default_on_the_command_line(tmp_path: Path) -> None:
    run = script(ROOT / "agents" / "random_search.py")
    options = ("--env-id", "NASES-Synthetic-v0", "--run-dir", str(tmp_path / "run"))
    result = run_here(run, *options, "--time", "1s")
    assert (result.returncode, "children for 1s" in result.stdout) == (0, True)
    num_children = sum(1 for _ in read_trajectory(tmp_path / "run"))
    assert run_here(run, "--resume", str(tmp_path / "run")).stdout == (
        f"{tmp_path / 'run'} is finished ({num_children} children); to continue, pass a larger --budget, or only --time\n"
    )
    assert run_here(run, "--resume", str(tmp_path / "run"), "--time", "1s").returncode == 0
    assert sum(1 for _ in read_trajectory(tmp_path / "run")) > num_children
