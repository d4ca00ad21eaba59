"""The timed session: it searches, trains the best child it found, and writes what came of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nases_env
from benchmarks.search_then_train import Args, main
from nases_env.errors import InputError


def test_the_best_child_is_trained_and_tested(tmp_path: Path) -> None:
    main(
        Args(
            env_id="NASES-Digits-v0",
            preset="smoke",
            search_minutes=0.02,
            train_minutes=0.001,
            model=tmp_path / "model.safetensors",
            output=tmp_path / "figures.json",
        )
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    search, final = figures["search"], figures["final"]
    assert search["num_children"] == len(search["best_so_far"]) >= 1
    assert search["best_so_far"][-1] == search["best_valid_accuracy"]
    assert final["num_epochs"] == final["settings"]["num_epochs"] == 1  # the time is over before one ends
    assert 0 < final["seconds_per_epoch"]["least"] <= final["seconds_per_epoch"]["most"]
    model = nases_env.load_model(tmp_path / "model.safetensors")
    assert model.description["num_right"] == final["num_right"]
    assert model.search_space.from_json(json.dumps(search["genotype"])).key == model.architecture.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_minutes": 0.0}, "--search-minutes must be a positive number"),
        ({"train_minutes": float("nan")}, "--train-minutes must be a positive number"),
        ({"num_envs": 0}, "--num-envs must be at least 1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)


def test_an_environment_without_children_to_train() -> None:
    with pytest.raises(InputError, match="NASES-Synthetic-v0 trains no children"):
        main(Args(env_id="NASES-Synthetic-v0"))
