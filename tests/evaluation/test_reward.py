"""Rewards from the training speed and the size of a network."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.evaluation import (
    PRESETS,
    ChildSettings,
    Evaluation,
    Status,
    TrainingEvaluator,
    final_settings,
    load_settings,
    resolve_preset,
    scale_odds,
    training_speed,
)
from nases_env.execution.store import Store
from nases_env.networks import count_parameters
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import best_record, read_trials
from nases_env.search.run_report import read_run
from nases_env.search_spaces import EnasMicro, get_search_space
from nases_env.training import EpochRecord
from tests.search.acting import RandomActions

SCORES = st.floats(0, 1)
FLOPS = st.integers(1, 10**12)
ARCHITECTURE = EnasMicro().sample(np.random.default_rng(0))
_, SMOKE = resolve_preset("smoke", {"reward_signal": "training_speed", "flops_exponent": 0.5})


def test_training_speed_is_the_geometric_mean_of_the_probability_of_the_class() -> None:
    curve = [EpochRecord(1, 0.1, -math.log(0.2), 0.3), EpochRecord(2, 0.1, -math.log(0.8), 0.7)]
    assert training_speed(curve) == pytest.approx(math.sqrt(0.2 * 0.8))


def test_odds_are_multiplied_by_a_power_of_the_flops() -> None:
    assert scale_odds(0.5, 4_000_000, 0.5) == pytest.approx(2 / 3)  # odds 1 to 2
    assert scale_odds(0.5, 4_000_000, -0.5) == pytest.approx(1 / 3)


@given(score=SCORES, flops=FLOPS, exponent=st.floats(-10, 10))
def test_scores_stay_between_0_and_1(score: float, flops: int, exponent: float) -> None:
    scaled = scale_odds(score, flops, exponent)
    assert 0 <= scaled <= 1
    assert scale_odds(0.0, flops, exponent) == 0
    assert scale_odds(1.0, flops, exponent) == 1
    assert scale_odds(score, flops, 0.0) == pytest.approx(score)


@given(low=SCORES, high=SCORES, small=FLOPS, large=FLOPS, exponent=st.floats(0, 2))
def test_better_and_larger_networks_have_no_lower_reward(
    low: float, high: float, small: int, large: int, exponent: float
) -> None:
    low, high, small, large = min(low, high), max(low, high), min(small, large), max(small, large)
    assert scale_odds(low, small, exponent) <= scale_odds(high, large, exponent) + 1e-12


def test_an_evaluation_has_the_score_that_its_curve_and_size_determine() -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", SMOKE, device="cpu")
    evaluation = evaluator.evaluate(ARCHITECTURE, seed=1)
    expected = scale_odds(training_speed(evaluation.curve), evaluation.num_flops, 0.5)
    assert evaluation.reward == evaluation.score == expected != evaluation.valid_accuracy
    plain = dataclasses.replace(evaluator, settings=PRESETS["smoke"]).evaluate(ARCHITECTURE, seed=1)
    assert plain.score is None
    assert plain.reward == plain.valid_accuracy == evaluation.valid_accuracy


def test_a_failed_child_has_the_reward_0() -> None:
    assert Evaluation("a", 0, Status.DIVERGED, score=0.5).reward == 0


def test_results_of_earlier_versions_belong_to_the_validation_accuracy() -> None:
    settings = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu").describe()["settings"]
    assert not {"reward_signal", "flops_exponent"} & settings.keys()
    assert load_settings(settings, ChildSettings()) == PRESETS["smoke"]
    changed = TrainingEvaluator("enas_micro", "digits", SMOKE, device="cpu").describe()["settings"]
    assert (changed["reward_signal"], changed["flops_exponent"]) == ("training_speed", 0.5)


@pytest.mark.parametrize(
    ("search_space", "exponent"), [("enas_micro", 0.5), ("nasbench201", 0.5), ("enas_micro_sized", 0.0)]
)
def test_preset_cpu_takes_the_exponent_of_the_search_space(search_space: str, exponent: float) -> None:
    env = gymnasium.make("NASES-Digits-v0", preset="cpu", search_space=search_space, device="cpu")
    assert env.unwrapped.settings.flops_exponent == exponent  # type: ignore[attr-defined]
    described = TrainingEvaluator(search_space, "digits", PRESETS["cpu"], device="cpu").describe()["settings"]
    assert described["flops_exponent"] == exponent
    chosen = gymnasium.make("NASES-Digits-v0", preset="cpu", search_space=search_space, flops_exponent=0.25, device="cpu")
    assert chosen.unwrapped.settings.flops_exponent == 0.25  # type: ignore[attr-defined]


def test_sizes_are_known_where_the_reward_grows_with_them() -> None:
    def size(search_space: str, exponent: float) -> float | None:
        settings = dataclasses.replace(SMOKE, flops_exponent=exponent)
        space = get_search_space(search_space)
        evaluator = TrainingEvaluator(search_space, "digits", settings, device="cpu")
        return evaluator.size(space.sample(np.random.default_rng(0)))

    evaluator = TrainingEvaluator("enas_micro", "digits", SMOKE, device="cpu")
    assert evaluator.size(ARCHITECTURE) == count_parameters(evaluator.build(ARCHITECTURE, seed=0))
    assert size("enas_micro", 0.5)
    assert size("enas_micro", 0.0) is None
    assert size("enas_micro", -0.5) is None
    for name in ("nasbench201", "enas_micro_sized"):  # the sizes of a search space do not depend on the reward
        assert size(name, 0.5) == size(name, 0.0) is not None


def test_only_the_preset_cpu_has_another_reward_and_no_final_training() -> None:
    assert [name for name, preset in PRESETS.items() if not preset.rewards_accuracy] == ["cpu"]
    assert final_settings(PRESETS["cpu"], "cpu").rewards_accuracy


@pytest.mark.parametrize(
    ("option", "value"),
    [("reward_signal", "accuracy"), ("flops_exponent", 11.0), ("flops_exponent", math.nan), ("flops_exponent", "high")],
)
def test_invalid_rewards_are_one_line(option: str, value: object) -> None:
    with pytest.raises(InputError, match=option) as error:
        resolve_preset("smoke", {option: value})
    assert "\n" not in str(error.value)


def test_the_environment_returns_the_score_and_reports_the_accuracy() -> None:
    env = gymnasium.make("NASES-Digits-v0", preset="smoke", reward_signal="training_speed", device="cpu")
    env.reset(seed=0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    evaluation = env.unwrapped.last_evaluation  # type: ignore[attr-defined]
    assert reward == evaluation.score == training_speed(evaluation.curve)
    assert info["valid_accuracy"] == evaluation.valid_accuracy
    env.close()


def test_a_search_ranks_reports_and_resumes_by_the_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = dataclasses.replace(SMOKE, num_train_images=32, num_valid_images=32)
    args = SearchArgs(
        env_id="NASES-Digits-v0", search_space="nasbench201", preset="smoke", budget=4, run_dir=tmp_path / "run", child=child
    )
    with SearchRun(args, agent="random") as run:
        run.search(RandomActions(run.env))
        best = run.loop.best
    assert best is not None
    trials = list(read_trials(tmp_path / "run"))
    assert [evaluation.reward for _, evaluation in trials] == [record["reward"] for record, _ in trials]
    with Store(tmp_path / "run" / "store.sqlite", read_only=True) as store:
        assert {row["score"] for row in store.rows()} >= {evaluation.score for _, evaluation in trials}
    assert "reward" in capsys.readouterr().out
    report = read_run(tmp_path / "run")
    assert report.reward_name == "reward"
    record = best_record(tmp_path / "run")
    assert record is not None
    assert record["key"] == best.architecture.key

    resumed_args = dataclasses.replace(args, budget=6, resume=tmp_path / "run", run_dir=None)
    with SearchRun(resumed_args, agent="random") as resumed:
        resumed.search(RandomActions(resumed.env))
    again = list(read_trials(tmp_path / "run"))
    assert [evaluation.reward for _, evaluation in again[:4]] == [evaluation.reward for _, evaluation in trials]
    assert len(again) == 6


def test_a_search_of_an_earlier_version_keeps_its_reward(tmp_path: Path) -> None:
    child = dataclasses.replace(PRESETS["smoke"], num_filters=PRESETS["cpu"].num_filters)
    args = SearchArgs(env_id="NASES-Digits-v0", preset="cpu", budget=1, run_dir=tmp_path / "run", child=child)
    with SearchRun(args, agent="random") as run:
        run.search(RandomActions(run.env))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for name in ("reward_signal", "flops_exponent"):
        del config["arguments"]["child"][name]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert load_args(SearchArgs, tmp_path / "run").child == child
