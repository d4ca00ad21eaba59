"""Experiment trackers in their offline modes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sqlite3
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nases_agents.random_search import RandomSearch

from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchRun, trackers
from nases_env.search.recorded_args import load_args
from nases_env.search.trackers import TRACKERS, MlflowTracker, WandbTracker
from tests.commands import ROOT, error_of, run_here, script
from tests.processes import run_forked

RANDOM_SEARCH = ROOT / "agents" / "random_search.py"
REINFORCE = ROOT / "agents" / "reinforce.py"
SEARCH = ("--env-id", "NASES-Synthetic-v0", "--run-dir", "run")


def search(folder: Path, tracker: str, *commands: Sequence[str], variable: str, value: str) -> None:
    """Search in another process, because trackers keep global state, with an environment variable."""
    run_all = partial(run_in_order, [[*options, "--track", tracker] for options in commands])
    result = run_forked(run_all, folder=folder, environment={variable: value})
    assert result.returncode == 0, result.stderr


def run_in_order(commands: Sequence[Sequence[str]]) -> None:
    for options in commands:
        sys.argv = ["reinforce.py", *options]
        script(REINFORCE)()


def test_weights_and_biases(tmp_path: Path) -> None:
    search(tmp_path, "wandb", (*SEARCH, "--budget", "4"), variable="WANDB_MODE", value="offline")
    (recorded,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    content = recorded.read_bytes()
    for text in ("search/best_reward", "search/reward", "update/", "NASES-Synthetic-v0"):
        assert text.encode() in content


def test_mlflow(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first, resumed = (*SEARCH, "--budget", "4"), ("--resume", "run", "--budget", "5")
    search(tmp_path, "mlflow", first, resumed, variable="MLFLOW_TRACKING_URI", value=uri)
    database = sqlite3.connect(tmp_path / "mlflow.db")
    assert database.execute("SELECT name, status FROM runs").fetchall() == [("run", "FINISHED")]
    steps = database.execute("SELECT step FROM metrics WHERE key = 'search/reward' ORDER BY step").fetchall()
    assert sorted({step for (step,) in steps}) == [1, 2, 3, 4, 5]
    params = dict(database.execute("SELECT key, value FROM params"))
    assert params["env_id"] == "NASES-Synthetic-v0"
    assert params["limits.max_params"] == "None"
    # A run belongs to a search, not to its directory.
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed, other = ("--resume", "moved", "--budget", "6"), (*SEARCH, "--budget", "1")
    search(tmp_path, "mlflow", resumed, other, variable="MLFLOW_TRACKING_URI", value=uri)
    steps = database.execute("SELECT max(step) FROM metrics WHERE key = 'search/reward' GROUP BY run_uuid").fetchall()
    assert sorted(steps) == [(1,), (6,)]
    database.close()


def test_trackio(tmp_path: Path) -> None:
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("needs trackio, which installs 150 MB")
    first, resumed = (*SEARCH, "--budget", "4"), ("--resume", "run", "--budget", "5")
    search(tmp_path, "trackio", first, resumed, variable="TRACKIO_DIR", value=str(tmp_path / "trackio"))
    database = sqlite3.connect(tmp_path / "trackio" / "nases.db")
    rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    database.close()
    assert len({name for name, _, _ in rows}) == 1
    assert sorted({step for _, step, metrics in rows if "search/reward" in json.loads(metrics)}) == [1, 2, 3, 4, 5]


class Broken:
    """Stands for the package of a tracker whose server fails after the start."""

    class MlflowClient:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionError(f"no server\nfor {name}")


def test_tracker_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", Broken)
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run", track="mlflow")
    with (
        pytest.raises(InputError, match=r"mlflow cannot start a run \(no server for get_experiment_by_name\)"),
        SearchRun(args, agent="random_search"),
    ):
        pass


def test_search_continues_if_its_tracker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MlflowTracker):
        package = "json"

        def start(self) -> None:
            pass

        def log(self, scalars: Mapping[str, float], step: int) -> None:
            raise ConnectionError("no server")

        def finish(self, *, interrupted: bool) -> None:
            raise AssertionError("a failed tracker is not used again")

    monkeypatch.setitem(TRACKERS, "mlflow", Failing)
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run", track="mlflow")
    with SearchRun(args, agent="random_search") as found:
        found.search(RandomSearch(found.env, args))
    assert len(found.loop.trials) == 3
    assert caplog.text.count("json failed (no server); the search continues without it") == 1
    # Another command may use another tracker, or none.
    assert load_args(SearchArgs, tmp_path / "run").track == "mlflow"
    args = dataclasses.replace(load_args(SearchArgs, tmp_path / "run"), track=None, budget=4)
    with SearchRun(args, agent="random_search") as found:
        found.search(RandomSearch(found.env, args))


def test_search_does_not_wait_for_a_tracker_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()

    class Silent(MlflowTracker):
        package = "json"

        def start(self) -> None:
            pass

        def log(self, scalars: Mapping[str, float], step: int) -> None:
            answers.wait()

        def finish(self, *, interrupted: bool) -> None:
            pass

    monkeypatch.setitem(TRACKERS, "mlflow", Silent)
    monkeypatch.setattr(trackers, "MAX_FINISH_SECONDS", 0.1)
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run", track="mlflow")
    with SearchRun(args, agent="random_search") as found:
        found.search(RandomSearch(found.env, args))
    answers.set()
    assert len(found.loop.trials) == 3
    assert "json did not receive all curves" in caplog.text


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WandbTracker, "package", "wandb_is_missing")
    message = error_of(run_here(script(RANDOM_SEARCH), "--env-id", "NASES-Synthetic-v0", "--track", "wandb"))
    assert "pip install 'nases-env[wandb_is_missing]'" in message
    assert not list(tmp_path.glob("runs/*"))
