"""The environment of TransNAS-Bench-101: both checkers, and the guarantees of the class docstring."""

from __future__ import annotations

import inspect
import pickle
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from nases_env.envs import NASESVectorEnv, TransNASMicroEnv
from nases_env.errors import InputError
from nases_env.evaluation.transnas import TASKS
from nases_env.search import SearchArgs, make_env
from nases_env.search_spaces.transnas_micro import TransNASMicro
from tests.evaluation.test_transnas import CELLS, REWARDS, real_table, requires_real_table, write_table

ENV_ID = "NASES-TransNASMicro-v0"
SPACE = TransNASMicro()
NUM_ACTIONS = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("transnas") / "table.csv")


def unwrapped(env: gym.Env[Any, Any]) -> TransNASMicroEnv:
    return cast(TransNASMicroEnv, env.unwrapped)


@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
@pytest.mark.parametrize("operator_permutation_seed", [None, 3])
def test_gymnasium_checker(table: str, render_mode: str | None, operator_permutation_seed: int | None) -> None:
    options: dict[str, Any] = {"render_mode": render_mode, "operator_permutation_seed": operator_permutation_seed}
    check_env(gym.make(ENV_ID, table=table, **options).unwrapped)


@pytest.mark.parametrize("task", ["class_object", "room_layout"])
def test_stable_baselines3_checker(table: str, task: str) -> None:
    check_env_of_sb3(gym.make(ENV_ID, table=table, task=task), skip_render_check=False)


def test_spec_round_trips(table: str) -> None:
    env = gym.make(ENV_ID, table=table, task="normal", operator_permutation_seed=5)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert unwrapped(again).evaluator == unwrapped(env).evaluator
    assert isinstance(gym.make(f"nases_env:{ENV_ID}", table=table).unwrapped, TransNASMicroEnv)


def test_spaces(table: str) -> None:
    env = gym.make(ENV_ID, table=table)
    assert env.action_space == gym.spaces.Box(-1, 1, (NUM_ACTIONS,), np.float32)
    assert env.observation_space == gym.spaces.Box(0, 1, (6,), np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_step_returns_the_metric_of_the_task_for_the_child_that_the_action_decodes_to(table: str, task: str) -> None:
    env = gym.make(ENV_ID, table=table, task=task, operator_permutation_seed=1)
    space = unwrapped(env).search_space
    _, first_info = env.reset(seed=1)
    assert set(first_info) == {"key", "genotype", "task"}
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    architecture = space.from_json(info["genotype"])
    assert architecture == space.decode(unwrapped(env).embedding.decode(3 * action))
    np.testing.assert_array_equal(observation, space.encode(architecture))
    row = CELLS.index(SPACE.from_json(info["genotype"]).decisions)
    assert type(reward) is float
    assert reward == info["valid_accuracy"] == pytest.approx(REWARDS[task](row))
    assert (info["task"], info["status"], terminated, truncated) == (task, "ok", False, False)
    assert (info["train_accuracy"], info["num_params"], info["num_flops"]) == (0.0, 0, 0)
    assert len(info) == 10


def test_information_without_strings_lacks_the_task(table: str) -> None:
    env = gym.make(ENV_ID, table=table, info_text=False)
    _, first_info = env.reset(seed=0)
    info = env.step(np.zeros(NUM_ACTIONS, np.float32))[4]
    assert (
        set(first_info)
        == set(info)
        == {"valid_accuracy", "train_accuracy", "num_params", "num_flops", "activation_bytes", "file_bytes"}
    )


def test_vector_environment_returns_the_task_of_each_child(table: str) -> None:
    envs = gym.make_vec(ENV_ID, num_envs=2, table=table, task="jigsaw")
    assert isinstance(envs, NASESVectorEnv)
    _, first_infos = envs.reset(seed=0)
    infos = envs.step(np.zeros((2, NUM_ACTIONS), np.float32))[4]
    assert list(first_infos["task"]) == list(infos["task"]) == ["jigsaw", "jigsaw"]
    envs.close()


def test_key_reward_and_information_do_not_depend_on_the_operator_permutation_and_the_seed(table: str) -> None:
    results = []
    for seed in (None, 0, 1, 2):
        env = TransNASMicroEnv(table=table, operator_permutation_seed=seed)
        _, info = env.reset(seed=seed, options={"architecture": SPACE.genotype(SPACE.architecture(CELLS[1234]))})
        results.append((info, env.evaluate(env.architecture).reward))
    assert len({TransNASMicroEnv(table=table, operator_permutation_seed=seed).search_space for seed in range(4)}) > 1
    assert results == results[:1] * 4


def test_task_is_set_by_a_keyword_of_the_command_line(table: str) -> None:
    env = make_env(
        SearchArgs(env_id=ENV_ID, env_kwargs={"task": "jigsaw", "table": table, "operator_permutation_seed": "3"})
    )
    assert isinstance(env, TransNASMicroEnv)
    assert env.evaluator.task == "jigsaw"
    assert env.search_space == TransNASMicro(TransNASMicro.order_operators(3))


def test_unknown_task_is_one_line() -> None:
    with pytest.raises(InputError, match=r"unknown task 'jigsow' \(did you mean 'jigsaw'\?\); known: ") as caught:
        gym.make(ENV_ID, task="jigsow")
    assert "\n" not in str(caught.value)


def test_reset_raises_an_error_if_the_table_is_missing_and_reads_the_variable(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = gym.make(ENV_ID).unwrapped
    with pytest.raises(InputError, match=r"set table .*NASES_TRANSNAS_TABLE .*NASES_DATA_DIR") as caught:
        env.reset()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("NASES_TRANSNAS_TABLE", table)
    env.reset()
    assert env.step(np.zeros(NUM_ACTIONS, np.float32))[4]["status"] == "ok"


def test_environment_is_picklable(table: str) -> None:
    env = TransNASMicroEnv(table=table, operator_permutation_seed=2)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    action = np.full(NUM_ACTIONS, 0.4, np.float32)
    assert again.step(action)[4] == env.step(action)[4]


def test_every_keyword_and_task_is_documented() -> None:
    documentation = cast(str, inspect.getdoc(TransNASMicroEnv))
    for name in inspect.signature(TransNASMicroEnv).parameters:
        assert f"\n    {name}: " in documentation
    for task in TASKS:
        assert documentation.count(f"``{task}``") >= 2


@requires_real_table
def test_optimum_of_the_real_table() -> None:
    env = TransNASMicroEnv(table=real_table(), task="class_scene", operator_permutation_seed=4)
    env.reset(seed=0)
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    assert env.evaluate(env.to_architecture({"cell": cell})).reward == pytest.approx(0.5493631)
