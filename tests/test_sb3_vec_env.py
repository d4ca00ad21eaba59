"""The adapter for Stable-Baselines3 equals DummyVecEnv step by step, and SB3's algorithms learn through it."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from nases_env.envs import NASESEnv, NASESVectorEnv, SyntheticEnv
from nases_env.errors import InputError
from nases_env.sb3_vec_env import SB3VecEnv
from nases_env.search_spaces import EnasMicro

SPACE = EnasMicro()
every_mode = pytest.mark.parametrize("mode", AutoresetMode)


def vector(num_envs: int = 3, **options: Any) -> SB3VecEnv:
    return SB3VecEnv(gym.make_vec("NASES-Synthetic-v0", num_envs=num_envs, **options))


def synchronous(env_id: str, mode: AutoresetMode, num_envs: int = 3, **options: Any) -> SB3VecEnv:
    vector_kwargs = {"autoreset_mode": mode}
    return SB3VecEnv(
        gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="sync", vector_kwargs=vector_kwargs, **options)
    )


def dummy(env_id: str = "NASES-Synthetic-v0", num_envs: int = 3, **options: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.make(env_id, **options)] * num_envs)


def to_python(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in info.items()}


def count_ends_of_equal_episodes(adapter: VecEnv, expected_env: VecEnv, num_steps: int) -> int:
    """Step both, assert that all results are equal, and return the number of episodes that ended."""
    num_ends = 0
    expected_env.action_space.seed(0)
    for _ in range(num_steps):
        actions = np.array([expected_env.action_space.sample() for _ in range(expected_env.num_envs)])
        results, expected = adapter.step(actions), expected_env.step(actions)
        for result, reference in zip(results[:3], expected[:3], strict=True):
            assert isinstance(result, np.ndarray)
            assert isinstance(reference, np.ndarray)
            assert result.dtype == reference.dtype
            np.testing.assert_array_equal(result, reference)
        assert [to_python(info) for info in results[3]] == [to_python(info) for info in expected[3]]
        assert [to_python(info) for info in adapter.reset_infos] == [to_python(info) for info in expected_env.reset_infos]
        num_ends += int(results[2].sum())
    return num_ends


@every_mode
@pytest.mark.parametrize("kind", ["vector", "sync"])
def test_equals_dummy_vec_env_step_by_step(mode: AutoresetMode, kind: str) -> None:
    """So the transitions are identical in all modes, and no step resets instead of evaluating."""
    expected_env = dummy(max_episode_steps=4)
    if kind == "vector":
        adapter = vector(max_episode_steps=4, autoreset_mode=mode)
    else:
        adapter = synchronous("NASES-Synthetic-v0", mode, max_episode_steps=4)
    for seed in (3, None, 8):
        if seed is not None:
            assert adapter.seed(seed) == expected_env.seed(seed)
        np.testing.assert_array_equal(adapter.reset(), expected_env.reset())
        assert adapter.reset_infos == expected_env.reset_infos
        assert count_ends_of_equal_episodes(adapter, expected_env, 9) == 6


@every_mode
def test_episodes_that_start_at_different_times(mode: AutoresetMode) -> None:
    """With a reset of single sub-environments outside of Stable-Baselines3."""
    adapter, expected_env = vector(max_episode_steps=4, autoreset_mode=mode), dummy(max_episode_steps=4)
    assert adapter.seed(3) == expected_env.seed(3)
    np.testing.assert_array_equal(adapter.reset(), expected_env.reset())
    assert count_ends_of_equal_episodes(adapter, expected_env, 2) == 0
    adapter.env.reset(options={"reset_mask": np.array([False, True, False])})
    expected_env.envs[1].reset()
    assert count_ends_of_equal_episodes(adapter, expected_env, 14) == 11


@every_mode
def test_attributes_at_the_end_of_an_episode_are_those_of_the_last_children(mode: AutoresetMode) -> None:
    env = vector(max_episode_steps=1, autoreset_mode=mode)
    env.reset()
    infos = env.step(np.zeros((3, 20)))[3]
    (last, *_) = env.get_attr("last_evaluations")
    assert [evaluation.key for evaluation in last] == [info["key"] for info in infos]


def test_gymnasiums_vector_wrappers_work() -> None:
    env = SB3VecEnv(NormalizeObservation(gym.make_vec("NASES-Synthetic-v0", num_envs=2, max_episode_steps=2)))
    env.reset()
    dones = [env.step(np.zeros((2, 20)))[2].all() for _ in range(4)]
    assert dones == [False, True, False, True]


@every_mode
def test_statistics_of_gymnasiums_wrapper_are_in_the_last_info_of_an_episode(mode: AutoresetMode) -> None:
    if mode is AutoresetMode.SAME_STEP and gym.__version__.startswith(("1.2.", "1.3.")):
        pytest.skip("before Gymnasium 1.4, the wrapper counts too few steps in this mode")
    options: dict[str, Any] = {"max_episode_steps": 2, "autoreset_mode": mode}
    env = SB3VecEnv(RecordEpisodeStatistics(gym.make_vec("NASES-Synthetic-v0", num_envs=2, **options)))
    env.reset()
    infos = [env.step(np.zeros((2, 20)))[3] for _ in range(4)]
    lengths = [["episode" in info and int(info["episode"]["l"]) for info in step] for step in infos]
    assert lengths == [[False, False], [2, 2]] * 2


@every_mode
def test_episodes_that_end_at_different_times_by_termination_or_truncation(mode: AutoresetMode) -> None:
    """CartPole terminates, MountainCar is truncated; the vector environment is Gymnasium's."""
    for env_id, num_steps in (("CartPole-v1", 120), ("MountainCarContinuous-v0", 5)):
        adapter, expected_env = synchronous(env_id, mode), dummy(env_id)
        assert adapter.seed(1) == expected_env.seed(1)
        np.testing.assert_array_equal(adapter.reset(), expected_env.reset())
        assert (count_ends_of_equal_episodes(adapter, expected_env, num_steps) > 5) == (env_id == "CartPole-v1")


