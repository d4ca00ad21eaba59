"""CMA-ES moves its distribution to good actions, beats random search, and evaluates no architecture twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nases_agents.cma_es import CMAES, Args, main
from nases_agents.random_search import RandomSearch

from nases_env.envs import ACTION_SCALE
from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop
from tests.agents.driving import drive, drive_synthetic, evaluation, synthetic_env
from tests.search.limited import limited_env


def test_beats_random_search_at_the_same_budget() -> None:
    """The actions depend on the rounding of the CPU, so the budget is large enough for a clear difference (0.26)."""
    env = synthetic_env()
    found = [max(drive_synthetic(CMAES(env, Args(seed=seed)), env, 500)[1]) for seed in range(5)]
    random = [max(drive_synthetic(RandomSearch(env, SearchArgs(seed=seed)), env, 500)[1]) for seed in range(5)]
    assert np.mean(found) > np.mean(random) + 0.1


@pytest.mark.parametrize("in_flight", [1, 8])
def test_mean_moves_to_the_best_action(in_flight: int) -> None:
    """The reward is known: it decreases with the distance of the action to a target."""
    env = synthetic_env()
    agent = CMAES(env, Args())
    target = np.full(env.embedding.embedding_size, 0.2)
    pending: list[Any] = []
    for _ in range(450):
        pending += agent.ask(in_flight - len(pending))
        proposal = pending.pop(0)
        distance = float(np.linalg.norm(proposal.action - target))
        agent.tell(proposal, evaluation(proposal.architecture, 1 / (1 + distance)))
    assert agent.num_restarts == 0
    assert np.linalg.norm(agent.optimizer.mean - target) < 0.3 * np.linalg.norm(target)


def test_first_actions_are_those_of_random_embeddings() -> None:
    env = synthetic_env()
    actions = np.stack([proposal.action for proposal in CMAES(env, Args()).ask(300)])  # type: ignore[misc]
    assert np.abs(actions).max() <= 1
    assert np.abs(actions.mean()) < 0.02
    assert actions.std() == pytest.approx(1 / ACTION_SCALE, rel=0.05)
    narrow = np.stack([proposal.action for proposal in CMAES(env, Args(std=0.1)).ask(100)])  # type: ignore[misc]
    assert narrow.std() == pytest.approx(0.1 / ACTION_SCALE, rel=0.05)


def test_actions_decode_to_the_proposed_architectures() -> None:
    env = synthetic_env()
    proposals, _ = drive_synthetic(CMAES(env, Args()), env, 40, in_flight=3)
    for proposal in proposals:
        assert proposal.action is not None
        assert proposal.action.dtype == np.float32
        assert env.decode(proposal.action) == proposal.architecture


def test_distribution_is_updated_after_each_generation() -> None:
    env = synthetic_env()
    agent = CMAES(env, Args(population_size=5))
    logged = [
        agent.tell(proposal, evaluation(proposal.architecture, 0.1 * index)) for index, proposal in enumerate(agent.ask(6))
    ]
    assert logged == [{}] * 4 + [{"cma_es/generation_reward_mean": pytest.approx(0.2)}, {}]
    assert agent.optimizer.generation == 1


def test_repeat_has_the_known_reward_and_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = synthetic_env()
    agent = CMAES(env, Args(population_size=4))
    first, second = agent.ask(2)
    assert first.action is not None
    assert second.action is not None
    agent.tell(first, evaluation(first.architecture, 0.7))
    new = np.full_like(first.action, 0.9)
    actions = iter([first.action, second.action, new])
    monkeypatch.setattr(agent.optimizer, "ask", lambda: next(actions).astype(np.float64))
    (third,) = agent.ask()
    assert third.action is not None
    assert np.array_equal(third.action, new)
    assert [reward for _, reward in agent.generation] == [0.7, 0.7]
    solutions: list[Any] = []
    monkeypatch.setattr(agent.optimizer, "tell", solutions.extend)
    agent.tell(second, evaluation(second.architecture, 0.3))  # both of its samples
    assert [cost for _, cost in solutions] == [-0.7, -0.7, -0.3, -0.3]


def test_restarts_when_no_sample_is_new() -> None:
    env = synthetic_env()
    agent = CMAES(env, Args(std=1e-6))
    proposals = agent.ask(3)  # all samples of so narrow a distribution decode to the same architecture
    assert agent.num_restarts == 2
    assert len({proposal.architecture.key for proposal in proposals}) == 1
    agent.tell(proposals[0], evaluation(proposals[0].architecture, 0.5))
    ((action, reward),) = agent.generation  # samples of the distributions before the restarts are ignored
    assert action is proposals[2].action
    assert reward == 0.5


def test_infeasible_proposals_are_replaced_and_avoided() -> None:
    env = limited_env()
    loop = SearchLoop(env, 100)
    agent = CMAES(env, Args())
    loop.run(agent)
    assert len(loop.trials) == 100
    infeasible = [
        key for key, reward in agent.rewards.items() if key not in {trial.architecture.key for trial in loop.trials}
    ]
    assert len(infeasible) == loop.num_infeasible > 20
    random = SearchLoop(limited_env(), 100)
    random.run(RandomSearch(random.env, SearchArgs()))
    assert loop.num_infeasible < random.num_infeasible / 2


def test_evaluates_no_architecture_twice() -> None:
    env = synthetic_env()
    proposals, _ = drive(CMAES(env, Args()), lambda architecture: env.evaluate(architecture).reward, 300, in_flight=8)
    assert len({proposal.architecture.key for proposal in proposals}) == 300


def test_seed_determines_the_children() -> None:
    env = synthetic_env()
    runs = [drive_synthetic(CMAES(env, Args(seed=seed)), env, 40, in_flight=3)[0] for seed in (0, 0, 1)]
    keys = [[proposal.architecture.key for proposal in run] for run in runs]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_missing_package_is_an_input_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(
        InputError, match=r"CMA-ES requires additional packages .*cmaes.*: pip install 'nases-env\[baselines\]'"
    ):
        main(Args(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="CMA-ES requires"):
        CMAES(synthetic_env(), Args())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 3}, "--population-size must be at least 4, not 3"),
        ({"std": 0.0}, "--std must be a positive number, not 0.0"),
    ],
)
def test_options_out_of_range_are_input_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Args(**options)
