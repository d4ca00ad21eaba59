"""Tests of the benchmark that searches and trains the best child within a given time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import nases_env
from benchmarks.search_then_train import Args, main, search
from nases_env.envs import base
from nases_env.errors import InputError
from nases_env.evaluation import Evaluator
from nases_env.execution import CachingExecutor, Executor, SerialExecutor
from nases_env.search_spaces import Architecture


@pytest.mark.usefixtures("tiny_children")
def test_best_child_is_trained_and_tested(tmp_path: Path) -> None:
    main(
        Args(
            env_id="NASES-Digits-v0",
            preset="smoke",
            search_minutes=0.005,
            train_minutes=0.001,
            model=tmp_path / "model.safetensors",
            output=tmp_path / "metrics.json",
        )
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    search, final = metrics["search"], metrics["final"]
    assert search["num_children"] == len(search["best_so_far"]) >= 1
    assert search["best_so_far"][-1] == search["best_valid_accuracy"]
    assert final["num_epochs"] == final["settings"]["num_epochs"] == 1  # the time is too short for one epoch
    assert 0 < final["seconds_per_epoch"]["min"] <= final["seconds_per_epoch"]["max"]
    model = nases_env.load_model(tmp_path / "model.safetensors")
    assert model.description["num_correct"] == final["num_correct"]
    assert model.search_space.from_json(json.dumps(search["genotype"])).key == model.architecture.key


@pytest.mark.usefixtures("tiny_children")
def test_children_in_flight_are_finished_and_workers_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Background(SerialExecutor):
        in_background = True

    def make_executor(evaluator: Evaluator, *_: object, describe: Callable[[Architecture], str], **__: object) -> Executor:
        return CachingExecutor(Background(evaluator), None, describe)

    monkeypatch.setattr(base, "make_executor", make_executor)
    args = Args(env_id="NASES-Digits-v0", preset="smoke", search_minutes=1e-6, num_envs=2, device="cpu")
    timed, metrics = search(args, Console())
    assert metrics["num_children"] == timed.num_children == 2  # the time is over when the first one is recorded
    assert timed.num_in_flight == 0
    assert not timed.env.is_started


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_minutes": 0.0}, "--search-minutes must be a positive number"),
        ({"train_minutes": float("nan")}, "--train-minutes must be a positive number"),
        ({"num_envs": 0}, "--num-envs must be at least 1"),
    ],
)
def test_out_of_range_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)


def test_environment_that_trains_no_children_is_rejected() -> None:
    with pytest.raises(InputError, match="NASES-Synthetic-v0 trains no children"):
        main(Args(env_id="NASES-Synthetic-v0"))