class ThreeSteps(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """An environment whose episodes terminate after three steps."""

    action_space = observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    num_steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.num_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.num_steps += 1
        return np.full(1, self.num_steps / 4, np.float32), 1.0, self.num_steps == 3, False, {}


ENDING_AT_DIFFERENT_TIMES = [
    lambda: gym.wrappers.TimeLimit(ThreeSteps(), 3),
    lambda: gym.wrappers.TimeLimit(ThreeSteps(), 2),
]


def asynchronous(mode: AutoresetMode, shared: bool) -> AsyncVectorEnv[Any, Any]:
    return AsyncVectorEnv(ENDING_AT_DIFFERENT_TIMES, shared_memory=shared, autoreset_mode=mode)


@every_mode
@pytest.mark.parametrize("copy", [True, False])
def test_termination_takes_precedence_over_truncation(mode: AutoresetMode, copy: bool) -> None:
    adapter = SB3VecEnv(SyncVectorEnv(ENDING_AT_DIFFERENT_TIMES, copy=copy, autoreset_mode=mode))
    expected_env = DummyVecEnv([*ENDING_AT_DIFFERENT_TIMES])
    np.testing.assert_array_equal(adapter.reset(), expected_env.reset())
    assert count_ends_of_equal_episodes(adapter, expected_env, 7) == 5


def test_infos_are_new_objects_with_python_values() -> None:
    env = vector(max_episode_steps=2)
    env.reset()
    first = env.step(np.zeros((3, 20)))[3]
    assert json.loads(json.dumps(first)) == first
    serialized = json.dumps(first)
    first[0]["added"] = 1
    second = env.step(np.zeros((3, 20)))[3]
    assert json.dumps(first[1:]) == json.dumps(json.loads(serialized)[1:])
    assert all("added" not in info and info["TimeLimit.truncated"] for info in second)
    assert {id(info) for info in first}.isdisjoint(id(info) for info in second)


def test_options_apply_to_the_next_reset_only() -> None:
    env = vector(2)
    architectures = [SPACE.sample(np.random.default_rng(seed)) for seed in range(2)]
    env.set_options({"architecture": architectures[0]})
    env.reset()
    assert [info["key"] for info in env.reset_infos] == [architectures[0].key] * 2
    env.set_options({"architecture": architectures})
    env.reset()
    assert [info["key"] for info in env.reset_infos] == [child.key for child in architectures]
    env.reset()
    assert not {info["key"] for info in env.reset_infos} & {child.key for child in architectures}
    env.set_options([{"architecture": child} for child in architectures])
    with pytest.raises(InputError, match="one dict for all"):
        env.reset()


def test_attributes_and_methods_of_the_vector_environment() -> None:
    env = vector(render_mode="rgb_array")
    assert env.get_attr("max_episode_steps") == [100] * 3
    assert env.get_attr("render_mode", [0, 2]) == ["rgb_array"] * 2
    assert env.has_attr("nonsense") is False
    with pytest.raises(AttributeError):
        env.get_attr("nonsense")
    env.set_attr("max_episode_steps", 1)
    env.reset()
    assert env.step(np.zeros((3, 20)))[2].all()
    assert env.env_is_wrapped(Monitor) == [False] * 3
    frames = env.env_method("render")
    assert len(frames) == 3
    assert len(env.get_images()) == 3
    image = env.render()
    assert image is not None
    assert image.shape[0] == 2 * frames[0][0].shape[0]
    for call in (lambda: env.set_attr("max_episode_steps", 1, indices=0), lambda: env.env_method("render", indices=[1])):
        with pytest.raises(InputError, match="omit indices"):
            call()


def test_attributes_and_methods_of_gymnasiums_sub_environments() -> None:
    make = [lambda: Monitor(gym.make("NASES-Synthetic-v0")), lambda: gym.make("NASES-Synthetic-v0")]
    env = SB3VecEnv(SyncVectorEnv(make))
    first, second = env.get_attr("unwrapped")
    assert isinstance(first, NASESEnv)
    assert env.get_attr("unwrapped", 1) == [second] != [first]
    assert env.env_is_wrapped(Monitor) == [True, False]
    env.set_attr("color", [1, 2])
    assert env.get_attr("color") == [[1, 2], [1, 2]]
    env.seed(4)
    env.reset()
    rewards = [evaluation.reward for evaluation in env.env_method("evaluate", SPACE.sample(np.random.default_rng(0)))]
    assert rewards[0] == rewards[1]


def test_close_closes_the_vector_environment() -> None:
    env = vector()
    env.close()
    env.close()
    assert env.env.closed


@pytest.mark.parametrize(("mode", "shared"), [(AutoresetMode.NEXT_STEP, True), (AutoresetMode.DISABLED, False)])
def test_equals_dummy_vec_env_with_sub_processes(mode: AutoresetMode, shared: bool) -> None:
    adapter, expected_env = SB3VecEnv(asynchronous(mode, shared)), DummyVecEnv([*ENDING_AT_DIFFERENT_TIMES])
    np.testing.assert_array_equal(adapter.reset(), expected_env.reset())
    assert count_ends_of_equal_episodes(adapter, expected_env, 7) == 5
    adapter.close()


def unknown_mode() -> VectorEnv[Any, Any, Any]:
    envs = NASESVectorEnv(SyntheticEnv(), 2)
    envs.metadata = {}
    return envs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"), "CartPoleVectorEnv with"),
        (lambda: asynchronous(AutoresetMode.NEXT_STEP, shared=False), "AsyncVectorEnv with .* AutoresetMode.NEXT_STEP"),
        (unknown_mode, "NASESVectorEnv with the autoreset mode None"),
    ],
)
def test_environments_that_cannot_reset_single_sub_environments_are_rejected(make: Any, message: str) -> None:
    envs = make()
    with pytest.raises(InputError, match=message) as caught:
        SB3VecEnv(envs)
    assert "\n" not in str(caught.value)
    envs.close()


