"""The loop: what is in flight, in which order results are told, and that the executor does not matter."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from nases_agents.reinforce import Args, Reinforce

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import Executor, SerialExecutor
from nases_env.search import SearchLoop, SearchRun
from nases_env.search.agent import Agent, Proposal
from nases_env.search.run_dir import read_trajectory


class Backwards(Executor):
    """Evaluates in the background; of those in flight the one submitted last is ready first."""

    in_background = True

    def __init__(self, inner: Executor, num_at_once: int) -> None:
        self.evaluator = inner.evaluator
        self.inner = inner
        self.num_at_once = num_at_once
        self.pending: list[tuple[Any, int, Future[Evaluation]]] = []
        self.most_in_flight = 0

    def submit(self, architecture: Any, seed: int) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self.pending.append((architecture, seed, future))
        self.most_in_flight = max(self.most_in_flight, len(self.pending))
        if len(self.pending) == self.num_at_once:
            threading.Thread(target=self.finish, args=(self.pending[::-1],)).start()
            self.pending = []
        return future

    def finish(self, children: list[tuple[Any, int, Future[Evaluation]]]) -> None:
        for architecture, seed, future in children:
            future.set_result(self.inner.submit(architecture, seed).result())


class Watched(Agent):
    """Random search that notes what it was asked and told."""

    def __init__(self, env: NASESEnv) -> None:
        self.space = env.search_space
        self.rng = np.random.default_rng(0)
        self.events: list[tuple[str, str]] = []

    def ask(self, num_children: int = 1) -> list[Proposal]:
        proposals = [Proposal(self.space.sample(self.rng)) for _ in range(num_children)]
        self.events += [("ask", proposal.architecture.key) for proposal in proposals]
        return proposals

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert proposal.architecture.key == evaluation.key
        self.events.append(("tell", evaluation.key))
        return {}


def search_with(num_envs: int, budget: int) -> SearchLoop:
    env = gym.make("NASES-Synthetic-v0")
    env.reset(seed=0)
    return SearchLoop(env, budget, num_envs)


@pytest.mark.parametrize(("num_envs", "ask_batch_size"), [(1, 1), (3, 1), (2, 5), (6, 2), (5, 3)])
def test_told_in_the_order_of_asking_and_never_more_in_flight_than_allowed(num_envs: int, ask_batch_size: int) -> None:
    search = search_with(num_envs, 17)
    agent = Watched(search.nases)
    search.run(agent, ask_batch_size)
    asked = [key for event, key in agent.events if event == "ask"]
    told = [key for event, key in agent.events if event == "tell"]
    assert asked == told == [child.evaluation.key for child in search.children]
    assert len(told) == 17
    in_flight = np.cumsum([1 if event == "ask" else -1 for event, _ in agent.events])
    assert in_flight.max() <= max(num_envs, ask_batch_size)
    full = in_flight[: -max(num_envs, ask_batch_size)].max()
    assert full == max(num_envs, ask_batch_size)


def test_which_child_is_ready_first_does_not_matter() -> None:
    trajectories = []
    for background in (False, True):
        search = search_with(4, 24)
        if background:
            search.nases._executor = Backwards(SerialExecutor(search.nases.evaluator), num_at_once=4)
        search.run(Reinforce(search.nases, Args(num_warmup=6, batch_size=3, num_envs=4)), ask_batch_size=4)
        trajectories.append([child.evaluation for child in search.children])
    assert trajectories[0] == trajectories[1]


def test_children_beyond_the_budget_are_left_out() -> None:
    search = search_with(4, 6)
    space = search.nases.search_space
    rng = np.random.default_rng(0)
    actions = np.zeros((4, 20), np.float32)
    first = search.evaluate_all([space.sample(rng) for _ in range(4)], actions)
    second = search.evaluate_all([space.sample(rng) for _ in range(4)], actions)
    assert [evaluation.status for evaluation in first] == [Status.OK] * 4
    assert [evaluation.status for evaluation in second] == [Status.OK] * 2 + [Status.FAILED] * 2
    assert search.done
    assert len(search.children) == 6


def trajectory(run_dir: Path) -> list[dict[str, Any]]:
    return [{**record, "seconds": None} for record in read_trajectory(run_dir)]


def search_digits(run_dir: Path, **execution: Any) -> SearchRun:
    from nases_env.execution import ExecutionSettings

    args = Args(
        env_id="NASES-Digits-v0",
        preset="smoke",
        budget=5,
        num_envs=2,
        num_warmup=3,
        run_dir=run_dir,
        execution=ExecutionSettings(**execution),
    )
    with SearchRun(args, agent="reinforce") as search:
        search.run(Reinforce(search.nases, args))
    return search


def test_the_executor_does_not_matter(tmp_path: Path) -> None:
    search_digits(tmp_path / "serial", executor="serial")
    search_digits(tmp_path / "processes", num_workers=2)
    assert trajectory(tmp_path / "serial") == trajectory(tmp_path / "processes")


def test_a_second_search_takes_everything_from_a_shared_store(tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    first = search_digits(tmp_path / "first", executor="serial", store=store)
    second = search_digits(tmp_path / "second", executor="serial", store=store)
    assert first.nases.executor.num_from_store == 0
    assert second.nases.executor.num_from_store == 5
    assert list(read_trajectory(tmp_path / "first")) == list(read_trajectory(tmp_path / "second"))
