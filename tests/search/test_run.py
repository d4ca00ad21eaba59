"""The run directory, the budget, and the end of a search after an interrupt or an error."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.envs import SyntheticEnv
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, resolve_preset
from nases_env.execution import ExecutionSettings, Store
from nases_env.search import SearchArgs, SearchLoop, SearchRun, make_env
from nases_env.search.run_dir import RunDir, is_locked
from tests.processes import run_forked
from tests.search.acting import CallAfter, RandomActions


def arguments(folder: Path, **options: Any) -> SearchArgs:
    return SearchArgs(**{"env_id": "NASES-Synthetic-v0", "budget": 12, "run_dir": folder / "run", **options})


def run(args: SearchArgs) -> SearchRun:
    with SearchRun(args, agent="test") as search:
        search.search(RandomActions(search.env, args.seed))
    return search


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "evaluations.jsonl").read_text().splitlines()]


def test_run_directory_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = run(arguments(tmp_path))
    records = lines(tmp_path)
    assert [record["child"] for record in records] == list(range(1, 13))
    best = max(records, key=lambda record: record["reward"])
    architecture = search.env.to_architecture((tmp_path / "run" / "best.json").read_text())
    assert architecture.key == best["key"]
    assert search.env.to_architecture(best["genotype"]) == architecture
    for record in records:
        assert search.env.decode(np.array(record["action"], np.float32)).key == record["key"]
    with Store(tmp_path / "run" / "store.sqlite", read_only=True) as store:
        assert store.count() == len({record["key"] for record in records})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["agent"] == "test"
    assert config["arguments"]["env_id"] == "NASES-Synthetic-v0"
    assert config["arguments"]["budget"] == 12
    assert config["configuration"]["operator"] == "sep_conv_3x3"
    assert {"torch", "python", "nases_env"} <= set(config["versions"])
    for image in ("best.png", "best.svg"):
        assert (tmp_path / "run" / image).stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "the best of 12 architectures" in printed
    assert str(tmp_path / "run") in printed.replace("\n", "")


def test_curves(tmp_path: Path) -> None:
    run(arguments(tmp_path))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    rewards = [record["reward"] for record in lines(tmp_path)]

    def curve(tag: str) -> list[float]:
        return [event.value for event in events.Scalars(tag)]

    assert [event.step for event in events.Scalars("search/reward")] == list(range(1, 13))
    assert curve("search/reward") == pytest.approx(rewards)
    assert curve("search/best_reward") == pytest.approx(list(np.maximum.accumulate(rewards)))
    assert curve("search/reward_mean_10")[-1] == pytest.approx(float(np.mean(rewards[-10:])))
    assert curve("search/distinct_architectures")[-1] == len({record["key"] for record in lines(tmp_path)})
    assert curve("update/policy/entropy") == [1.5] * 12
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("trial/")]  # the environment builds no networks
    assert len(events.Images("trial/best_cells")) == len(set(np.maximum.accumulate(rewards)))


@pytest.mark.usefixtures("tiny_children")
def test_same_command_produces_the_same_trajectory(tmp_path: Path) -> None:
    def evaluations(name: str) -> list[dict[str, Any]]:
        run(arguments(tmp_path / name, env_id="NASES-Digits-v0", preset="smoke", budget=3, num_finalists=2))
        return [{**record, "seconds": None} for record in lines(tmp_path / name)]

    assert evaluations("a") == evaluations("b")


def test_repeated_architecture_is_recorded_as_not_new(tmp_path: Path) -> None:
    with SearchRun(arguments(tmp_path, budget=2), agent="test") as search:
        space = search.env.search_space
        architecture = space.sample(np.random.default_rng(0))
        evaluations = search.loop.evaluate_all([architecture] * 2)
        assert search.loop.done
    assert [record["is_new"] for record in lines(tmp_path)] == [True, False]
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_evaluated_children_are_kept_after_an_interrupt_or_error(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with SearchRun(arguments(tmp_path), agent="test") as search:
            search.loop.evaluate_all(search.env.decode_batch(np.zeros((1, 20))), np.zeros((1, 20)))
            raise error

    with pytest.raises(error):
        interrupted()
    assert len(lines(tmp_path)) == 1
    assert (tmp_path / "run" / "best.png").exists()


def search_after_interrupt() -> None:
    """Interrupt a search, and then the program that continues after it."""

    def interrupt(*received: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    search = SearchRun(arguments(Path()), agent="test", callbacks=[CallAfter(3, interrupt)])
    with contextlib.suppress(KeyboardInterrupt), search:
        search.search(RandomActions(search.env))
    assert signal.getsignal(signal.SIGINT) is before
    try:
        interrupt()
        time.sleep(10)
    except KeyboardInterrupt:
        print("interrupted again")


def test_program_that_continues_after_an_interrupt_handles_the_next_one(tmp_path: Path) -> None:
    result = run_forked(search_after_interrupt, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "interrupted again" in result.stdout
    assert len(lines(tmp_path)) == 3


def test_invalid_arguments_are_one_line_errors_and_write_nothing(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").touch()
    for options, message in (
        ({"env_id": "NASES-CIFAR11-v0"}, "NASES-CIFAR11-v0"),
        ({"env_id": "no_module:NASES-Own-v0"}, "No module named 'no_module'"),
        ({"budget": 0}, "--budget must be at least 1"),
        ({"ask_batch_size": 0}, "--ask-batch-size must be at least 1"),
        ({"num_envs": 0}, "--num-envs must be at least 1"),
        ({"execution": ExecutionSettings(ray_address="127.0.0.1:1")}, "serial does not take ray_address"),
        ({"execution": ExecutionSettings(store=str(used))}, "used"),
        ({"env_kwargs": {"table": "table.csv"}}, "does not take --env-kwargs table; known: operator, landscape_seed"),
        ({"env_kwargs": {"landscape_sed": "3"}}, "landscape_sed .did you mean 'landscape_seed'"),
        ({"env_kwargs": {"landscape_seed": 5000 * "-" + "1"}}, "--env-kwargs landscape_seed must be int . None"),
        ({"env_kwargs": {"landscape_seed": "three"}}, "--env-kwargs landscape_seed must be int . None, not 'three'"),
        ({"run_dir": used}, "exists and is not empty"),
        ({"preset": "smoke"}, "NASES-Synthetic-v0 does not take --preset"),
        ({"objectives": "accuracy,flops"}, "NASES-Synthetic-v0 does not take --objectives; omit it, or choose"),
        ({"env_id": "NASES-MO-Digits-v0", "objectives": "flops,accuracy"}, "they must be accuracy and then distinct costs"),
        ({"child": replace(resolve_preset("auto")[1], num_epochs=3)}, "does not take --child.num-epochs;"),
        ({"env_id": "CartPole-v1"}, "CartPole-v1 is not an environment for architecture search"),
        ({"env_id": "NASES-CIFAR10-v0", "preset": "smoke", "data_dir": str(tmp_path / "absent")}, "absent"),
        ({"env_id": "NASES-Digits-v0", "data_dir": str(used)}, "does not read data_dir .*; omit it, or use NASES-ImageF"),
        ({"run_dir": used / "file" / "run"}, "cannot write .*Not a directory"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            SearchRun(arguments(tmp_path, **options), agent="test")
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == [used, used / "file"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the writer of event files
@pytest.mark.parametrize("num_trials", [5, 12])
def test_moved_run_directory_is_an_error_and_is_not_created_again(tmp_path: Path, num_trials: int) -> None:
    args = arguments(tmp_path, execution=ExecutionSettings(store=str(tmp_path / "store.sqlite")))

    def move(loop: SearchLoop) -> None:
        shutil.move(tmp_path / "run", tmp_path / "moved")

    search = SearchRun(args, agent="test", callbacks=[CallAfter(num_trials, move)])
    with pytest.raises(InputError, match=r"evaluations.jsonl was moved, replaced or deleted.*--resume"), search:
        search.search(RandomActions(search.env, args.seed))
    assert not (tmp_path / "run").exists()
    run(replace(args, run_dir=None, resume=tmp_path / "moved"))
    assert len((tmp_path / "moved" / "evaluations.jsonl").read_text().splitlines()) == 12


def test_searches_started_in_the_same_second_have_different_run_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("nases_env.search.run.datetime", Clock)
    monkeypatch.chdir(tmp_path)
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=2)
    with SearchRun(args, agent="test") as first, SearchRun(args, agent="test") as second:
        for search in (first, second):
            search.search(RandomActions(search.env, 0))
    name = "runs/NASES-Synthetic-v0-test-seed0-20260102-030405"
    assert [str(search.run_dir) for search in (first, second)] == [name, f"{name}-2"]
    for run_dir in (first.run_dir, second.run_dir):
        assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == 2


def test_status_of_a_run_does_not_prevent_a_search(tmp_path: Path) -> None:
    (tmp_path / "evaluations.jsonl").touch()
    directory = RunDir(tmp_path)
    with open(tmp_path / "evaluations.jsonl", "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as `nases status` does for a moment
        threading.Timer(0.05, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        directory.lock()
    assert is_locked(tmp_path)
    directory.close()


def test_env_class_can_be_the_entry_point_of_an_id() -> None:
    entry_point: Any = SyntheticEnv
    gym.register("ByClass-v0", entry_point=entry_point)
    try:
        assert type(make_env(SearchArgs(env_id="ByClass-v0"))) is SyntheticEnv
    finally:
        del gym.registry["ByClass-v0"]


def test_child_options_override_the_preset(tmp_path: Path) -> None:
    args = arguments(
        tmp_path,
        env_id="NASES-Digits-v0",
        preset="smoke",
        child=replace(PRESETS["smoke"], num_epochs=2, num_train_images=None),
    )
    settings = make_env(args).settings  # type: ignore[attr-defined]
    assert (settings.num_epochs, settings.num_train_images, settings.num_filters) == (2, None, 2)
