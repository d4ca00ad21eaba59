"""The vector environment: equality with Gymnasium's, concurrent evaluation, deduplication, failures."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from numpy.typing import NDArray

import nases_env
from nases_env.envs import NASESEnv, NASESVectorEnv, SyntheticEnv, vector_entry_point
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution import SerialExecutor
from nases_env.search_spaces import Architecture, EnasMicro
from nases_env.seeding import derive_seed

SPACE = EnasMicro()
SERIAL = {"executor": "serial"}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Scripted(Evaluator):
    """Returns accuracies that depend on the seed, and creates a file at the start of each evaluation.

    Attributes:
        folder: directory of the files.
        min_started: number of evaluations that must have started before any of them ends.
        raising: keys of children that raise an error.
        killing: keys of children that kill the process.
        rejected: keys of children that raise ``InputError`` while the file ``error_file`` exists in the parent folder.
    """

    folder: str
    min_started: int = 1
    raising: tuple[str, ...] = ()
    killing: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    search_space = "enas_micro"

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        Path(self.folder, uuid.uuid4().hex).touch()
        start = time.monotonic()
        while num_evaluations(self.folder) < self.min_started:
            assert time.monotonic() < start + PATIENCE_SECONDS, "the other evaluations did not start"
            time.sleep(0.01)
        if architecture.key in self.raising:
            raise ValueError("invalid child")
        if architecture.key in self.killing:
            os.kill(os.getpid(), signal.SIGKILL)
        if architecture.key in self.rejected and Path(self.folder).with_name("error_file").exists():
            raise InputError("fix this; then resume")
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy=derive_seed(seed) / 2**63)


def num_evaluations(folder: str | Path) -> int:
    return len(list(Path(folder).iterdir()))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = tmp_path / "evaluations"
    path.mkdir()
    return str(path)


def actions_for(num_envs: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (num_envs, 20)).astype(np.float32)


def keys_of(actions: NDArray[np.float32]) -> tuple[str, ...]:
    return tuple(architecture.key for architecture in SyntheticEnv().decode_batch(actions))


def synthetic(num_envs: int = 3, **options: Any) -> NASESVectorEnv:
    return cast(NASESVectorEnv, gym.make_vec("NASES-Synthetic-v0", num_envs=num_envs, **options))


def sync_vector_env(
    num_envs: int = 3, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any
) -> SyncVectorEnv[Any, Any]:
    make = [lambda: gym.make("NASES-Synthetic-v0", **options)] * num_envs
    return SyncVectorEnv(make, autoreset_mode=autoreset_mode)


def assert_same(ours: Any, theirs: Any) -> None:
    assert data_equivalence(list(ours), list(theirs), exact=True), f"{ours}\n{theirs}"


@pytest.mark.parametrize("mode", AutoresetMode)
def test_equals_sync_vector_env_step_by_step(mode: AutoresetMode) -> None:
    """The steps include several truncations, simultaneous and at different times."""
    ours = synthetic(max_episode_steps=4, autoreset_mode=mode.value)
    theirs = sync_vector_env(max_episode_steps=4, autoreset_mode=mode)
    assert_same(ours.reset(seed=7), theirs.reset(seed=7))
    truncated: list[list[bool]] = []
    for number in range(14):
        actions = 1.5 * actions_for(3, number)
        result = ours.step(actions)
        assert_same(result, theirs.step(actions))
        truncated.append(result[3].tolist())
        if mode is AutoresetMode.DISABLED and result[3].any():
            given = [{"reset_mask": result[3].copy()} for _ in range(2)]  # Gymnasium empties the options
            assert_same(ours.reset(options=given[0]), theirs.reset(options=given[1]))
        if number == 5:
            mask = np.array([True, False, True])
            options = {"reset_mask": mask, "architecture": SPACE.to_json(ours.architectures[0])}
            assert_same(
                ours.reset(seed=[3, None, None], options=options), theirs.reset(seed=[3, None, None], options=options)
            )
    assert truncated.count([True, True, True]) == 1
    assert [True, False, True] in truncated
    assert [False, True, False] in truncated
    for reset in ({}, {"seed": [5, 5, 1]}, {"seed": None}):
        assert_same(ours.reset(**cast(Any, reset)), theirs.reset(**cast(Any, reset)))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_spaces_and_metadata_equal_sync_vector_env(mode: AutoresetMode) -> None:
    options: dict[str, Any] = {"render_mode": "ansi", "max_episode_steps": 2, "autoreset_mode": mode}
    ours, theirs = synthetic(**options), sync_vector_env(**options)
    for name in ("action_space", "observation_space", "single_action_space", "single_observation_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.num_envs, ours.metadata, ours.render_mode) == (theirs.num_envs, theirs.metadata, theirs.render_mode)
    for envs in (ours, theirs):
        envs.reset(seed=0)
    assert ours.render() == theirs.render()
    for number in range(2):  # the second step starts new episodes
        ours.step(actions_for(3, number))
        theirs.step(actions_for(3, number))
        assert ours.render() == theirs.render()


def test_final_info_describes_the_last_child_of_the_episode() -> None:
    envs = synthetic(2, max_episode_steps=1, autoreset_mode="SameStep")
    envs.reset(seed=0)
    observations, rewards, _, truncations, infos = envs.step(actions_for(2))
    assert truncations.all()
    assert infos["final_info"]["key"].tolist() == list(keys_of(actions_for(2)))
    assert infos["final_info"]["valid_accuracy"].tolist() == rewards.tolist()
    assert [evaluation and evaluation.key for evaluation in envs.last_evaluations] == infos["final_info"]["key"].tolist()
    assert infos["key"].tolist() == [architecture.key for architecture in envs.architectures]
    assert "valid_accuracy" not in infos
    for index, architecture in enumerate(envs.architectures):
        np.testing.assert_array_equal(observations[index], SPACE.encode(architecture))
        assert observations[index].tolist() != infos["final_obs"][index].tolist()


def test_next_step_evaluates_only_episodes_that_have_not_ended(folder: str) -> None:
    env = NASESEnv(Scripted(folder), execution=SERIAL)
    envs = NASESVectorEnv(env, 2, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(actions_for(2))
    envs.reset(options={"reset_mask": np.array([True, False])})
    _, rewards, _, truncations, infos = envs.step(np.array([actions_for(1, seed=1)[0], np.full(20, np.nan)]))
    assert num_evaluations(folder) == 3
    assert (rewards > 0).tolist() == truncations.tolist() == infos["_status"].tolist() == [True, False]
    assert envs.last_evaluations[1] is None
    envs.step(actions_for(2))


def test_disabled_autoreset_requires_a_reset(folder: str) -> None:
    env = NASESEnv(Scripted(folder), execution=SERIAL)
    envs = NASESVectorEnv(env, 2, max_episode_steps=1, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(actions_for(2))
    with pytest.raises(gym.error.ResetNeeded, match=r"the episode of sub-environment 0 has ended: .*reset_mask"):
        envs.step(actions_for(2))
    assert num_evaluations(folder) == 2


def test_unknown_autoreset_mode_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown autoreset_mode 'SameStop'; known: 'NextStep', 'SameStep', 'Disabled'"):
        synthetic(autoreset_mode="SameStop")


def test_episodes_are_not_truncated_without_a_time_limit() -> None:
    envs = NASESVectorEnv(SyntheticEnv(), 2)
    envs.reset(seed=0)
    assert not any(envs.step(actions_for(2, number))[3].any() for number in range(120))


def test_observations_are_new_arrays() -> None:
    envs = synthetic()
    given = [envs.reset(seed=0)[0], envs.step(actions_for(3))[0], envs.step(actions_for(3, seed=1))[0]]
    kept = [observations.copy() for observations in given]
    given.append(envs.step(actions_for(3, seed=2))[0])
    np.testing.assert_array_equal(given[:3], kept)
    given[3][:] = -1
    only_one = envs.reset(options={"reset_mask": np.array([True, False, False])})[0]
    assert envs.observation_space.contains(only_one)
    assert {observations.dtype for observations in given} == {np.dtype(np.float32)}


def test_sub_environments_start_from_given_architectures() -> None:
    envs = synthetic()
    rng = np.random.default_rng(5)
    given = [SPACE.sample(rng) for _ in range(3)]
    observations, infos = envs.reset(options={"architecture": [given[0], SPACE.genotype(given[1]), SPACE.to_json(given[2])]})
    assert infos["key"].tolist() == [architecture.key for architecture in given]
    np.testing.assert_array_equal(observations, [SPACE.encode(architecture) for architecture in given])
    assert set(envs.reset(options={"architecture": given[0]})[1]["key"]) == {given[0].key}
    drawn = envs.reset(seed=4, options={"architecture": [None, given[0], None]})[1]["key"].tolist()
    assert drawn[1] == given[0].key
    assert drawn[::2] == synthetic().reset(seed=4)[1]["key"].tolist()[::2]


def test_evaluation_depends_only_on_architecture_and_first_seed(folder: str) -> None:
    single = NASESEnv(Scripted(folder), execution=SERIAL)
    single.reset(seed=5)
    actions = actions_for(4)
    expected = [single.step(action)[1] for action in actions]
    for seed in (5, [5, 0, 0, 3]):
        envs = NASESVectorEnv(NASESEnv(Scripted(folder), execution=SERIAL), 4)
        envs.reset(seed=seed)
        assert envs.step(actions)[1].tolist() == expected
        assert envs.step(actions[::-1])[1].tolist() == expected[::-1]
        envs.reset(seed=9, options={"reset_mask": np.array([True, False, False, False])})
        assert envs.step(actions)[1].tolist() == expected
        envs.reset(seed=6)
        assert not set(envs.step(actions)[1]) & set(expected)
        assert (envs.np_random_seed, envs.env.np_random_seed) == (6, 6)


def test_equal_children_of_a_batch_are_evaluated_once(folder: str) -> None:
    envs = NASESVectorEnv(NASESEnv(Scripted(folder), execution=SERIAL), 4)
    envs.reset(seed=0)
    actions = actions_for(4)
    actions[1] = actions[3] = actions[0]
    rewards = envs.step(actions)[1]
    assert rewards[0] == rewards[1] == rewards[3] != rewards[2]
    assert num_evaluations(folder) == 2
    assert envs.step(actions)[1].tolist() == rewards.tolist()
    assert num_evaluations(folder) == 2


@pytest.fixture
def concurrent(forked_workers: None, folder: str) -> Iterator[NASESVectorEnv]:
    """A vector environment with two worker processes. Each of the first two evaluations ends only after both have started.
    Two of the children of ``actions_for(4)`` raise an error and kill the process.
    """
    keys = keys_of(actions_for(4))
    evaluator = Scripted(folder, min_started=2, raising=keys[:1], killing=keys[2:3])
    execution = {"executor": "processes", "num_workers": 2, "max_retries": 0}
    envs = NASESVectorEnv(NASESEnv(evaluator, execution=execution), 4, max_episode_steps=2)
    yield envs
    envs.close()


def test_distinct_children_are_evaluated_concurrently_and_equal_ones_once(
    concurrent: NASESVectorEnv, folder: str, tmp_path: Path
) -> None:
    serial = NASESVectorEnv(NASESEnv(Scripted(str(tmp_path)), execution=SERIAL), 4, max_episode_steps=2)
    for each in (concurrent, serial):
        each.reset(seed=0)
    actions = actions_for(4, seed=2)
    actions[1] = actions[3] = actions[2]
    result = concurrent.step(actions)
    assert result[4]["status"].tolist() == ["ok"] * 4
    assert num_evaluations(folder) == 2
    assert_same(result, serial.step(actions))


def test_child_that_raises_or_is_killed_does_not_affect_the_others(concurrent: NASESVectorEnv) -> None:
    envs = concurrent
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(actions_for(4))
    assert infos["status"].tolist() == ["failed", "ok", "failed", "ok"]
    assert rewards.tolist() == infos["valid_accuracy"].tolist()
    assert (rewards > 0).tolist() == [False, True, False, True]
    assert "invalid child" in str(envs.last_evaluations[0])
    assert "SIGKILL" in str(envs.last_evaluations[2])
    infos = envs.step(actions_for(4, seed=1))[4]
    assert infos["status"].tolist() == ["ok"] * 4


def test_input_error_leaves_the_environments_unchanged(folder: str) -> None:
    error_file = Path(folder).with_name("error_file")
    error_file.touch()
    env = NASESEnv(Scripted(folder, rejected=keys_of(actions_for(3))[2:]), execution=SERIAL)
    envs = NASESVectorEnv(env, 3)
    envs.reset(seed=0)
    before = envs.architectures
    with pytest.raises(InputError, match="fix this"):
        envs.step(actions_for(3))
    assert envs.architectures == before
    error_file.unlink()
    assert envs.step(actions_for(3))[4]["status"].tolist() == ["ok"] * 3
    assert num_evaluations(folder) == 4  # the two evaluated children are not evaluated again


@pytest.mark.usefixtures("forked_workers")
def test_training_in_worker_processes_has_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.execution.process_worker.num_cores", lambda: 1)  # one worker process is enough
    results = []
    for execution in (None, SERIAL):
        envs = gym.make_vec("NASES-Digits-v0", num_envs=2, preset="smoke", execution=execution)
        envs.reset(seed=3)
        results.append(envs.step(actions_for(2)))
        assert cast(NASESVectorEnv, envs).env.executor.in_background == (execution is None)
        envs.close()
    assert_same(*results)
    assert results[0][4]["status"].tolist() == ["ok", "ok"]
    envs = synthetic()
    envs.reset(seed=0)
    envs.step(actions_for(3))
    assert isinstance(envs.env.executor.inner, SerialExecutor)


def test_evaluations_can_be_computed_by_a_function(folder: str) -> None:
    asked: list[NDArray[np.float64]] = []

    def evaluate_all(architectures: list[Architecture], actions: NDArray[np.float64]) -> list[Evaluation]:
        asked.append(actions)
        return [Evaluation(child.key, 1, Status.OK, valid_accuracy=0.1 * i) for i, child in enumerate(architectures)]

    envs = NASESVectorEnv(NASESEnv(Scripted(folder)), 3, evaluate_all=evaluate_all)
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(actions_for(3))
    assert rewards == pytest.approx([0, 0.1, 0.2])
    assert infos["key"].tolist() == list(keys_of(actions_for(3)))
    np.testing.assert_array_equal(asked, [actions_for(3)])
    assert num_evaluations(folder) == 0


@pytest.mark.parametrize(
    "actions",
    [
        np.full((3, 20), np.nan),
        np.array([*np.zeros((2, 20)), np.full(20, np.inf)]),
        np.zeros((2, 20)),
        np.zeros(20),
        np.zeros((3, 21)),
    ],
)
def test_invalid_actions_are_one_line_errors_and_change_nothing(actions: NDArray[Any], folder: str) -> None:
    envs = NASESVectorEnv(NASESEnv(Scripted(folder)), 3)
    envs.reset(seed=0)
    before = envs.architectures
    with pytest.raises(InputError, match="action") as caught:
        envs.step(actions)
    assert "\n" not in str(caught.value)
    assert envs.architectures == before
    assert num_evaluations(folder) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2]}, "a list of 3, not of 2"),
        ({"options": {"architectur": 1}}, "unknown reset option 'architectur'"),
        ({"options": {"architecture": [None]}}, "a list of 3, not of 1"),
        ({"options": {"architecture": [None, None, "{"]}}, "not JSON"),
        ({"options": {"reset_mask": [True, True, True]}}, "reset_mask must be"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "reset_mask must be"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, "reset_mask must be"),
        ({"options": {"reset_mask": np.ones(3)}}, "reset_mask must be"),
    ],
)
def test_invalid_reset_is_a_one_line_error_and_changes_nothing(arguments: dict[str, Any], message: str) -> None:
    envs = synthetic()
    envs.reset(seed=0)
    before = envs.architectures
    with pytest.raises(InputError, match=message) as caught:
        envs.reset(**arguments)
    assert "\n" not in str(caught.value)
    assert envs.architectures == before


def test_reset_does_not_modify_the_options() -> None:
    envs = synthetic()
    envs.reset(seed=0)
    options = {"reset_mask": np.array([True, False, False])}
    envs.reset(options=options)
    assert list(options) == ["reset_mask"]


def test_invalid_numbers_are_input_errors() -> None:
    with pytest.raises(InputError, match="num_envs must be at least 1, not 0"):
        synthetic(0)
    with pytest.raises(InputError, match="max_episode_steps must be at least 1, not 0"):
        synthetic(max_episode_steps=0)
    with pytest.raises(InputError, match=r"max_episode_steps must be an integer, not 12\.5"):
        synthetic(max_episode_steps=12.5)
    with pytest.raises(InputError, match="num_envs must be an integer, not '2'"):
        synthetic(cast(int, "2"))


def test_methods_require_a_reset() -> None:
    envs = synthetic(render_mode="ansi")
    for call in (lambda: envs.step(actions_for(3)), envs.render, lambda: envs.architectures):
        with pytest.raises(gym.error.ResetNeeded):
            call()
    with pytest.raises(gym.error.ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False, True])})


def test_render_shows_every_current_child() -> None:
    envs = synthetic(2, render_mode="rgb_array", max_episode_steps=2)
    envs.reset(seed=0)
    frames = [envs.render()]
    for number in range(2):
        envs.step(actions_for(2, number))
        frames.append(envs.render())
    assert all(frame.dtype == np.uint8 and frame.shape == frames[0][0].shape for pair in frames for frame in pair)
    assert len({frame.tobytes() for pair in frames for frame in pair}) == 6
    without = synthetic(2)
    without.reset()
    assert without.render() == (None, None)


def test_close_closes_the_environment_once() -> None:
    class Closing(SyntheticEnv):
        num_closed = 0

        def close(self) -> None:
            self.num_closed += 1
            super().close()

    env = Closing()
    envs = NASESVectorEnv(env, 2)
    envs.reset(seed=0)
    envs.close(timeout=1)  # an argument of other vector environments
    envs.close()
    assert env.num_closed == 1
    envs.step(actions_for(2))
    assert env.is_started
    envs.close()
    assert not env.is_started


OPTIONS: dict[str, dict[str, Any]] = {
    "NASES-Synthetic-v0": {"execution": SERIAL},
    "NASES-Accel-v0": {},
    "NASES-NASBench201-v0": {"operator_permutation_seed": 1},
    "NASES-TransNASMicro-v0": {"task": "jigsaw"},
    "NASES-Query-v0": {"search_space": "enas_micro"},
}


@pytest.mark.parametrize("env_id", nases_env.ENV_IDS)
def test_make_vec_creates_every_id_and_the_spec_round_trips(env_id: str) -> None:
    options = OPTIONS.get(env_id, {"preset": "smoke", "execution": {"executor": "processes", "num_workers": 2}})
    envs = gym.make_vec(env_id, num_envs=3, **options)
    assert isinstance(envs, NASESVectorEnv)
    assert (envs.num_envs, envs.max_episode_steps) == (3, 100)
    assert envs.spec is not None
    assert envs.spec.id == env_id
    spec = EnvSpec.from_json(envs.spec.to_json())
    assert spec == envs.spec
    again = gym.make_vec(spec)
    assert isinstance(again, NASESVectorEnv)
    assert (again.num_envs, again.spec) == (3, envs.spec)
    assert again.env.execution == envs.env.execution
    assert envs.env.execution.num_workers == options.get("execution", {}).get("num_workers")
    assert type(again.env) is type(envs.env) is type(gym.make(env_id, **options).unwrapped)


def test_other_vectorization_modes_work() -> None:
    envs = gym.make_vec("NASES-Synthetic-v0", num_envs=2, vectorization_mode="sync")
    assert isinstance(envs, SyncVectorEnv)
    assert envs.reset(seed=0)[0].shape == (2, 40)


class Halved(SyntheticEnv):
    """A custom environment."""

    def __init__(self, *, factor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def info(self, architecture: Architecture, evaluation: Evaluation) -> dict[str, Any]:
        return {**super().info(architecture, evaluation), "half": self.factor * evaluation.reward / 2}


halved_vector_env = vector_entry_point(Halved)


@pytest.fixture
def custom_id() -> Iterator[str]:
    env_id = "Halved-v0"
    gym.register(
        env_id,
        entry_point=f"{__name__}:Halved",
        vector_entry_point=f"{__name__}:halved_vector_env",
        max_episode_steps=2,
        kwargs={"factor": 3.0},
    )
    yield env_id
    del gym.registry[env_id]


def test_custom_environment_can_be_registered(custom_id: str) -> None:
    envs = gym.make_vec(custom_id, num_envs=2)
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(actions_for(2))
    assert infos["half"] == pytest.approx(1.5 * rewards)
    assert envs.step(actions_for(2))[3].all()


def test_the_default_mode_is_gymnasiums_which_its_wrappers_require() -> None:
    assert synthetic().metadata["autoreset_mode"] is sync_vector_env().metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert NASESVectorEnv(SyntheticEnv(), 2).autoreset_mode is AutoresetMode.NEXT_STEP
    envs = NormalizeObservation(gym.make_vec("NASES-Synthetic-v0", num_envs=2))
    envs.reset(seed=0)
    steps = [envs.step(actions_for(2, number)) for number in range(101)]
    assert np.abs(steps[-1][0]).max() > 1
    assert ["valid_accuracy" in infos for *_, infos in steps] == [True] * 100 + [False]  # the last step resets


def test_autoreset_mode_is_part_of_the_spec() -> None:
    envs = gym.make_vec("NASES-Synthetic-v0", num_envs=2, autoreset_mode="SameStep")
    assert envs.spec is not None
    again = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("mode", AutoresetMode)
def test_reset_with_a_mask_keeps_the_evaluations_of_the_last_step(mode: AutoresetMode) -> None:
    envs = synthetic(2, max_episode_steps=1, autoreset_mode=mode)
    envs.reset(seed=0)
    envs.step(actions_for(2))
    last = envs.last_evaluations
    envs.reset(options={"reset_mask": np.array([True, True])})
    assert envs.last_evaluations == last
    assert [evaluation and evaluation.key for evaluation in last] == list(keys_of(actions_for(2)))
    envs.reset()
    assert envs.last_evaluations == ()


def test_gymnasium_vector_wrappers_work() -> None:
    envs = RecordEpisodeStatistics(synthetic(2, max_episode_steps=3))
    envs.reset(seed=0)
    total = np.zeros(2)
    for number in range(3):
        _, rewards, _, _, infos = envs.step(actions_for(2, number))
        total += rewards
    assert infos["episode"]["l"].tolist() == [3, 3]
    assert infos["episode"]["r"] == pytest.approx(total)
