"""The environment of a search space that provides accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from nases_env.embedding import Embedding, save_embedding
from nases_env.envs import QueryEnv
from nases_env.errors import InputError
from nases_env.search_spaces import Architecture, SearchSpace


class Ascending(SearchSpace):
    """Ten decisions of different sizes; the accuracy is the mean choice, scaled to [0, 1]."""

    name = "ascending"
    decision_sizes = (2, 3, 4, 5, 6) * 2

    def query(self, architecture: Architecture) -> float:
        return (
            sum(c / (k - 1) for c, k in zip(architecture.decisions, self.decision_sizes, strict=True)) / self.num_decisions
        )


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("query") / "ascending.safetensors"
    save_embedding(Embedding(Ascending(), embedding_size=5, hidden_size=8, loss="cross_entropy"), path)
    return str(path)


def make(embedding: str, **options: Any) -> gym.Env[Any, Any]:
    return gym.make("NASES-Query-v0", search_space=f"{__name__}:Ascending", embedding=embedding, **options)


def test_gymnasium_and_stable_baselines3_checkers(embedding: str) -> None:
    check_env(make(embedding, render_mode="rgb_array").unwrapped)
    check_env_of_sb3(make(embedding), skip_render_check=False)


def test_reward_is_the_value_of_query(embedding: str) -> None:
    env = make(embedding)
    env.reset(seed=0)
    env.action_space.seed(0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward == info["valid_accuracy"] == Ascending().query(Ascending().from_json(info["genotype"]))


def test_embedding_is_loaded_when_it_is_used() -> None:
    """Agents that propose architectures need none; Gymnasium's environment checker uses the action space."""
    env = QueryEnv(search_space=Ascending(), embedding="absent.safetensors")
    env.reset(seed=0)
    assert env.evaluate(env.architecture).reward == Ascending().query(env.architecture)
    for use in (
        lambda: env.action_space,
        lambda: env.embedding,
        lambda: env.step(np.zeros(5, np.float32)),
        lambda: make("absent"),
    ):
        with pytest.raises(InputError, match="there is no file absent"):
            use()


def test_only_the_first_reset_queries_an_architecture() -> None:
    queried = []

    class Counted(Ascending):
        def query(self, architecture: Architecture) -> float:
            queried.append(architecture)
            return super().query(architecture)

    env = QueryEnv(search_space=Counted())
    for seed in range(3):
        env.reset(seed=seed)
    assert len(queried) == 1


def test_search_space_is_required(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass search_space as MODULE:CLASS"):
        gym.make("NASES-Query-v0")