def rewards_before_and_after(model: BaseAlgorithm, env: SB3VecEnv, num_steps: int) -> tuple[float, float]:
    """Return the mean rewards of samples of the policy before and after learning."""

    def mean_reward() -> float:
        rewards: list[NDArray[np.float32]] = []
        env.seed(1)
        observations = env.reset()
        for _ in range(40):
            actions = model.predict(observations)[0]  # type: ignore[arg-type]
            observations, reward, _, _ = env.step(actions)
            rewards.append(reward)
        return float(np.mean(rewards))

    before = mean_reward()
    model.set_logger(Logger(folder=None, output_formats=[]))  # otherwise, SB3 creates a temporary directory
    model.learn(num_steps)
    return before, mean_reward()


def test_ppo_learns() -> None:
    """Without learning, the difference would be 0 with a standard deviation of 0.01 (160 children, 0.09 each)."""
    env = vector(4)
    model = PPO(
        "MlpPolicy", env, n_steps=10, batch_size=40, n_epochs=10, gamma=0.0, learning_rate=3e-3, seed=0, device="cpu"
    )
    before, after = rewards_before_and_after(model, env, 1000)
    assert after > before + 0.05


def test_sac_learns() -> None:
    env = vector(4)
    options: dict[str, Any] = {"learning_rate": 3e-3, "gamma": 0.0, "learning_starts": 40, "ent_coef": 0.005}
    model = SAC("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [64, 64]}, **options)
    before, after = rewards_before_and_after(model, env, 600)
    assert after > before + 0.1


def test_vec_monitor_reports_whole_episodes() -> None:
    env = VecMonitor(vector(2, max_episode_steps=5))
    env.reset()
    for _ in range(5):
        _, _, dones, infos = env.step(np.zeros((2, 20)))
    assert dones.all()
    assert [info["episode"]["l"] for info in infos] == [5, 5]
