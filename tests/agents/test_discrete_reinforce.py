"""The discrete controller samples valid architectures and learns from rewards in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import discrete_reinforce
from nases_agents.discrete_reinforce import Args, DiscreteReinforce
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from nases_env.errors import InputError
from nases_env.search.agent import Proposal
from tests.agents.driving import drive, drive_synthetic, evaluation, small_synthetic_env, synthetic_env

CONTROLLERS = ("lstm", "independent")


def log_prob(agent: DiscreteReinforce, proposal: Proposal) -> float:
    """Compute the log probability of a child one decision at a time, as in sampling."""
    total = 0.0
    tokens, state = torch.zeros(1, 1, dtype=torch.int64), None
    with torch.no_grad():
        for index, choice in enumerate(proposal.architecture.decisions):
            log_probs, state = agent._log_probs(tokens, index, state)
            total += float(log_probs[0, 0, choice])
            tokens = torch.tensor([[1 + index * agent.num_choices + choice]])
    return total


@pytest.mark.parametrize(
    ("controller", "in_flight", "budget"),
    [("lstm", 1, 150), ("lstm", 10, 250), ("independent", 1, 150), ("independent", 10, 150)],
)
def test_learns(controller: Any, in_flight: int, budget: int) -> None:
    env = small_synthetic_env()
    _, rewards = drive_synthetic(DiscreteReinforce(env, Args(controller=controller)), env, budget, in_flight)
    assert np.mean(rewards[-50:]) > np.mean(rewards[:50]) + 0.15


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_initial_choices_are_almost_uniform(controller: Any) -> None:
    env = synthetic_env()
    children = DiscreteReinforce(env, Args(controller=controller)).ask(3000)
    decisions = np.array([child.architecture.decisions for child in children])
    for index, size in enumerate(env.search_space.decision_sizes):
        shares = np.bincount(decisions[:, index], minlength=size) / len(decisions)
        assert len(shares) == size
        np.testing.assert_allclose(shares, 1 / size, rtol=0.25)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_reward_above_the_baseline_raises_the_probability_of_a_child_and_below_lowers_it(controller: Any) -> None:
    for reward, sign in ((0.9, 1), (0.1, -1)):
        agent = DiscreteReinforce(synthetic_env(), Args(controller=controller, ent_coef=0.0))
        first, child = agent.ask(2)
        agent.tell(first, evaluation(first.architecture, 0.5))
        before = log_prob(agent, child)
        agent.tell(child, evaluation(child.architecture, reward))
        assert sign * (log_prob(agent, child) - before) > 0.1


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_probabilities_in_training_equal_those_in_sampling(controller: Any) -> None:
    """Training evaluates all decisions in one pass, whereas sampling is sequential."""
    env = synthetic_env()
    agent = DiscreteReinforce(env, Args(controller=controller))
    drive_synthetic(agent, env, 20)
    for child in agent.ask(5):
        decisions = torch.tensor([child.architecture.decisions])
        in_training = agent._log_probs_along(decisions).detach().gather(-1, decisions[:, :, None]).sum()
        assert float(in_training) == pytest.approx(log_prob(agent, child), abs=1e-3)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_only_lstm_decisions_depend_on_previous_ones(controller: Any) -> None:
    agent = DiscreteReinforce(synthetic_env(), Args(controller=controller))
    decisions = torch.zeros(2, 40, dtype=torch.int64)
    decisions[1, 3] = 1
    a, b = agent._log_probs_along(decisions).exp()
    differs = (a != b).any(-1).tolist()
    assert differs[:6] == [False] * 4 + [controller == "lstm"] * 2


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_order_of_tell_does_not_matter_within_a_batch(controller: Any) -> None:
    env = synthetic_env()
    after = []
    for order in (1, -1):
        agent = DiscreteReinforce(env, Args(controller=controller, batch_size=6))
        asked = agent.ask(3) + agent.ask(3)
        for child in asked[::order]:
            agent.tell(child, evaluation(child.architecture, env.evaluate(child.architecture).reward))
        after.append(log_prob(agent, asked[0]))
    assert after[0] == pytest.approx(after[1], abs=0.01)


def spreads(agent: DiscreteReinforce) -> Tensor:
    """Return the range of the log probabilities of each decision, shape (m,)."""
    decisions = torch.zeros(1, len(agent.invalid_choice_mask), dtype=torch.int64)
    log_probs: Tensor = agent._log_probs_along(decisions)[0].detach()
    return log_probs.amax(-1) - log_probs.masked_fill(agent.invalid_choice_mask, torch.inf).amin(-1)


def test_tanh_constant_bounds_the_logits() -> None:
    for tanh_constant, bounded in ((0.5, True), (0.0, False)):
        agent = DiscreteReinforce(small_synthetic_env(), Args(learning_rate=0.02, tanh_constant=tanh_constant))
        drive(agent, lambda child: float(child.decisions[1] == 0), 20)
        assert bool(spreads(agent).max() <= 2 * 0.5) is bounded


def test_temperature_divides_the_logits() -> None:
    cold, hot = (DiscreteReinforce(synthetic_env(), Args(temperature=value, tanh_constant=0.0)) for value in (1.0, 5.0))
    torch.testing.assert_close(spreads(hot), spreads(cold) / 5)


def test_moving_average_baseline() -> None:
    agent = DiscreteReinforce(synthetic_env(), Args(baseline_decay=0.5, batch_size=2))
    logged = [
        agent.tell(child, evaluation(child.architecture, reward))
        for child, reward in zip(agent.ask(4), (0.2, 0.4, 0.5, 0.7), strict=True)
    ]
    # Mean of the first batch, then half a step toward each reward: 0.3, 0.25, 0.325, 0.4125, 0.55625.
    assert agent.baseline == pytest.approx(0.55625)
    assert [bool(metrics) for metrics in logged] == [False, True, False, True]
    assert logged[1]["policy/baseline"] == pytest.approx(0.325)


def test_command_logs_metrics_of_the_policy_and_the_seed_determines_the_children(tmp_path: Path) -> None:
    keys = []
    for name, seed in (("a", 0), ("b", 1)):
        args = Args(env_id="NASES-Synthetic-v0", budget=8, seed=seed, ask_batch_size=2, run_dir=tmp_path / name)
        discrete_reinforce.main(args)
        records = (tmp_path / name / "evaluations.jsonl").read_text().splitlines()
        keys.append([json.loads(record)["key"] for record in records])
    assert not set(keys[0]) & set(keys[1])
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    for tag in ("loss", "entropy", "baseline"):
        assert [event.step for event in events.Scalars(f"update/policy/{tag}")] == list(range(1, 9))


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": 0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"temperature": 0.0},
        {"ent_coef": -1.0},
        {"tanh_constant": float("inf")},
        {"baseline_decay": 1.0},
    ],
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
