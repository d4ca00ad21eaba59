"""Environments with rungs."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from nases_env.envs import ImageEnv, NASESVectorEnv
from nases_env.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny_children")

OPTIONS: dict[str, Any] = {"preset": "smoke", "search_space": "nasbench201", "rungs": (1, 2, 4)}


@pytest.fixture
def env() -> ImageEnv:
    env = gym.make("NASES-Digits-v0", **OPTIONS).unwrapped
    assert isinstance(env, ImageEnv)
    return env


def test_checker_accepts_an_environment_with_rungs(env: ImageEnv) -> None:
    check_env(env, skip_render_check=True)


def test_children_are_evaluated_at_the_rung_of_the_last_reset(env: ImageEnv) -> None:
    env.reset(seed=0)
    action = env.action_space.sample()
    rewards = {}
    for fidelity in (None, 1, 2, 4):
        env.reset(seed=0, options=None if fidelity is None else {"fidelity": fidelity})
        _, rewards[fidelity], _, _, info = env.step(action)
        assert info["fidelity"] == (fidelity or 4)
        assert env.last_evaluation is not None
        assert env.last_evaluation.num_epochs == (fidelity or 4)
    assert rewards[None] == rewards[4]
    env.reset(options={"fidelity": 1})
    env.reset()
    assert env.step(action)[4]["fidelity"] == 1, "the rung is kept until another one is given"


def test_last_rung_replaces_the_length_of_the_preset(env: ImageEnv) -> None:
    assert env.settings.num_epochs == 4
    assert env.evaluator.describe()["rungs"] == [1, 2, 4]
    assert "fidelity" not in env.evaluator.describe()
    assert env.evaluator.at_fidelity(2).describe()["fidelity"] == 2


def test_rungs_may_be_an_array(env: ImageEnv) -> None:
    given = gym.make("NASES-Digits-v0", **{**OPTIONS, "rungs": np.array([1, 2, 4])}).unwrapped
    assert isinstance(given, ImageEnv)
    assert given.evaluator == env.evaluator
    assert given.evaluator.digest() == env.evaluator.digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rungs": (4, 2)}, "rungs must be increasing numbers of epochs, not 4, 2"),
        ({"rungs": ("a",)}, "rungs must be increasing numbers of epochs, not a"),
        ({"rungs": 3}, "rungs must be increasing numbers of epochs, such as .*, not 3"),
        ({"rungs": "1,3"}, "rungs must be increasing numbers of epochs, such as .*, not '1,3'"),
        ({"num_epochs": 3}, r"num_epochs \(--child.num-epochs\) has no effect with rungs; omit it"),
    ],
)
def test_invalid_arguments_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gym.make("NASES-Digits-v0", **{**OPTIONS, **options})


@pytest.mark.parametrize("fidelity", [3, "2", (1,)])
def test_invalid_fidelity_is_one_line(env: ImageEnv, fidelity: Any) -> None:
    with pytest.raises(InputError, match=r"it must be one of the rungs 1, 2, 4"):
        env.reset(options={"fidelity": fidelity})


@pytest.mark.parametrize("fidelity", [0, 3])
def test_child_is_not_submitted_at_a_fidelity_other_than_a_rung(env: ImageEnv, fidelity: int) -> None:
    env.reset(seed=0)
    with pytest.raises(InputError, match=rf"the fidelity is {fidelity}; it must be one of the rungs 1, 2, 4"):
        env.submit(env.architecture, fidelity)
    assert not env.is_started


def test_fidelity_without_rungs_is_an_error() -> None:
    env = gym.make("NASES-Synthetic-v0").unwrapped
    with pytest.raises(InputError, match="it must be omitted, because there are no rungs"):
        env.reset(options={"fidelity": 1})
    _, info = env.reset(seed=0)
    assert "fidelity" not in info
    assert "fidelity" not in env.step(env.action_space.sample())[4]


def test_vector_environment_has_one_rung_for_all() -> None:
    env = gym.make_vec("NASES-Digits-v0", 2, **OPTIONS, execution={"executor": "serial"})
    assert isinstance(env, NASESVectorEnv)
    env.reset(seed=0, options={"fidelity": 2})
    infos = env.step(env.action_space.sample())[4]
    assert infos["fidelity"].tolist() == [2, 2]
    with pytest.raises(InputError, match="unknown reset option 'fidelity'"):
        env.reset(options={"fidelity": 1, "reset_mask": np.array([True, False])})
    env.close()
