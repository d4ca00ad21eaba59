"""The search loop: children in flight, the order of results, callbacks, and independence of the executor."""

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
from nases_env.execution import CachingExecutor, ExecutionSettings, Executor, SerialExecutor
from nases_env.search import SearchCallback, SearchLoop, SearchRun
from nases_env.search.agent import Agent, Proposal
from nases_env.search.run_dir import read_trajectory
from tests.search.acting import CallAfter, RandomActions, Recorder


class ReverseExecutor(Executor):
    """Evaluates batches in the background, in the reverse order of submission."""

    in_background = True

    def __init__(self, inner: Executor, num_concurrent: int) -> None:
        self.evaluator = inner.evaluator
        self.inner = inner
        self.num_concurrent = num_concurrent
        self.pending: list[tuple[Any, int, Future[Evaluation]]] = []
        self.most_in_flight = 0

    def submit(self, architecture: Any, seed: int) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self.pending.append((architecture, seed, future))
        self.most_in_flight = max(self.most_in_flight, len(self.pending))
        if len(self.pending) == self.num_concurrent:
            threading.Thread(target=self.finish, args=(self.pending[::-1],)).start()
            self.pending = []
        return future

    def finish(self, children: list[tuple[Any, int, Future[Evaluation]]]) -> None:
        for architecture, seed, future in children:
            future.set_result(self.inner.submit(architecture, seed).result())


class RecordingAgent(Agent):
    """Random search that records the calls of ``ask`` and ``tell``."""

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
    return SearchLoop(synthetic_env(), budget, num_envs)


def synthetic_env() -> NASESEnv:
    env = gym.make("NASES-Synthetic-v0").unwrapped
    assert isinstance(env, NASESEnv)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize(("num_envs", "ask_batch_size"), [(1, 1), (3, 1), (2, 5), (6, 2), (5, 3)])
def test_results_are_reported_in_proposal_order_within_the_window(num_envs: int, ask_batch_size: int) -> None:
    search = search_with(num_envs, 17)
    agent = RecordingAgent(search.env)
    search.run(agent, ask_batch_size)
    asked = [key for event, key in agent.events if event == "ask"]
    reported = [key for event, key in agent.events if event == "tell"]
    assert asked == reported == [child.evaluation.key for child in search.trials]
    assert len(reported) == 17
    in_flight = np.cumsum([1 if event == "ask" else -1 for event, _ in agent.events])
    assert in_flight.max() <= max(num_envs, ask_batch_size)
    full = in_flight[: -max(num_envs, ask_batch_size)].max()
    assert full == max(num_envs, ask_batch_size)


def test_trajectory_does_not_depend_on_the_order_of_completion() -> None:
    trajectories = []
    for background in (False, True):
        env = synthetic_env()
        inner: Executor = SerialExecutor(env.evaluator)
        if background:
            inner = ReverseExecutor(inner, num_concurrent=4)
        env._executor = CachingExecutor(inner, None, env.search_space.to_json)
        search = SearchLoop(env, 24, 4)
        search.run(Reinforce(env, Args(learning_starts=6, train_freq=3, num_envs=4)), ask_batch_size=4)
        trajectories.append([child.evaluation for child in search.trials])
    assert trajectories[0] == trajectories[1]


def test_architectures_beyond_the_budget_are_not_evaluated() -> None:
    search = search_with(4, 6)
    space = search.env.search_space
    rng = np.random.default_rng(0)
    actions = np.zeros((4, 20), np.float32)
    first = search.evaluate_all([space.sample(rng) for _ in range(4)], actions)
    second = search.evaluate_all([space.sample(rng) for _ in range(4)], actions)
    assert [evaluation.status for evaluation in first] == [Status.OK] * 4
    assert [evaluation.status for evaluation in second] == [Status.OK] * 2 + [Status.FAILED] * 2
    assert search.done
    assert len(search.trials) == 6


def test_callbacks_are_called_in_order() -> None:
    recorder = Recorder()
    with SearchLoop(synthetic_env(), 2, callbacks=[recorder]) as loop:
        loop.run(RandomActions(loop.env))
    metrics = ["metrics ['policy/entropy'] after 1", "metrics ['policy/entropy'] after 2"]
    assert recorder.events == ["start", "trial 1", metrics[0], "trial 2", metrics[1], "end"]


def test_on_end_of_every_callback_is_called_even_if_one_fails() -> None:
    class Failing(SearchCallback):
        def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
            raise OSError("disk full")

    def interrupt(loop: SearchLoop) -> None:
        raise KeyboardInterrupt

    recorder = Recorder()
    with (
        pytest.raises(OSError, match="disk full"),
        SearchLoop(synthetic_env(), 5, callbacks=[CallAfter(2, interrupt), Failing(), recorder]) as loop,
    ):
        loop.run(RandomActions(loop.env))
    assert recorder.events[-1] == "interrupted"


def test_callback_can_stop_the_search() -> None:
    with SearchLoop(synthetic_env(), 50, num_envs=4, callbacks=[CallAfter(3, SearchLoop.stop)]) as loop:
        loop.run(RandomActions(loop.env))
    assert loop.done
    assert len(loop.trials) == 3


def trajectory(run_dir: Path) -> list[dict[str, Any]]:
    return [{**record, "seconds": None} for record in read_trajectory(run_dir)]


def search_digits(run_dir: Path, **execution: Any) -> SearchRun:
    args = Args(
        env_id="NASES-Digits-v0",
        preset="smoke",
        budget=5,
        num_envs=2,
        learning_starts=3,
        run_dir=run_dir,
        execution=ExecutionSettings(**execution),
    )
    with SearchRun(args, agent="reinforce") as run:
        run.search(Reinforce(run.env, args))
    return run


def test_trajectory_does_not_depend_on_the_executor(tmp_path: Path) -> None:
    search_digits(tmp_path / "serial", executor="serial")
    search_digits(tmp_path / "processes", num_workers=2)
    assert trajectory(tmp_path / "serial") == trajectory(tmp_path / "processes")


def test_second_search_reuses_the_results_of_a_shared_store(tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    first = search_digits(tmp_path / "first", executor="serial", store=store)
    second = search_digits(tmp_path / "second", executor="serial", store=store)
    assert first.env.executor.num_from_store == 0
    assert second.env.executor.num_from_store == 5
    assert list(read_trajectory(tmp_path / "first")) == list(read_trajectory(tmp_path / "second"))
