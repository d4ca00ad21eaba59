"""REINFORCE learns, beats random search on a known reward, and follows its options."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from nases_agents import reinforce
from nases_agents.random_search import RandomSearch
from nases_agents.reinforce import PAPER, Args, PolicySample, Reinforce, log_density
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.envs import ACTION_SCALE
from nases_env.errors import InputError
from nases_env.search import SearchArgs
from tests.agents.driving import analytic, distance, drive, evaluation
from tests.commands import run_here, script


def search(budget: int, in_flight: int = 1, **options: Any) -> tuple[Reinforce, list[float]]:
    args = Args(**options)
    env = analytic(args.seed)
    agent = Reinforce(env, args)
    return agent, drive(agent, lambda child: env.evaluate(child).reward, budget, in_flight)[1]


def test_it_beats_random_search_over_20_seeds_at_the_same_budget() -> None:
    best_of_reinforce, best_of_random = [], []
    for seed in range(20):
        env = analytic(seed)
        best_of_reinforce.append(max(search(60, seed=seed)[1]))
        random = RandomSearch(env, SearchArgs(seed=seed))
        best_of_random.append(max(drive(random, lambda child: env.evaluate(child).reward, 60)[1]))  # noqa: B023 - called here
    differences = np.subtract(best_of_reinforce, best_of_random)
    assert differences.mean() > 3 * differences.std(ddof=1) / np.sqrt(20)


def test_policy_gradient_alone_raises_the_mean_reward() -> None:
    """No elites, no mutations: what is learned is in the controller's weights."""
    options = {"std": 0.7, "advantage": "rank", "train_freq": 10, "gradient_steps": 8, "learning_rate": 3e-3}
    gains = []
    for seed in range(4):
        _, rewards = search(400, seed=seed, **{**PAPER, "clip_range": 0.2, "max_grad_norm": 1.0, **options})
        gains.append(np.mean(rewards[-100:]) - np.mean(rewards[:100]))
    assert np.mean(gains) > 0.04


def test_the_controller_starts_as_the_simulator() -> None:
    env = analytic()
    vectors = torch.rand(4, 40)
    agent = Reinforce(env, Args())
    torch.testing.assert_close(agent.controller(vectors), env.embedding.simulator(vectors), rtol=0, atol=0)
    random = Reinforce(env, Args(init="random"))
    assert not torch.allclose(random.controller(vectors), agent.controller(vectors))


