"""The model-assisted agent finds more with fewer children, several at a time and told in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import model_assisted
from nases_agents.model_assisted import Args, ModelAssisted
from nases_agents.random_search import RandomSearch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.errors import InputError
from nases_env.search import SearchArgs
from tests.agents.driving import analytic, drive, evaluation

FEW: dict[str, Any] = {
    "num_policy_candidates": 60,
    "num_prior_candidates": 20,
    "imagined_batch_size": 16,
    "gradient_steps": 1,
}


def search(budget: int, in_flight: int = 5, **options: Any) -> tuple[ModelAssisted, list[float]]:
    args = Args(**{**FEW, **options})
    env = analytic(args.seed)
    agent = ModelAssisted(env, args)
    return agent, drive(agent, lambda child: env.evaluate(child).reward, budget, in_flight)[1]


def test_it_beats_random_search_with_half_the_children() -> None:
    for seed in range(3):
        env = analytic(seed)
        random = drive(RandomSearch(env, SearchArgs(seed=seed)), lambda child: env.evaluate(child).reward, 120)[1]  # noqa: B023
        assert max(search(60, seed=seed)[1]) > max(random)


def test_imagined_rewards_alone_teach_the_controller() -> None:
    """The share of the operator is what is rewarded; the policy's own samples have more of it than the simulator's."""
    env = analytic()
    agent = ModelAssisted(env, Args(gradient_steps=0, learning_starts=60, reference_coef=0.0, learning_rate=3e-3))
    for proposal in agent.ask(60):
        agent.tell(proposal, evaluation(proposal.architecture, env.evaluate(proposal.architecture).reward))
    agent._fit()
    agent.args.gradient_steps = 60
    agent._train_on_predictions()
    states, offsets = agent.sample_states(np.full(400, 1))
    learned = agent.sample(states, offsets)
    agent.controller.load_state_dict(agent.reference_controller.state_dict())
    before = agent.sample(states, offsets)
    rewards = [np.mean([env.evaluate(sample.architecture).reward for sample in samples]) for samples in (learned, before)]
    assert rewards[0] > rewards[1] + 0.05


def test_children_in_flight_are_all_different_and_told_in_any_order() -> None:
    agent, _ = search(60, in_flight=9)
    assert len(agent.asked) == 60
    assert agent.pending == []
    assert len({result.sample.architecture.key for result in agent.history}) == 60


def test_it_asks_before_anything_was_told() -> None:
    agent = ModelAssisted(analytic(), Args(learning_starts=3))
    assert len({proposal.architecture.key for proposal in agent.ask(12)}) == 12


def test_the_same_seed_asks_for_the_same_children() -> None:
    first, second, other = (search(40, seed=seed)[0].asked for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("acquisition", ["expected_improvement", "upper_ucb_kappa_bound"])
def test_the_child_of_the_highest_value_is_asked_for(acquisition: Any) -> None:
    agent, _ = search(40, acquisition=acquisition, ucb_kappa=2.0)
    agent._fit()
    candidates = agent._sample_candidates()
    chosen = agent._select(candidates)
    posterior = agent._posterior(candidates)
    if acquisition == "upper_ucb_kappa_bound":
        assert chosen is candidates[int(torch.argmax(posterior.mean + 2 * posterior.std))]
    else:
        assert chosen is candidates[int(torch.argmax(model_assisted.expected_improvement(posterior)))]


def test_the_command_writes_the_models_curves_and_repeats(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        model_assisted.main(Args(env_id="NASES-Synthetic-v0", budget=32, run_dir=tmp_path / name))
        records = [json.loads(line) for line in (tmp_path / name / "evaluations.jsonl").read_text().splitlines()]
        keys.append([record["key"] for record in records])
    assert keys[0] == keys[1]
    assert len(keys[0]) == 32
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    for tag in ("policy/loss", "model/count_kernel_weight", "model/noise_variance"):
        assert [event.step for event in events.Scalars(tag)] == [21, 26, 31]


@pytest.mark.parametrize(
    "options", [{"imagined_batch_size": 0}, {"extra_mutation_prob": 1.0}, {"std": 0.0}, {"ucb_kappa": -1.0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
