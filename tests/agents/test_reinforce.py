"""REINFORCE learns a known reward, is Algorithm 1 of the paper, and follows its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import reinforce
from nases_agents.reinforce import Args, Reinforce, Sample
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.errors import InputError
from nases_env.search import SearchLoop
from tests.agents.driving import drive_synthetic, evaluation, synthetic_env
from tests.search.limited import limited_env

ALGORITHM_1: dict[str, Any] = {"std": 0.1, "unseen": False}


def search(budget: int, in_flight: int = 1, **options: Any) -> tuple[Reinforce, list[Sample], list[float]]:
    """Search the synthetic reward; return the agent, and its children and rewards in the order of the results."""
    args = Args(budget=budget, **options)
    env = synthetic_env(args.seed)
    agent = Reinforce(env, args)
    proposals, rewards = drive_synthetic(agent, env, budget, in_flight)
    samples = [proposal for proposal in proposals if isinstance(proposal, Sample)]
    assert len(samples) == budget
    return agent, samples, rewards


def keys_of(samples: list[Sample]) -> list[str]:
    return [sample.architecture.key for sample in samples]


def weights_of(agent: Reinforce) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent.controller.parameters()])


def test_policy_gradient_raises_the_mean_reward() -> None:
    """Children whose operators are all sep_conv_3x3 have the highest reward, 1."""
    gains = []
    for seed in range(4):
        _, _, rewards = search(200, seed=seed)
        gains.append(np.mean(rewards[-50:]) - np.mean(rewards[:50]))
    assert np.mean(gains) > 0.06


def test_reads_the_last_child_and_samples_around_the_controller_output() -> None:
    agent, samples, _ = search(200, **{**ALGORITHM_1, "std": 0.5}, learning_rate=1e-12)
    read = [torch.from_numpy(agent.env.search_space.encode(sample.architecture)) for sample in samples[:-1]]
    states = torch.stack([sample.state for sample in samples[1:]])
    assert torch.equal(states, torch.stack(read))
    embeddings = torch.stack([sample.embedding for sample in samples[1:]])
    noise = embeddings - agent.controller(states).detach()
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_takes_a_plain_policy_gradient_step_per_child() -> None:
    agent = Reinforce(synthetic_env(), Args(**ALGORITHM_1))
    before = weights_of(agent)
    (first,) = agent.ask()
    agent.tell(first, evaluation(first.architecture, 0.5))  # equals its baseline
    assert torch.equal(weights_of(agent), before)
    (second,) = agent.ask()
    assert isinstance(second, Sample)
    mean = agent.controller(second.state[None])[0]
    score = (second.embedding - mean.detach()) / 0.1**2
    parameters = list(agent.controller.parameters())
    expected = torch.autograd.grad(mean, parameters, grad_outputs=-(0.7 - 0.5) * score)
    agent.tell(second, evaluation(second.architecture, 0.7))
    assert not torch.equal(weights_of(agent), before)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_baseline_is_a_moving_average() -> None:
    agent = Reinforce(synthetic_env(), Args(baseline_decay=0.5))
    logged = []
    for reward in (0.2, 0.4, 0.5):
        (proposal,) = agent.ask()
        logged.append(agent.tell(proposal, evaluation(proposal.architecture, reward)))
    assert [metrics["policy/baseline"] for metrics in logged] == pytest.approx([0.2, 0.3, 0.4])


def test_controller_starts_with_the_weights_of_the_simulator() -> None:
    env = synthetic_env()
    vectors = torch.rand(4, 40)
    agent = Reinforce(env, Args())
    torch.testing.assert_close(agent.controller(vectors), env.embedding.simulator(vectors), rtol=0, atol=0)
    random = Reinforce(env, Args(init="random"))
    assert not torch.allclose(random.controller(vectors), agent.controller(vectors))


def test_reads_the_architecture_of_the_environment_first() -> None:
    agent = Reinforce(synthetic_env(), Args())
    (first,) = agent.ask()
    assert isinstance(first, Sample)
    assert torch.equal(first.state, torch.from_numpy(agent.env.search_space.encode(agent.env.architecture)))


def test_unseen_samples_repeats_again_with_a_larger_deviation() -> None:
    _, with_repeats, _ = search(30, std=0.04, unseen=False)
    assert len(set(keys_of(with_repeats))) < 30
    assert {sample.std for sample in with_repeats} == {0.04}
    _, distinct, _ = search(30, std=0.04)
    assert len(set(keys_of(distinct))) == 30
    assert max(sample.std for sample in distinct) > 0.04


def test_exhausted_space_yields_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Reinforce(synthetic_env(), Args())
    only = agent.env.architecture
    monkeypatch.setattr(agent.env, "decode", lambda action: only)
    assert [proposal.architecture for proposal in agent.ask(3)] == [only] * 3


def test_search_leaves_a_region_without_feasible_children() -> None:
    env = limited_env(seed=1)
    assert env.screen(env.architecture) is not None
    loop = SearchLoop(env, 20)
    loop.run(Reinforce(env, Args(**ALGORITHM_1)))
    assert len(loop.trials) == 20


def test_seed_determines_the_children() -> None:
    first, second, other = (keys_of(search(40, seed=seed)[1]) for seed in (1, 1, 2))
    assert first == second != other


def test_children_in_flight_are_distinct_and_results_may_arrive_in_any_order() -> None:
    agent, samples, _ = search(60, in_flight=7)
    assert len(set(keys_of(samples))) == len(agent.proposed) == 60
    assert agent.last == samples[-1].architecture


def test_command_logs_metrics_of_the_policy(tmp_path: Path) -> None:
    reinforce.main(Args(env_id="NASES-Synthetic-v0", budget=14, run_dir=tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {tag for tag in events.Tags()["scalars"] if tag.startswith("update/")} == {
        "update/policy/baseline",
        "update/policy/loss",
    }
    assert [event.step for event in events.Scalars("update/policy/loss")] == list(range(1, 15))


@pytest.mark.parametrize("options", [{"std": 0}, {"learning_rate": float("nan")}, {"baseline_decay": 1.0}])
def test_options_out_of_range_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