def test_algorithm_1_reads_the_last_child_and_samples_around_the_controllers_output() -> None:
    agent, _ = search(200, **{**PAPER, "std": 0.5, "learning_rate": 1e-12})
    space = agent.env.search_space
    samples = [result.sample for result in agent.history]
    children = torch.from_numpy(np.stack([space.encode(sample.architecture) for sample in samples]))
    states = torch.stack([sample.state for sample in samples])
    assert torch.equal(states[1:], children[:-1])
    with torch.no_grad():
        noise = torch.stack([sample.embedding for sample in samples]) - agent.controller(states)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_algorithm_1_takes_a_plain_gradient_step_from_each_child() -> None:
    env = analytic()
    agent = Reinforce(env, Args(**PAPER, std=0.5))
    (first,) = agent.ask()
    agent.tell(first, evaluation(first.architecture, 0.5))  # it is its own baseline: nothing to learn
    (second,) = agent.ask()
    assert isinstance(second, PolicySample)
    mean = agent.controller(second.state[None])[0]
    mean.retain_grad()
    (-log_density(second.embedding, mean, agent.log_std) * 0.2).backward()
    expected = [parameter.grad.clone() for parameter in agent.controller.parameters() if parameter.grad is not None]
    agent.tell(second, evaluation(second.architecture, 0.7))
    for parameter, gradient in zip(agent.controller.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_with_unseen_no_child_comes_twice() -> None:
    narrow: dict[str, Any] = {"std": 0.01, "num_mutations": 0, "learning_starts": 1, "residual": False}
    again, _ = search(30, unseen=False, **narrow)
    assert len(again.asked) < 30
    new, _ = search(30, unseen=True, **narrow)
    assert len(new.asked) == 30


def test_of_many_proposals_the_nearest_to_what_was_read_is_evaluated() -> None:
    def mean_distance(num_proposals: int) -> float:
        agent, _ = search(60, num_proposals=num_proposals)
        samples = [result.sample for result in agent.history[20:]]
        return float(np.mean([agent._hamming_distance(sample) for sample in samples]))

    assert mean_distance(32) < mean_distance(1) / 2


def test_children_in_flight_are_all_different_and_told_in_any_order() -> None:
    agent, rewards = search(60, in_flight=7)
    assert len(agent.asked) == 60
    assert [result.reward for result in agent.ranking] == sorted(rewards, reverse=True)


def test_elites_are_read_with_mutations() -> None:
    agent, _ = search(60, elite_geometric_decay=0.0)
    best = agent.ranking[0].sample.architecture
    for mutations in (0, 1, 2):
        states, _ = agent.sample_states(np.full(20, mutations))
        distances = [distance(agent.env.search_space.decode(state.numpy()), best) for state in states]
        assert max(distances) == mutations


def test_with_residual_the_search_begins_at_the_child_that_is_read() -> None:
    agent, _ = search(40, num_mutations=0, elite_geometric_decay=0.0, learning_rate=1e-12)
    best = agent.ranking[0].sample
    states, offsets = agent.sample_states(np.zeros(1, np.int64))
    child = agent.env.decode_batch((agent.controller(states) + offsets).detach().numpy() / ACTION_SCALE)[0]
    assert child.key == best.architecture.key


def test_rewards_and_advantages() -> None:
    env = analytic()
    for advantage, expected in (
        ("zscore", [-1.2247, 0.0, 1.2247]),
        ("rank", torch.special.ndtri(torch.tensor([1 / 6, 3 / 6, 5 / 6])).tolist()),
    ):
        agent = Reinforce(env, Args(advantage=cast(Any, advantage), train_freq=100))
        for valid in (0.1, 0.2, 0.3):
            (proposal,) = agent.ask()
            agent.tell(proposal, evaluation(proposal.architecture, valid))
        assert agent._advantages().tolist() == pytest.approx(expected, abs=1e-3)
    agent = Reinforce(env, Args(reward_shaping="generalization-gap"))
    (proposal,) = agent.ask()
    agent.tell(proposal, dataclasses.replace(evaluation(proposal.architecture, 0.8), train_accuracy=0.9))
    assert agent.history[0].reward == pytest.approx((0.8 - 0.1) ** 3)


def test_moving_average_baseline() -> None:
    agent = Reinforce(analytic(), Args(advantage="moving-average", baseline_decay=0.5, train_freq=2, learning_starts=0))
    logged = []
    for valid in (0.2, 0.4, 0.5, 0.7):
        (proposal,) = agent.ask()
        logged.append(agent.tell(proposal, evaluation(proposal.architecture, valid)))
    # The first batch's mean, then half a step towards each reward: 0.3, 0.25, 0.325, 0.4125, 0.55625.
    assert agent.baseline == pytest.approx(0.55625)
    assert [bool(scalars) for scalars in logged] == [False, True, False, True]


def test_warm_up_children_are_normal_and_teach_nothing() -> None:
    agent, _ = search(200, learning_starts=200)
    embeddings = torch.stack([result.sample.embedding for result in agent.history])
    assert float(embeddings.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(agent.controller(torch.ones(1, 40)), agent.reference_controller(torch.ones(1, 40)))


def test_the_command_writes_the_policys_curves_and_repeats(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        reinforce.main(Args(env_id="NASES-Synthetic-v0", budget=45, run_dir=tmp_path / name))
        records = [json.loads(line) for line in (tmp_path / name / "evaluations.jsonl").read_text().splitlines()]
        keys.append([record["key"] for record in records])
    assert keys[0] == keys[1]
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    for tag in ("loss", "entropy", "std", "gradient_norm", "reference_distance"):
        assert [event.step for event in events.Scalars(f"policy/{tag}")] == [30, 40]
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["arguments"]["learning_rate"] == Args().learning_rate


@pytest.mark.parametrize(
    "options", [{"std": 0}, {"train_freq": 0}, {"learning_rate": float("nan")}, {"elite_geometric_decay": 1.0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)


def test_the_preset_of_the_paper_is_what_was_not_given(tmp_path: Path) -> None:
    options = ("--env-id", "NASES-Synthetic-v0", "--preset", "paper", "--std", "0.3", "--budget", "3")
    ended = run_here(script(Path(reinforce.__file__)), *options, "--run-dir", str(tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["arguments"]
    assert config["preset"] == "paper"
    assert config["std"] == 0.3
    for option, value in PAPER.items():
        assert config[option] == value, option
        assert getattr(Args(), option) != value, f"{option} is not a departure"
