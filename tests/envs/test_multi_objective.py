"""Environments with several objectives: MO-Gymnasium's convention, the objectives, and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import PassiveEnvChecker, TransformReward
from nases_agents.random_search import RandomSearch

import nases_env
from nases_env.envs import MOEnv, MONasBench201Env, NASESVectorEnv, unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.sb3_vec_env import SB3VecEnv
from nases_env.search import SearchArgs, SearchLoop, make_env
from tests.datasets import TinyDatasets
from tests.evaluation.latency_table import write_latency_table

pytestmark = pytest.mark.usefixtures("tiny_children")

ON_IMAGES = tuple(env_id for env_id in nases_env.MO_ENV_IDS if env_id != "NASES-MO-NASBench201-v0")
DEVICE = ("accuracy", "ms_phone")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv")


def options_of(env_id: str, table: str, tiny_datasets: TinyDatasets) -> dict[str, Any]:
    if env_id in ON_IMAGES:
        # The default search space, whose children are larger, is used with digits.
        space = "enas_micro" if env_id == "NASES-MO-Digits-v0" else "nasbench201"
        return {"preset": "smoke", "search_space": space, **tiny_datasets.options(env_id.replace("-MO", ""))}
    return {"table": table, "objectives": DEVICE}


def unwrapped(env: gym.Env[Any, Any]) -> MOEnv:
    return cast(MOEnv, env.unwrapped)


@pytest.mark.parametrize("env_id", nases_env.MO_ENV_IDS)
def test_follows_the_convention_of_mo_gymnasium(env_id: str, table: str, tiny_datasets: TinyDatasets) -> None:
    env = gym.make(env_id, **options_of(env_id, table, tiny_datasets))
    space = unwrapped(env).reward_space
    assert (space.shape, str(space.dtype), unwrapped(env).reward_dim) == ((2,), "float32", 2)
    env.reset(seed=0)
    env.action_space.seed(0)
    _, reward, *_ = env.step(env.action_space.sample())
    assert reward in space
    scalarized = TransformReward(env, lambda vector: float(np.dot(vector, [1.0, 0.1])))  # type: ignore[call-overload]
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(scalarized, skip_render_check=True)


@pytest.mark.parametrize("env_id", nases_env.MO_ENV_IDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:pkg_resources is deprecated:UserWarning")
def test_works_with_the_wrappers_of_mo_gymnasium(env_id: str, table: str, tiny_datasets: TinyDatasets) -> None:
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    wrappers = pytest.importorskip("mo_gymnasium.wrappers")
    options = options_of(env_id, table, tiny_datasets)
    env = mo_gymnasium.make(env_id, **options)
    linear = PassiveEnvChecker(wrappers.LinearReward(env, np.array([0.5, 0.25])))  # pytest turns warnings into errors
    linear.reset(seed=0)
    _, reward, *_, info = linear.step(linear.action_space.sample())
    assert reward == pytest.approx(np.dot(info["vector_reward"], [0.5, 0.25]))
    recorded = wrappers.MORecordEpisodeStatistics(wrappers.MONormalizeReward(env, idx=1))
    recorded.reset(seed=0)
    assert recorded.step(recorded.action_space.sample())[1].shape == (2,)
    vector = pytest.importorskip("mo_gymnasium.wrappers.vector")
    envs = vector.MOSyncVectorEnv([lambda: mo_gymnasium.make(env_id, **options)] * 2)
    envs.reset(seed=0)
    assert envs.step(envs.action_space.sample())[1].shape == (2, 2)


def test_first_objective_is_the_reward_and_costs_are_negated_logarithms() -> None:
    names = ("accuracy", "params", "flops", "memory", "latency")
    env = gym.make("NASES-MO-Digits-v0", preset="smoke", search_space="nasbench201", objectives=names)
    single = gym.make("NASES-Digits-v0", preset="smoke", search_space="nasbench201")
    action = np.zeros(6, np.float32)
    env.reset(seed=3)
    single.reset(seed=3)
    _, vector, _, _, info = env.step(action)
    assert vector[0] == pytest.approx(single.step(action)[1])  # type: ignore[index]
    costs = [info["num_params"], info["num_flops"], info["activation_bytes"], info["latency"] * 1e9]
    assert vector[1:] == pytest.approx(-np.log10(costs), rel=1e-6)  # type: ignore[index]


def test_latency_of_a_device_is_read_from_the_table(table: str) -> None:
    env = gym.make("NASES-MO-NASBench201-v0", table=table, objectives="accuracy,ms_server")
    env.reset(seed=0)
    _, vector, _, _, info = env.step(np.zeros(6, np.float32))
    assert info["latency"] == 0.007
    assert vector[1] == pytest.approx(-np.log10(7e6))  # type: ignore[index]


def test_reset_to_a_child_that_was_measured_returns_the_latency_0_without_texts(table: str) -> None:
    env = gym.make("NASES-MO-NASBench201-v0", table=table, objectives="accuracy,ms_server", info_text=False)
    _, first = env.reset(seed=0)
    unwrap(env).evaluate(unwrap(env).architecture)
    assert env.reset(seed=0)[1] == first
    assert first["latency"] == 0


def test_limit_of_the_latency_makes_children_infeasible(table: str) -> None:
    env = MONasBench201Env(table=table, objectives=DEVICE, max_latency=0.009)
    env.reset(seed=0)
    loop = SearchLoop(env, 60)
    loop.run(RandomSearch(env, SearchArgs()))
    assert loop.num_infeasible > 0
    assert all(0 < trial.evaluation.latency <= 0.009 for trial in loop.trials)
    infeasible = Evaluation("key", 0, Status.TOO_LARGE, num_params=5)
    assert env.reward_of(infeasible).tolist() == [0.0, -16.0]


def test_search_with_a_single_objective_agent_finds_the_highest_accuracy(table: str) -> None:
    args = SearchArgs(
        env_id="NASES-MO-NASBench201-v0", env_kwargs={"table": table}, objectives="accuracy,ms_phone", budget=20
    )
    env = make_env(args)
    env.reset(seed=0)
    loop = SearchLoop(env, 20)
    loop.run(RandomSearch(env, args))
    assert loop.best is not None
    assert loop.best.evaluation.reward == max(trial.evaluation.valid_accuracy for trial in loop.trials)


def test_options_of_a_search_are_passed_on() -> None:
    env = make_env(SearchArgs(env_id="NASES-MO-Digits-v0", preset="smoke", objectives="accuracy,flops"))
    assert isinstance(env, MOEnv)
    assert env.objectives == ("accuracy", "flops")
    with pytest.raises(InputError, match="unknown objective 'speed'"):
        make_env(SearchArgs(env_id="NASES-MO-Digits-v0", preset="smoke", objectives="accuracy,speed"))
    with pytest.raises(InputError, match="NASES-Digits-v0 does not take --objectives"):
        make_env(SearchArgs(env_id="NASES-Digits-v0", preset="smoke", objectives="accuracy,flops"))


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ("accuracy,latency", "unknown objective 'latency'; known: accuracy, params, flops, memory, ms_<device>"),
        ("accuracy,ms_phone,ms_server", "latencies of ms_phone, ms_server; choose one device"),
        ("accuracy", "they must be accuracy and then distinct costs"),
        (5, "objectives must be names, such as 'accuracy,params', not 5"),
        (None, "objectives must be names, such as 'accuracy,params', not None"),
    ],
)
def test_invalid_objectives_are_input_errors(objectives: Any, message: str, table: str) -> None:
    with pytest.raises(InputError, match=message):
        gym.make("NASES-MO-NASBench201-v0", table=table, objectives=objectives)


def test_table_is_found_in_the_data_directory(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    env = gym.make("NASES-MO-NASBench201-v0", objectives=DEVICE)
    with pytest.raises(
        InputError, match=r"no table of NAS-Bench-201 with latencies: set table \(--env-kwargs table FILE\) or the env"
    ):
        env.reset(seed=0)
    (tmp_path / "nasbench201-latency.csv").write_bytes(Path(table).read_bytes())
    env.reset(seed=0)


def test_make_vec_returns_a_vector_of_rewards_for_each_child(table: str) -> None:
    envs = gym.make_vec("NASES-MO-NASBench201-v0", num_envs=3, table=table, objectives="accuracy,ms_phone,params")
    assert isinstance(envs, NASESVectorEnv)
    envs.reset(seed=0)
    rewards = envs.step(envs.action_space.sample())[1]
    assert rewards.shape == (3, 3)
    assert all(reward in envs.reward_space for reward in rewards.astype(np.float32))
    assert envs.spec is not None
    assert EnvSpec.from_json(envs.spec.to_json()) == envs.spec


def test_stable_baselines3_learns_from_the_first_objective(table: str) -> None:
    envs = gym.make_vec("NASES-MO-NASBench201-v0", num_envs=3, table=table, objectives=DEVICE)
    adapted = SB3VecEnv(envs)
    adapted.reset()
    _, rewards, _, infos = adapted.step(np.zeros((3, 6), np.float32))
    assert rewards == pytest.approx([info["valid_accuracy"] for info in infos])
