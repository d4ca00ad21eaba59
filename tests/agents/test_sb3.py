"""Stable-Baselines3's algorithms learn in the embedding space, within the budget to the child, and repeat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from nases_agents import sb3
from nases_agents.sb3 import DEFAULTS, Args, StandardizedRewards, learn, make_model
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.errors import InputError
from nases_env.search import SearchLoop
from nases_env.seeding import derive_seed

ALGORITHMS = tuple(DEFAULTS)


def search_for(budget: int, episode: int = 10_000, **options: Any) -> SearchLoop:
    env = gym.make("NASES-Synthetic-v0", max_episode_steps=episode)
    env.reset(seed=0)
    search = SearchLoop(env, budget)
    learn(search, Args(**options))
    return search


def rewards_of(search: SearchLoop) -> list[float]:
    return [child.evaluation.reward for child in search.children]


@pytest.mark.parametrize(
    ("algorithm", "budget", "options", "margin"),
    [("ppo", 800, {}, 0.04), ("a2c", 500, {}, 0.05), ("sac", 350, {}, 0.1), ("td3", 500, {"std": 0.5}, 0.08)],
)
def test_it_learns(algorithm: Any, budget: int, options: dict[str, Any], margin: float) -> None:
    """Without learning the difference would deviate by 0.016 from 0. TD3's noise stays, so that less of it shows more."""
    rewards = rewards_of(search_for(budget, algorithm=algorithm, **options))
    assert np.mean(rewards[-100:]) > np.mean(rewards[:50]) + margin


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_budget_is_kept_to_the_child_and_the_seed_decides_across_episodes(algorithm: Any) -> None:
    runs = [search_for(33, episode, algorithm=algorithm, seed=seed) for episode, seed in ((33, 0), (9, 0), (9, 0), (9, 1))]
    keys = [[child.evaluation.key for child in search.children] for search in runs]
    assert {len(children) for children in keys} == {33}
    assert keys[0][:9] == keys[1][:9]
    assert keys[1] == keys[2]
    assert not set(keys[1]) & set(keys[3])


def test_children_are_those_of_the_environments_seed() -> None:
    """SB3 seeds its environment where it may, and the same child would get another training than with other agents."""
    for child in search_for(5, seed=3).children:
        assert child.evaluation.seed == derive_seed(0, "child", child.architecture.key)


def test_it_goes_on_where_a_search_stands() -> None:
    search = search_for(10)
    search.budget = 15
    learn(search, Args())
    learn(search, Args())
    assert len(search.children) == 15


def test_rewards_are_standardised_by_those_so_far() -> None:
    env = gym.make("NASES-Synthetic-v0")
    env.reset(seed=0)
    standardised = StandardizedRewards(DummyVecEnv([lambda: env]))
    standardised.reset()
    env.action_space.seed(0)
    rewards = [standardised.step(np.array([env.action_space.sample()]))[1][0] for _ in range(300)]
    assert np.mean(rewards[100:]) == pytest.approx(0, abs=0.3)
    assert np.std(rewards[100:]) == pytest.approx(1, abs=0.2)
    raw = make_model(SearchLoop(env, 1), Args(standardize_rewards=False))
    assert raw.get_vec_normalize_env() is None


def test_exploration_begins_at_sigma() -> None:
    """In SAC through the network's output, which its random weights move a little."""
    for algorithm in ("ppo", "a2c", "sac", "td3"):
        spread = []
        for std in (0.3, 0.6):
            env = gym.make("NASES-Synthetic-v0")
            env.reset(seed=0)
            model = make_model(SearchLoop(env, 10), Args(algorithm=algorithm, std=std))
            observation = np.full((1, 40), 0.5, np.float32)
            actions = np.concatenate([model.predict(observation)[0] for _ in range(200)])
            if algorithm == "td3":
                actions = np.array([model.action_noise() for _ in range(200)])
            spread.append(float(actions.std(0).mean()) * 3)
        assert spread == pytest.approx([0.3, 0.6], rel=0.1), algorithm


def test_the_command_writes_sb3s_losses(tmp_path: Path) -> None:
    for algorithm, tag, steps in (("ppo", "train/policy_gradient_loss", [10, 20]), ("sac", "train/critic_loss", [11, 12])):
        args = Args(env_id="NASES-Synthetic-v0", budget=25, algorithm=algorithm, run_dir=tmp_path / algorithm)
        sb3.main(args)
        assert len((tmp_path / algorithm / "evaluations.jsonl").read_text().splitlines()) == 25
        assert json.loads((tmp_path / algorithm / "config.json").read_text())["agent"] == algorithm
        events = EventAccumulator(str(tmp_path / algorithm)).Reload()
        assert [event.step for event in events.Scalars(tag)][:2] == steps


@pytest.mark.parametrize(
    "options",
    [
        {"n_steps": 1},
        {"gradient_steps": 0},
        {"learning_starts": -1},
        {"batch_size": 0},
        {"std": 0.0},
        {"learning_rate": float("nan")},
        {"ent_coef": -0.1},
        {"ask_batch_size": 2},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)


def test_options_that_are_given_replace_the_algorithms_own() -> None:
    assert Args(algorithm="sac").setting("learning_rate") == DEFAULTS["sac"]["learning_rate"]
    assert Args(algorithm="sac", learning_rate=0.1).setting("learning_rate") == 0.1
