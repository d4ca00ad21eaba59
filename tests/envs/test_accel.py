"""The environment of Accel-NASBench: both checkers, and the guarantees of the class docstring."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from nases_env.envs import AccelEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs, make_env
from nases_env.search_spaces.accel import Accel
from tests.evaluation.test_accel import NETWORKS, accuracy_of, size_of, write_table

ENV_ID = "NASES-Accel-v0"
SPACE = Accel()
NUM_ACTIONS = 20


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("accel") / "table.csv")


@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_checker(table: str, render_mode: str | None) -> None:
    check_env(gym.make(ENV_ID, table=table, render_mode=render_mode).unwrapped)


def test_stable_baselines3_checker(table: str) -> None:
    check_env_of_sb3(gym.make(ENV_ID, table=table), skip_render_check=False)


def test_spec_round_trips(table: str) -> None:
    env = gym.make(ENV_ID, table=table)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert isinstance(gym.make(f"nases_env:{ENV_ID}", table=table).unwrapped, AccelEnv)


def test_spaces(table: str) -> None:
    env = gym.make(ENV_ID, table=table)
    assert env.action_space == gym.spaces.Box(-1, 1, (NUM_ACTIONS,), np.float32)
    assert env.observation_space == gym.spaces.Box(0, 1, (28,), np.float32)


def test_step_returns_the_prediction_for_the_child_that_the_action_decodes_to(table: str) -> None:
    env = gym.make(ENV_ID, table=table)
    unwrapped = cast(AccelEnv, env.unwrapped)
    _, first_info = env.reset(seed=1)
    assert set(first_info) == {"key", "genotype"}
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    architecture = SPACE.from_json(info["genotype"])
    assert architecture == SPACE.decode(unwrapped.embedding.decode(3 * action))
    np.testing.assert_array_equal(observation, SPACE.encode(architecture))
    assert type(reward) is float
    assert reward == info["valid_accuracy"] == pytest.approx(accuracy_of(architecture) / 100, abs=0.02)
    assert (info["status"], info["train_accuracy"], terminated, truncated) == ("ok", 0.0, False, False)
    assert info["num_params"] == pytest.approx(size_of(architecture), abs=1000)
    assert info["num_flops"] == pytest.approx(200 * size_of(architecture), rel=1e-3)


def test_reward_of_a_network_in_the_table_is_predicted_for_any_seed(table: str) -> None:
    steps = []
    for seed in (0, 1):
        env = AccelEnv(table=table)
        env.reset(seed=seed, options={"architecture": NETWORKS[5]})
        steps.append(env.evaluate(env.architecture).reward)
    assert steps[0] == steps[1] != accuracy_of(NETWORKS[5]) / 100


def test_vector_environment_evaluates_all_children(table: str) -> None:
    envs = gym.make_vec(ENV_ID, num_envs=2, table=table)
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(np.stack([np.full(NUM_ACTIONS, value, np.float32) for value in (-0.5, 0.5)]))
    assert rewards.tolist() == infos["valid_accuracy"].tolist()
    assert rewards[0] != rewards[1]
    envs.close()


def test_reset_fits_the_surrogate_and_raises_an_error_if_the_table_is_missing(
    table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = gym.make(ENV_ID).unwrapped
    with pytest.raises(InputError, match=r"set table .*NASES_ACCEL_TABLE .*NASES_DATA_DIR") as caught:
        env.reset()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("NASES_ACCEL_TABLE", table)
    env.reset()
    assert env.step(np.zeros(NUM_ACTIONS, np.float32))[4]["status"] == "ok"


def test_render_shows_the_decisions(table: str) -> None:
    env = AccelEnv(table=table, render_mode="ansi")
    env.reset(options={"architecture": NETWORKS[0]})
    assert str(env.render()).splitlines()[:2] == ["not evaluated yet", f"block 0 expansion: {SPACE.values(NETWORKS[0])[0]}"]


def test_information_without_strings_has_the_numbers(table: str) -> None:
    env = gym.make(ENV_ID, table=table, info_text=False)
    _, first_info = env.reset(seed=0)
    info = env.step(np.zeros(NUM_ACTIONS, np.float32))[4]
    assert (
        set(first_info)
        == set(info)
        == {"valid_accuracy", "train_accuracy", "num_params", "num_flops", "activation_bytes", "file_bytes"}
    )


def test_environment_is_picklable(table: str) -> None:
    env = AccelEnv(table=table)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    action = np.full(NUM_ACTIONS, 0.4, np.float32)
    assert again.step(action)[4] == env.step(action)[4]


def test_table_is_a_keyword_of_the_command_line(table: str) -> None:
    env = make_env(SearchArgs(env_id=ENV_ID, env_kwargs={"table": table}))
    assert cast(Any, env.evaluator).path == table
    with pytest.raises(InputError, match="does not take --search-space"):
        make_env(SearchArgs(env_id=ENV_ID, search_space="enas_micro"))


def test_every_keyword_is_documented() -> None:
    documentation = cast(str, inspect.getdoc(AccelEnv))
    for name in inspect.signature(AccelEnv).parameters:
        assert f"\n    {name}: " in documentation
