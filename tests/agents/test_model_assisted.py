"""The model-assisted agent finds better children than random search with half the budget, several in flight."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import model_assisted
from nases_agents.gaussian_process import expected_improvement
from nases_agents.model_assisted import Args, ModelAssisted
from nases_agents.policy import PolicySample
from nases_agents.random_search import RandomSearch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop
from tests.agents.driving import drive_synthetic, evaluation, hamming_distance, small_synthetic_env, synthetic_env
from tests.search.limited import limited_env

SMALL: dict[str, Any] = {
    "num_policy_candidates": 60,
    "num_prior_candidates": 20,
    "num_mutants": 20,
    "imagined_batch_size": 16,
    "gradient_steps": 1,
}


def search(
    budget: int,
    in_flight: int = 5,
    batch_size: int = 5,
    make_env: Callable[[int], NASESEnv] = small_synthetic_env,
    **options: Any,
) -> tuple[ModelAssisted, list[float]]:
    args = Args(**{**SMALL, **options})
    env = make_env(args.seed)
    agent = ModelAssisted(env, args)
    return agent, drive_synthetic(agent, env, budget, in_flight, batch_size)[1]


def test_beats_random_search_with_half_the_budget() -> None:
    for seed in range(2):
        env = small_synthetic_env(seed)
        random_rewards = drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 60)[1]
        assert max(search(30, batch_size=1, seed=seed)[1]) > max(random_rewards)


def test_predicted_rewards_alone_train_the_controller() -> None:
    """Samples of the trained policy have higher rewards than those of the initial one."""
    env = synthetic_env()
    agent = ModelAssisted(env, Args(learning_starts=60, learning_rate=3e-3))
    for proposal in agent.ask(60):
        agent.tell(proposal, evaluation(proposal.architecture, env.evaluate(proposal.architecture).reward))
    agent.model.fit()
    agent.args.gradient_steps = 60
    agent._train_on_predictions()
    states, offsets = agent.sample_states(np.full(400, 1))
    after = agent.sample(states, offsets)
    agent.controller.load_state_dict(agent.reference_controller.state_dict())
    before = agent.sample(states, offsets)
    rewards = [np.mean([env.evaluate(sample.architecture).reward for sample in samples]) for samples in (after, before)]
    assert rewards[0] > rewards[1] + 0.05


def test_controller_is_trained_from_the_simulator_before_each_batch() -> None:
    agent, _ = search(25)
    agent.model.fit()

    def distance() -> float:
        weights, reference = (each.state_dict() for each in (agent.controller, agent.reference_controller))
        return sum(float((weights[name] - reference[name]).abs().sum()) for name in reference)

    assert distance() > 0
    agent.args.gradient_steps = 0
    agent._train_on_predictions()
    assert distance() == 0


@pytest.mark.parametrize(("growth", "trained"), [(1.0, [2, 3, 4, 5, 6, 7]), (1.5, [2, 3, 5])])
def test_controller_is_trained_again_when_the_number_of_children_has_grown(growth: float, trained: list[int]) -> None:
    env = small_synthetic_env()
    agent = ModelAssisted(env, Args(**SMALL, learning_starts=2, training_growth=growth))
    numbers = []
    for _ in range(8):
        (proposal,) = agent.ask()
        agent.tell(proposal, evaluation(proposal.architecture, 0.5))
        numbers.append(agent.num_trained)
    assert sorted({*numbers} - {0}) == trained


def test_infeasible_children_are_not_pending() -> None:
    env = limited_env()
    agent = ModelAssisted(env, Args(**SMALL, learning_starts=10, screen=False))
    loop = SearchLoop(env, 20)
    loop.run(agent, agent.args.ask_batch_size)
    assert loop.num_infeasible > 20
    assert agent.pending == []
    assert len(agent.history) == loop.num_distinct == 20
    assert [transition.sample.log_prob for transition in agent.history[:10]] == [None] * 10


def test_children_in_flight_are_distinct_and_results_may_arrive_in_any_order() -> None:
    agent, _ = search(60, in_flight=9)
    assert len(agent.proposed) == 60
    assert agent.pending == []
    assert len({transition.sample.architecture.key for transition in agent.history}) == 60


def test_asks_before_any_result_arrives() -> None:
    agent = ModelAssisted(synthetic_env(), Args(learning_starts=3))
    assert len({proposal.architecture.key for proposal in agent.ask(12)}) == 12


def test_seed_determines_the_children() -> None:
    first, second, other = (search(30, seed=seed)[0].proposed for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize("acquisition", ["expected_improvement", "upper_confidence_bound"])
def test_candidate_with_the_highest_acquisition_value_is_selected(acquisition: Any) -> None:
    kappa: dict[str, Any] = {"ucb_kappa": 2.0} if acquisition == "upper_confidence_bound" else {}
    agent, _ = search(25, make_env=synthetic_env, acquisition=acquisition, **kappa)  # candidates are all different
    agent.model.fit()
    candidates = agent._sample_candidates()
    selected = agent._select(candidates)
    posterior = agent._posterior(candidates)
    if acquisition == "upper_confidence_bound":
        values = posterior.mean + 2 * posterior.std
    else:
        values = expected_improvement(posterior)
    assert selected.architecture is candidates[int(values.argmax())].architecture


def test_command_logs_metrics_of_the_policy_and_the_model(tmp_path: Path) -> None:
    model_assisted.main(Args(env_id="NASES-Synthetic-v0", budget=32, run_dir=tmp_path, **SMALL))
    events = EventAccumulator(str(tmp_path)).Reload()
    for tag in ("update/policy/loss", "update/model/count_kernel_weight", "update/model/noise_variance"):
        assert [event.step for event in events.Scalars(tag)] == [4, 6, 9, 13, 19, 28]


@pytest.mark.parametrize(
    "options",
    [
        {"imagined_batch_size": 0},
        {"extra_mutation_prob": 1.0},
        {"std": 0.0},
        {"ucb_kappa": -1.0},
        {"ucb_kappa": math.inf},
        {"imagined_ucb_kappa": math.inf},
        {"training_growth": 0.9},
        {"training_growth": math.inf},
    ],
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)


@pytest.mark.parametrize(
    "options",
    [{"learning_rate": 0.1}, {"imagined_batch_size": 7}, {"imagined_ucb_kappa": 2.0}, {"training_growth": 1.0}],
)
def test_options_of_the_training_are_input_errors_without_gradient_steps(options: dict[str, Any]) -> None:
    Args(gradient_steps=0)
    Args(gradient_steps=1, **options)
    name = next(iter(options)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{name} has no effect with --gradient-steps 0; omit it"):
        Args(gradient_steps=0, **options)


def test_candidates_are_samples_of_the_policy_and_of_the_prior_and_mutants_of_the_best() -> None:
    agent, _ = search(25, make_env=synthetic_env, extra_mutation_prob=0.0)
    agent.model.fit()
    candidates = agent._sample_candidates()
    samples = [candidate for candidate in candidates if isinstance(candidate, PolicySample)]
    assert [sample.log_prob is None for sample in samples] == [False] * 60 + [True] * 20
    assert candidates[:80] == samples
    assert len(candidates) == 100
    elites = agent.model.ranking()[:10]
    for mutant in candidates[-20:]:
        assert min(hamming_distance(mutant.architecture, elite) for elite in elites) == 1
        assert mutant.action is None
        simulated = agent.reference_controller(agent.read(mutant.architecture)[None])[0]
        torch.testing.assert_close(agent._embed(mutant).embedding, simulated)


def test_mutants_can_be_selected_and_become_elites() -> None:
    agent, rewards = search(40, num_policy_candidates=1, num_prior_candidates=0, num_mutants=50)
    without_action = [transition for transition in agent.history if transition.sample.action is None]
    assert len(without_action) > 25
    assert max(rewards[10:]) > max(rewards[:10])
    assert max(float(transition.residual.abs().max()) for transition in without_action) < 1e-4
