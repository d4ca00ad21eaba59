"""REINFORCE learns, beats random search on a known reward, and follows its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from nases_agents import reinforce
from nases_agents.reinforce import Args, Reinforce
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.env import NASESEnv
from nases_env.errors import InputError

ALGORITHM_1: dict[str, Any] = {
    "reads": "last",
    "unseen": False,
    "num_warmup": 0,
    "advantage": "baseline",
    "num_samples": 0,
}


def analytic() -> tuple[gym.Env[Any, Any], NASESEnv]:
    env = gym.make("NASES-Analytic-v0", max_episode_steps=10_000)
    return env, cast(NASESEnv, env.unwrapped)


def search(budget: int, **options: Any) -> tuple[Reinforce, list[float]]:
    args = Args(**options)
    env, nases = analytic()
    observation, _ = env.reset(seed=args.seed)
    agent = Reinforce(nases, args)
    rewards = []
    for _ in range(budget):
        observation, reward, _, _, info = env.step(agent.ask(observation))
        agent.tell(observation, info)
        rewards.append(float(reward))
    return agent, rewards


def test_it_beats_random_search_over_20_seeds_at_the_same_budget() -> None:
    _, nases = analytic()
    best_of_reinforce, best_of_random = [], []
    for seed in range(20):
        best_of_reinforce.append(max(search(200, seed=seed)[1]))
        nases.reset(seed=seed)
        rng = np.random.default_rng(seed)
        best_of_random.append(max(nases.evaluate(nases.search_space.sample(rng)).reward for _ in range(200)))
    differences = np.subtract(best_of_reinforce, best_of_random)
    assert differences.mean() > 3 * differences.std(ddof=1) / np.sqrt(20)


def test_policy_gradient_alone_raises_the_mean_reward() -> None:
    """No elites, no mutations: what is learned is in the controller's weights."""
    options = {**ALGORITHM_1, "advantage": "rank", "sigma": 0.7, "num_samples": 32, "learning_rate": 3e-3}
    _, rewards = search(400, anchor_coefficient=0.0, **options)
    assert np.mean(rewards[-100:]) > np.mean(rewards[:100]) + 0.05


def test_the_controller_starts_as_the_simulator() -> None:
    _, nases = analytic()
    vectors = torch.rand(4, 40)
    agent = Reinforce(nases, Args())
    torch.testing.assert_close(agent.controller(vectors), nases.embedding.simulator(vectors), rtol=0, atol=0)
    random = Reinforce(nases, Args(init="random"))
    assert not torch.allclose(random.controller(vectors), agent.controller(vectors))


def test_algorithm_1_reads_the_last_child_and_samples_around_the_controllers_output() -> None:
    agent, _ = search(200, sigma=0.5, learning_rate=1e-12, **ALGORITHM_1)
    children = torch.from_numpy(np.stack([agent.env.search_space.encode(transition.child) for transition in agent.history]))
    states = torch.stack([transition.state for transition in agent.history])
    assert torch.equal(states[1:], children[:-1])
    with torch.no_grad():
        noise = torch.stack([transition.embedding for transition in agent.history]) - agent.controller(states)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_with_unseen_no_child_comes_twice() -> None:
    narrow = {"sigma": 0.01, "num_mutations": 0, "num_warmup": 1}
    again, _ = search(30, unseen=False, **narrow)
    assert len(again.seen) < 30
    new, _ = search(30, unseen=True, **narrow)
    assert len(new.seen) > len(again.seen)


def test_elites_are_read_with_mutations() -> None:
    agent, _ = search(60, num_mutations=1, elite_decay=0.0)
    best = max(agent.history, key=lambda transition: transition.reward).child
    state, _ = agent._choose_state(np.zeros(40, np.float32))
    read = agent.env.search_space.decode(state.numpy())
    assert sum(a != b for a, b in zip(read.decisions, best.decisions, strict=True)) == 1


def test_with_residual_the_search_begins_at_the_child_that_is_read() -> None:
    agent, _ = search(40, num_mutations=0, elite_decay=0.0, learning_rate=1e-12)
    best = max(agent.history, key=lambda transition: transition.reward)
    state, offset = agent._choose_state(np.zeros(40, np.float32))
    torch.testing.assert_close(agent.controller(state[None])[0] + offset, best.embedding, atol=1e-4, rtol=0)


def test_rewards_and_advantages() -> None:
    _, nases = analytic()
    nases.reset(seed=0)
    for advantage, expected in (
        ("history", [-1.2247, 0.0, 1.2247]),
        ("rank", torch.special.ndtri(torch.tensor([1 / 6, 3 / 6, 5 / 6])).tolist()),
    ):
        agent = Reinforce(nases, Args(advantage=cast(Any, advantage), batch_size=100))
        for valid in (0.1, 0.2, 0.3):
            observation = np.zeros(40, np.float32)
            agent.ask(observation)
            agent.tell(observation, {"key": "a", "valid_accuracy": valid, "train_accuracy": valid})
        assert agent._advantages().tolist() == pytest.approx(expected, abs=1e-3)
    agent = Reinforce(nases, Args(reward="gap"))
    agent.ask(np.zeros(40, np.float32))
    agent.tell(np.zeros(40, np.float32), {"key": "a", "valid_accuracy": 0.8, "train_accuracy": 0.9})
    assert agent.history[0].reward == pytest.approx((0.8 - 0.1) ** 3)


def test_moving_average_baseline() -> None:
    _, nases = analytic()
    nases.reset(seed=0)
    agent = Reinforce(nases, Args(advantage="baseline", baseline_decay=0.5, batch_size=2))
    logged = []
    for valid in (0.2, 0.4, 0.5, 0.7):
        agent.ask(np.zeros(40, np.float32))
        logged.append(agent.tell(np.zeros(40, np.float32), {"key": "a", "valid_accuracy": valid, "train_accuracy": 0.0}))
    # The first batch's mean, then half a step towards each reward: 0.3, 0.25, 0.325, 0.4125, 0.55625.
    assert agent.baseline == pytest.approx(0.55625)
    assert [bool(scalars) for scalars in logged] == [False, True, False, True]


def test_the_command_writes_the_policys_curves_and_repeats(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        reinforce.main(Args(env_id="NASES-Analytic-v0", budget=25, run_dir=tmp_path / name))
        records = [json.loads(line) for line in (tmp_path / name / "evaluations.jsonl").read_text().splitlines()]
        keys.append([record["key"] for record in records])
    assert keys[0] == keys[1]
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    for tag in ("loss", "entropy", "sigma", "gradient_norm", "distance_from_start"):
        assert [event.step for event in events.Scalars(f"policy/{tag}")] == [10, 20]
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["learning_rate"] == Args().learning_rate


@pytest.mark.parametrize("options", [{"sigma": 0}, {"batch_size": 0}, {"learning_rate": float("nan")}, {"elite_decay": 1.0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
