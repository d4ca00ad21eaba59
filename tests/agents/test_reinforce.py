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
from nases_env.search import SearchArgs, SearchLoop, load_args
from tests.agents.driving import drive_synthetic, evaluation, hamming_distance, synthetic_env
from tests.commands import run_here, script
from tests.search.limited import limited_env


def search(budget: int, in_flight: int = 1, **options: Any) -> tuple[Reinforce, list[float]]:
    args = Args(budget=budget, **options)
    env = synthetic_env(args.seed)
    agent = Reinforce(env, args)
    return agent, drive_synthetic(agent, env, budget, in_flight)[1]


def test_beats_random_search_over_20_seeds_at_the_same_budget() -> None:
    differences = []
    for seed in range(20):
        env = synthetic_env(seed)
        random_rewards = drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 40)[1]
        differences.append(max(search(40, seed=seed)[1]) - max(random_rewards))
    assert np.mean(differences) > 3 * np.std(differences, ddof=1) / np.sqrt(20)


def test_policy_gradient_alone_raises_the_mean_reward() -> None:
    """Without elites and mutations, only the weights of the controller can learn."""
    options = {"std": 0.5, "advantage": "rank", "train_freq": 10, "gradient_steps": 8, "learning_rate": 6e-3}
    gains = []
    for seed in range(4):
        _, rewards = search(200, seed=seed, **{**PAPER, "clip_range": 0.2, "max_grad_norm": 1.0, **options})
        gains.append(np.mean(rewards[-50:]) - np.mean(rewards[:50]))
    assert np.mean(gains) > 0.04


def test_infeasible_children_do_not_count_as_warm_up() -> None:
    env = limited_env()
    agent = Reinforce(env, Args(learning_starts=6))
    loop = SearchLoop(env, 9)
    loop.run(agent)
    assert loop.num_infeasible > 9
    assert [transition.sample.log_prob is None for transition in agent.history] == [True] * 6 + [False] * 3


def test_paper_preset_leaves_a_region_without_feasible_children() -> None:
    env = limited_env(seed=1)
    assert env.screen(env.architecture) is not None
    loop = SearchLoop(env, 20)
    loop.run(Reinforce(env, Args(**PAPER)))
    assert len(loop.trials) == 20


@pytest.mark.parametrize("learning_starts", [1, 1000])
def test_repeats_in_an_exhausted_space_are_feasible(learning_starts: int) -> None:
    env = limited_env(limit=68)
    agent = Reinforce(env, Args(learning_starts=learning_starts))
    agent.filter_unseen = lambda samples: []  # type: ignore[method-assign]
    proposals = agent.ask(4)
    assert all(env.screen(proposal.architecture) is None for proposal in proposals)


def test_controller_starts_with_the_weights_of_the_simulator() -> None:
    env = synthetic_env()
    vectors = torch.rand(4, 40)
    agent = Reinforce(env, Args())
    torch.testing.assert_close(agent.controller(vectors), env.embedding.simulator(vectors), rtol=0, atol=0)
    random = Reinforce(env, Args(init="random"))
    assert not torch.allclose(random.controller(vectors), agent.controller(vectors))


