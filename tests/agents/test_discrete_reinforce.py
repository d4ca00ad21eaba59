"""The discrete controller draws what the search space allows, learns from rewards, and does not care for their order."""

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
from tests.agents.driving import analytic, drive, evaluation

CONTROLLERS = ("lstm", "independent")


def log_prob(agent: DiscreteReinforce, proposal: Proposal) -> float:
    """Of a child, decision by decision, as it is drawn."""
    total = 0.0
    tokens, state = torch.zeros(1, 1, dtype=torch.int64), None
    with torch.no_grad():
        for index, choice in enumerate(proposal.architecture.decisions):
            log_probs, state = agent._log_probs(tokens, index, state)
            total += float(log_probs[0, 0, choice])
            tokens = torch.tensor([[1 + index * agent.num_choices + choice]])
    return total


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_it_learns(controller: Any) -> None:
    env = analytic()
    _, rewards = drive(DiscreteReinforce(env, Args(controller=controller)), lambda child: env.evaluate(child).reward, 250)
    assert np.mean(rewards[-50:]) > np.mean(rewards[:50]) + 0.15


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_at_first_every_choice_of_every_decision_is_about_equally_likely(controller: Any) -> None:
    env = analytic()
    children = DiscreteReinforce(env, Args(controller=controller)).ask(3000)
    drawn = np.array([child.architecture.decisions for child in children])
    for index, size in enumerate(env.search_space.decision_sizes):
        shares = np.bincount(drawn[:, index], minlength=size) / len(drawn)
        assert len(shares) == size
        np.testing.assert_allclose(shares, 1 / size, rtol=0.25)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_reward_above_the_baseline_makes_a_child_likelier_and_one_below_less_likely(controller: Any) -> None:
    for reward, sign in ((0.9, 1), (0.1, -1)):
        agent = DiscreteReinforce(analytic(), Args(controller=controller, ent_coef=0.0))
        first, child = agent.ask(2)
        agent.tell(first, evaluation(first.architecture, 0.5))
        before = log_prob(agent, child)
        agent.tell(child, evaluation(child.architecture, reward))
        assert sign * (log_prob(agent, child) - before) > 0.1


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_it_learns_from_the_probability_with_which_a_child_is_drawn(controller: Any) -> None:
    """It reads all decisions at once to learn, but draws one after another; both must say the same."""
    env = analytic()
    agent = DiscreteReinforce(env, Args(controller=controller))
    drive(agent, lambda child: env.evaluate(child).reward, 50)
    for child in agent.ask(5):
        decisions = torch.tensor([child.architecture.decisions])
        read = agent._log_probs_along(decisions).detach().gather(-1, decisions[:, :, None]).sum()
        assert float(read) == pytest.approx(log_prob(agent, child), abs=1e-3)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_in_the_lstm_a_decision_depends_on_those_before_it(controller: Any) -> None:
    agent = DiscreteReinforce(analytic(), Args(controller=controller))
    decisions = torch.zeros(2, 40, dtype=torch.int64)
    decisions[1, 3] = 1
    a, b = agent._log_probs_along(decisions).exp()
    differs = (a != b).any(-1).tolist()
    assert differs[:6] == [False] * 4 + [controller == "lstm"] * 2


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_children_in_flight_may_be_told_in_any_order(controller: Any) -> None:
    """A batch is one step, whatever its order; and ten in flight are no hindrance to learning."""
    env = analytic()
    after = []
    for order in (1, -1):
        agent = DiscreteReinforce(env, Args(controller=controller, batch_size=6))
        asked = agent.ask(3) + agent.ask(3)
        for child in asked[::order]:
            agent.tell(child, evaluation(child.architecture, env.evaluate(child.architecture).reward))
        after.append(log_prob(agent, asked[0]))
    assert after[0] == pytest.approx(after[1], abs=0.01)
    _, rewards = drive(
        DiscreteReinforce(env, Args(controller=controller)), lambda child: env.evaluate(child).reward, 250, 10
    )
    assert np.mean(rewards[-50:]) > np.mean(rewards[:50]) + 0.15


def spreads(agent: DiscreteReinforce) -> Tensor:
    """How far the log-probabilities of each decision's choices lie apart, shape (m,)."""
    log_probs: Tensor = agent._log_probs_along(torch.zeros(1, 40, dtype=torch.int64))[0].detach()
    return log_probs.amax(-1) - log_probs.masked_fill(agent.invalid_choice_mask, torch.inf).amin(-1)


def test_the_tanh_constant_keeps_a_policy_from_certainty() -> None:
    for tanh_constant, bounded in ((0.5, True), (0.0, False)):
        agent = DiscreteReinforce(analytic(), Args(learning_rate=0.02, tanh_constant=tanh_constant))
        drive(agent, lambda child: float(child.decisions[1] == 0), 60)
        assert bool(spreads(agent).max() <= 2 * 0.5) is bounded


def test_the_temperature_divides_the_logits() -> None:
    cold, hot = (DiscreteReinforce(analytic(), Args(temperature=value, tanh_constant=0.0)) for value in (1.0, 5.0))
    torch.testing.assert_close(spreads(hot), spreads(cold) / 5)


def test_moving_average_baseline() -> None:
    agent = DiscreteReinforce(analytic(), Args(baseline_decay=0.5, batch_size=2))
    logged = [
        agent.tell(child, evaluation(child.architecture, reward))
        for child, reward in zip(agent.ask(4), (0.2, 0.4, 0.5, 0.7), strict=True)
    ]
    # The first batch's mean, then half a step towards each reward: 0.3, 0.25, 0.325, 0.4125, 0.55625.
    assert agent.baseline == pytest.approx(0.55625)
    assert [bool(scalars) for scalars in logged] == [False, True, False, True]
    assert logged[1]["policy/baseline"] == pytest.approx(0.325)


def test_the_command_writes_the_policys_curves_and_repeats(tmp_path: Path) -> None:
    keys = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        args = Args(env_id="NASES-Synthetic-v0", budget=8, seed=seed, ask_batch_size=2, run_dir=tmp_path / name)
        discrete_reinforce.main(args)
        records = (tmp_path / name / "evaluations.jsonl").read_text().splitlines()
        keys.append([json.loads(record)["key"] for record in records])
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    for tag in ("loss", "entropy", "baseline"):
        assert [event.step for event in events.Scalars(f"policy/{tag}")] == list(range(1, 9))


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
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
