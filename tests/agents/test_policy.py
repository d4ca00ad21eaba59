"""The policy samples near mutated elites, starts as the simulator, and follows its options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nases_agents.elite_reinforce import Args, EliteReinforce
from nases_agents.policy import PRIOR_BATCH_SIZE, log_density, rank_normalize, rank_shares
from torch.distributions import Normal

from nases_env.envs import ACTION_SCALE
from nases_env.errors import InputError
from tests.agents.driving import drive_synthetic, hamming_distance, synthetic_env


def search(budget: int, args: Args) -> EliteReinforce:
    env = synthetic_env(args.seed)
    agent = EliteReinforce(env, args)
    drive_synthetic(agent, env, budget)
    return agent


def test_controller_starts_with_the_weights_of_the_simulator() -> None:
    env = synthetic_env()
    vectors = torch.rand(4, 40)
    agent = EliteReinforce(env, Args())
    torch.testing.assert_close(agent.controller(vectors), env.embedding.simulator(vectors), rtol=0, atol=0)
    random = EliteReinforce(env, Args(init="random"))
    assert not torch.allclose(random.controller(vectors), agent.controller(vectors))


def test_learning_rate_is_an_input_error_without_gradient_steps() -> None:
    Args(gradient_steps=0)
    with pytest.raises(InputError, match="--learning-rate has no effect with --gradient-steps 0; omit it"):
        Args(gradient_steps=0, learning_rate=0.1)


def test_elites_are_mutated() -> None:
    agent = search(25, Args(elite_geometric_decay=0.0))
    best = agent.ranking[0].sample.architecture
    for mutations in (0, 1, 2):
        states, _ = agent.sample_states(np.full(20, mutations))
        distances = [hamming_distance(agent.env.search_space.decode(state.numpy()), best) for state in states]
        assert max(distances) == mutations


def test_with_residual_the_policy_mean_decodes_to_the_elite() -> None:
    agent = search(40, Args(num_mutations=0, elite_geometric_decay=0.0, learning_rate=1e-12))
    best = agent.ranking[0].sample
    states, offsets = agent.sample_states(np.zeros(1, np.int64))
    child = agent.env.decode_batch((agent.controller(states) + offsets).detach().numpy() / ACTION_SCALE)[0]
    assert child.key == best.architecture.key


def test_samples_are_distributed_around_the_controller_output() -> None:
    agent = EliteReinforce(synthetic_env(), Args(std=0.5))
    states, offsets = agent.sample_states(np.zeros(300, np.int64))
    embeddings = torch.stack([sample.embedding for sample in agent.sample(states, offsets + 1, std_scale=2.0)])
    noise = embeddings - agent.controller(states).detach() - 1
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_prior_is_standard_normal() -> None:
    agent = EliteReinforce(synthetic_env(), Args())
    embeddings = torch.stack([sample.embedding for sample in agent.sample_prior(25 * PRIOR_BATCH_SIZE)])
    assert float(embeddings.std()) == pytest.approx(1, abs=0.05)


def test_gradient_steps_raise_the_density_of_samples_with_a_positive_advantage() -> None:
    agent = EliteReinforce(synthetic_env(), Args(std=0.5))
    good, bad = agent.sample(*agent.sample_states(np.zeros(2, np.int64)))
    for _ in range(20):
        metrics = agent.gradient_step([good, bad], torch.tensor([1.0, -1.0]))
    outputs = agent.controller(torch.stack([good.state, bad.state]))
    embeddings = torch.stack([good.embedding, bad.embedding])
    new, old = log_density(embeddings, outputs, agent.log_std).tolist(), (good.log_prob, bad.log_prob)
    assert new[0] > old[0]
    assert new[1] < old[1]
    assert metrics["policy/reference_distance"] > 0


def test_log_density_is_that_of_a_normal_distribution_up_to_a_constant() -> None:
    embeddings, log_std = torch.randn(5, 20), torch.full((20,), -0.7)
    expected = Normal(torch.ones(20), log_std.exp()).log_prob(embeddings).sum(1)  # type: ignore[no-untyped-call]
    difference = log_density(embeddings, torch.ones(20), log_std) - expected
    torch.testing.assert_close(difference, difference[:1].expand(5))


def test_ranks_are_normalized_to_quantiles_of_the_normal_distribution() -> None:
    expected = torch.special.ndtri(torch.tensor([1 / 6, 3 / 6, 5 / 6], dtype=torch.float64))
    assert torch.equal(rank_normalize(torch.tensor([0.1, 0.2, 9.0])), expected)
    assert rank_normalize(torch.tensor([0.3, 0.3])).tolist() == [0, 0]


def test_equal_values_count_half_in_the_share_of_values_below() -> None:
    assert rank_shares(torch.tensor([0.9, 0.1, 0.9, 0.5])).tolist() == [3 / 4, 1 / 8, 3 / 4, 3 / 8]