def test_paper_preset_reads_the_last_child_and_samples_around_the_controller_output() -> None:
    agent, _ = search(200, **{**PAPER, "std": 0.5, "learning_rate": 1e-12})
    space = agent.env.search_space
    samples = [transition.sample for transition in agent.history]
    children = torch.from_numpy(np.stack([space.encode(sample.architecture) for sample in samples]))
    states = torch.stack([sample.state for sample in samples])
    assert torch.equal(states[1:], children[:-1])
    with torch.no_grad():
        noise = torch.stack([sample.embedding for sample in samples]) - agent.controller(states)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_paper_preset_takes_a_plain_gradient_step_per_child() -> None:
    env = synthetic_env()
    agent = Reinforce(env, Args(**PAPER, std=0.5))
    (first,) = agent.ask()
    agent.tell(first, evaluation(first.architecture, 0.5))  # equals its baseline: zero gradient
    (second,) = agent.ask()
    assert isinstance(second, PolicySample)
    mean = agent.controller(second.state[None])[0]
    mean.retain_grad()
    (-log_density(second.embedding, mean, agent.log_std) * 0.2).backward()  # type: ignore[no-untyped-call]
    expected = [parameter.grad.clone() for parameter in agent.controller.parameters() if parameter.grad is not None]
    agent.tell(second, evaluation(second.architecture, 0.7))
    for parameter, gradient in zip(agent.controller.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_unseen_avoids_duplicates() -> None:
    narrow: dict[str, Any] = {"std": 0.01, "num_mutations": 0, "learning_starts": 1, "residual": False}
    with_duplicates, _ = search(30, unseen=False, **narrow)
    assert len(with_duplicates.proposed) < 30
    without_duplicates, _ = search(30, unseen=True, **narrow)
    assert len(without_duplicates.proposed) == 30


def test_proposal_nearest_to_the_read_child_is_evaluated() -> None:
    def mean_distance(num_proposals: int) -> float:
        agent, _ = search(40, num_proposals=num_proposals)
        samples = [transition.sample for transition in agent.history[20:]]
        return float(np.mean([agent._hamming_distance(sample) for sample in samples]))

    assert mean_distance(32) < mean_distance(1) / 2


def test_children_in_flight_are_distinct_and_results_may_arrive_in_any_order() -> None:
    agent, rewards = search(60, in_flight=7)
    assert len(agent.proposed) == 60
    assert [transition.reward for transition in agent.ranking] == sorted(rewards, reverse=True)


def test_elites_are_mutated() -> None:
    agent, _ = search(25, elite_geometric_decay=0.0)
    best = agent.ranking[0].sample.architecture
    for mutations in (0, 1, 2):
        states, _ = agent.sample_states(np.full(20, mutations))
        distances = [hamming_distance(agent.env.search_space.decode(state.numpy()), best) for state in states]
        assert max(distances) == mutations


def test_with_residual_the_policy_mean_decodes_to_the_elite() -> None:
    agent, _ = search(40, num_mutations=0, elite_geometric_decay=0.0, learning_rate=1e-12)
    best = agent.ranking[0].sample
    states, offsets = agent.sample_states(np.zeros(1, np.int64))
    child = agent.env.decode_batch((agent.controller(states) + offsets).detach().numpy() / ACTION_SCALE)[0]
    assert child.key == best.architecture.key


def test_reward_shaping_and_advantages() -> None:
    env = synthetic_env()
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
    agent = Reinforce(synthetic_env(), Args(advantage="moving-average", baseline_decay=0.5, train_freq=2, learning_starts=0))
    logged = []
    for valid in (0.2, 0.4, 0.5, 0.7):
        (proposal,) = agent.ask()
        logged.append(agent.tell(proposal, evaluation(proposal.architecture, valid)))
    # Mean of the first batch, then half a step toward each reward: 0.3, 0.25, 0.325, 0.4125, 0.55625.
    assert agent.baseline == pytest.approx(0.55625)
    assert [bool(metrics) for metrics in logged] == [False, True, False, True]


def test_children_before_learning_starts_are_standard_normal_and_not_trained_on() -> None:
    agent, _ = search(200, learning_starts=200)
    embeddings = torch.stack([transition.sample.embedding for transition in agent.history])
    assert float(embeddings.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(agent.controller(torch.ones(1, 40)), agent.reference_controller(torch.ones(1, 40)))


@pytest.mark.parametrize("budget", [30, 40, 100, 300])
def test_defaults_learn_before_the_last_children(budget: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    reinforce.main(Args(env_id="NASES-Synthetic-v0", budget=budget, run_dir=run_dir))
    steps = [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("update/policy/loss")]
    assert sum(step <= budget - 10 for step in steps) >= 3


def test_resumed_search_keeps_its_schedule(tmp_path: Path) -> None:
    options: dict[str, Any] = {"env_id": "NASES-Synthetic-v0", "budget": 20}
    reinforce.main(Args(**options, run_dir=tmp_path / "run"))
    resumed = load_args(Args, tmp_path / "run")
    assert (resumed.learning_starts, resumed.train_freq) == (10, 1)
    reinforce.main(dataclasses.replace(resumed, budget=40))
    assert len((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ent_coef": 0.1}, "--ent-coef has no effect without --learn-std; omit it"),
        ({"baseline_decay": 0.5}, "--baseline-decay has no effect with --advantage rank"),
        ({"reads": "last", "num_mutations": 2}, "--num-mutations has no effect with --reads last"),
    ],
)
def test_options_without_effect_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)


def test_command_logs_metrics_of_the_policy(tmp_path: Path) -> None:
    tags = ["loss", "reference_distance", "gradient_norm"]
    for learn_std in (False, True):
        run_dir = tmp_path / str(learn_std)
        reinforce.main(Args(env_id="NASES-Synthetic-v0", budget=45, learn_std=learn_std, run_dir=run_dir))
        events = EventAccumulator(str(run_dir)).Reload()
        logged = {tag for tag in events.Tags()["scalars"] if tag.startswith("update/")}
        assert logged == {f"update/policy/{tag}" for tag in (*tags, *(("entropy", "std") if learn_std else ()))}
        for tag in logged:
            assert [event.step for event in events.Scalars(tag)] == [25, 30, 35, 40, 45]
    config = json.loads((run_dir / "config.json").read_text())
    assert config["arguments"]["learning_rate"] == Args().learning_rate


@pytest.mark.parametrize(
    "options", [{"std": 0}, {"train_freq": 0}, {"learning_rate": float("nan")}, {"elite_geometric_decay": 1.0}]
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)


def test_paper_preset_sets_the_options_that_are_not_given(tmp_path: Path) -> None:
    options = ("--env-id", "NASES-Synthetic-v0", "--preset", "paper", "--std", "0.3", "--budget", "3")
    result = run_here(script(Path(reinforce.__file__)), *options, "--run-dir", str(tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["arguments"]
    assert config["preset"] == "paper"
    assert config["std"] == 0.3
    for option, value in PAPER.items():
        assert config[option] == value, option
        assert getattr(Args(), option) != value, f"{option} has the same default"
