"""The search loop: children in flight, the order of results, callbacks, and independence of the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import ClipReward, TransformReward
from nases_agents import (
    bayesian_optimization,
    cma_es,
    discrete_reinforce,
    elite_reinforce,
    local_search,
    model_assisted,
    regularized_evolution,
    tpe,
)
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.cma_es import CMAES
from nases_agents.discrete_reinforce import DiscreteReinforce
from nases_agents.elite_reinforce import EliteReinforce
from nases_agents.local_search import LocalSearch
from nases_agents.model_assisted import ModelAssisted
from nases_agents.random_search import RandomSearch
from nases_agents.regularized_evolution import RegularizedEvolution
from nases_agents.reinforce import Args, Reinforce
from nases_agents.tpe import TPE

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import CachingExecutor, ExecutionSettings, Executor, SerialExecutor
from nases_env.search import SearchArgs, SearchCallback, SearchLoop, SearchRun
from nases_env.search.agent import Agent, Proposal
from nases_env.search.run_dir import read_trajectory
from nases_env.search_spaces import get_search_space
from tests.search.acting import CallAfter, RandomActions, Recorder
from tests.search.limited import limited_env


class ReverseExecutor(Executor):
    """Evaluates batches in the background, in the reverse order of submission."""

    in_background = True

    def __init__(self, inner: Executor, num_concurrent: int) -> None:
        self.evaluator = inner.evaluator
        self.inner = inner
        self.num_concurrent = num_concurrent
        self.pending: list[tuple[Any, int, int | None, Future[Evaluation]]] = []
        self.most_in_flight = 0

    def submit(self, architecture: Any, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self.pending.append((architecture, seed, fidelity, future))
        self.most_in_flight = max(self.most_in_flight, len(self.pending))
        if len(self.pending) == self.num_concurrent:
            threading.Thread(target=self.finish, args=(self.pending[::-1],)).start()
            self.pending = []
        return future

    def finish(self, children: list[tuple[Any, int, int | None, Future[Evaluation]]]) -> None:
        for architecture, seed, fidelity, future in children:
            future.set_result(self.inner.submit(architecture, seed, fidelity).result())


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

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.events.append(("infeasible", proposal.architecture.key))


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
    assert asked[:17] == reported == [child.evaluation.key for child in search.trials]
    assert len(reported) == 17
    assert len(asked) == 17 + -17 % ask_batch_size  # full batches
    in_flight = np.cumsum([1 if event == "ask" else -1 for event, _ in agent.events])
    assert in_flight.max() <= max(num_envs, ask_batch_size)
    full = in_flight[: -max(num_envs, ask_batch_size)].max()
    assert full == max(num_envs, ask_batch_size)


def trajectory_of(env: NASESEnv, num_concurrent: int | None, ask_batch_size: int, **options: Any) -> list[Evaluation]:
    """Return the trajectory of REINFORCE; ``num_concurrent`` children are completed in reverse order, None: in order."""
    inner: Executor = SerialExecutor(env.evaluator)
    if num_concurrent is not None:
        inner = ReverseExecutor(inner, num_concurrent)
    env._executor = CachingExecutor(inner, None, env.search_space.to_json)
    search = SearchLoop(env, 24, 4, **options)
    search.run(Reinforce(env, Args(num_envs=4)), ask_batch_size)
    return [trial.evaluation for trial in search.trials]


def test_trajectory_does_not_depend_on_the_order_of_completion() -> None:
    assert trajectory_of(synthetic_env(), None, 4) == trajectory_of(synthetic_env(), 4, 4)


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


@pytest.mark.parametrize(("num_envs", "ask_batch_size"), [(1, 1), (2, 5)])
def test_infeasible_proposals_are_replaced_and_not_recorded(num_envs: int, ask_batch_size: int) -> None:
    loop = SearchLoop(limited_env(), 12, num_envs)
    agent = RecordingAgent(loop.env)
    loop.run(agent, ask_batch_size)
    keys = {event: [key for name, key in agent.events if name == event] for event in ("ask", "tell", "infeasible")}
    assert [trial.architecture.key for trial in loop.trials] == keys["tell"]
    assert len(keys["tell"]) == 12
    assert len(keys["infeasible"]) == loop.num_infeasible > 12
    feasible = [key for key in keys["ask"] if key not in keys["infeasible"]]
    assert feasible[:12] == keys["tell"]
    assert len(feasible) == 12 + -12 % ask_batch_size  # full batches
    assert all(loop.env.screen(trial.architecture) is None for trial in loop.trials)


def test_search_ends_with_an_error_if_no_proposal_is_feasible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.search.loop.WAIT_SECONDS", 0.0)
    recorder = Recorder()
    loop = SearchLoop(limited_env(limit=3), 5, callbacks=[recorder])
    with pytest.raises(InputError, match=r"1,000 infeasible proposals in a row; .* the size \d\d, more than 3; increase it"):
        loop.run(RecordingAgent(loop.env))
    assert loop.num_infeasible == 1000
    assert recorder.events == ["wait"] * 999  # the progress bar shows the number of infeasible proposals


def test_search_ends_if_only_proposals_beyond_the_budget_are_missing() -> None:
    class Exhausted(RecordingAgent):
        """Proposes twelve feasible architectures, and then infeasible ones."""

        def ask(self, num_children: int = 1) -> list[Proposal]:
            num_left = 12 - sum(event == "ask" for event, _ in self.events)
            feasible = self.space.architecture([0] * self.space.num_decisions)
            children = [feasible] * min(num_left, num_children)
            children += [self.space.sample(self.rng) for _ in range(num_children - len(children))]
            self.events += [("ask", child.key) for child in children]
            return [Proposal(child) for child in children]

    loop = SearchLoop(limited_env(limit=3), 12)
    loop.run(Exhausted(loop.env), ask_batch_size=5)
    assert loop.is_complete
    assert loop.num_children == 12
    loop = SearchLoop(limited_env(limit=3), 13)
    with pytest.raises(InputError, match=r"1,000 infeasible proposals in a row"):
        loop.run(Exhausted(loop.env), ask_batch_size=5)


def test_infeasible_architectures_of_a_vector_environment_have_reward_0_and_are_not_recorded() -> None:
    loop = SearchLoop(limited_env(), 5)
    space, rng = loop.env.search_space, np.random.default_rng(0)
    children = [space.sample(rng) for _ in range(60)]
    screened = [loop.env.screen(child) for child in children]
    evaluations = loop.evaluate_all(children)
    assert [evaluation.key for evaluation in evaluations] == [child.key for child in children]
    assert [child for child in evaluations if child.status is Status.TOO_LARGE] == list(filter(None, screened))
    statuses = [evaluation.status for evaluation, infeasible in zip(evaluations, screened, strict=True) if not infeasible]
    assert statuses == [Status.OK] * 5 + [Status.FAILED] * (len(statuses) - 5)
    assert len(statuses) > len(loop.trials) == 5
    assert {evaluation.reward for evaluation in evaluations if evaluation.status is not Status.OK} == {0.0}


def test_wrappers_of_gymnasium_make_are_accepted() -> None:
    env = gym.make("NASES-Synthetic-v0", max_episode_steps=3)
    env.reset(seed=0)
    loop = SearchLoop(env, 5)
    assert loop.env is env.unwrapped
    loop.run(Reinforce(env, Args()))
    assert len(loop.trials) == 5


AGENTS: dict[str, Callable[[Any], Any]] = {
    "loop": lambda env: SearchLoop(env, 5),
    "bayesian_optimization": lambda env: BayesianOptimization(env, bayesian_optimization.Args()),
    "cma_es": lambda env: CMAES(env, cma_es.Args()),
    "discrete_reinforce": lambda env: DiscreteReinforce(env, discrete_reinforce.Args()),
    "local_search": lambda env: LocalSearch(env, local_search.Args()),
    "model_assisted": lambda env: ModelAssisted(env, model_assisted.Args()),
    "random_search": lambda env: RandomSearch(env, SearchArgs()),
    "regularized_evolution": lambda env: RegularizedEvolution(env, regularized_evolution.Args()),
    "reinforce": lambda env: Reinforce(env, Args()),
    "elite_reinforce": lambda env: EliteReinforce(env, elite_reinforce.Args()),
    "tpe": lambda env: TPE(env, tpe.Args()),
}


@pytest.mark.parametrize("render_mode", ["ansi_list", "rgb_array_list"])
def test_wrappers_of_render_modes_are_accepted(render_mode: str) -> None:
    env = gym.make("NASES-Synthetic-v0", render_mode=render_mode)
    env.unwrapped.reset(seed=0)
    assert SearchLoop(env, 1).env is env.unwrapped


def test_env_that_was_not_reset_is_refused() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        SearchLoop(gym.make("NASES-Synthetic-v0"), 1)


def test_concurrent_search_in_an_env_that_a_step_has_started_is_an_input_error() -> None:
    env = gym.make("NASES-Synthetic-v0")
    env.reset(seed=0)
    env.step(np.zeros(20, np.float32))
    assert SearchLoop(env, 1).env.is_started
    with pytest.raises(InputError, match=r"one child at a time, .* call env\.unwrapped\.start\(max_in_flight=2\) before"):
        SearchLoop(env, 1, num_envs=2)
    env.close()
    SearchLoop(env, 1, num_envs=2).close()


@pytest.mark.parametrize("name", AGENTS)
def test_wrapper_without_effect_is_an_input_error(name: str) -> None:
    env = TransformReward(gym.make("NASES-Synthetic-v0"), lambda reward: 1 - float(reward))
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"the wrapper TransformReward would have no effect, .*; remove it and ") as caught:
        AGENTS[name](env)
    assert "\n" not in str(caught.value)


def test_wrapper_of_a_registered_id_is_an_input_error(tmp_path: Path) -> None:
    spec = gym.spec("NASES-Synthetic-v0")
    wrapper = ClipReward.wrapper_spec(min_reward=0.0, max_reward=0.1)
    gym.register("Clipped-v0", spec.entry_point, additional_wrappers=(wrapper,))
    try:
        with pytest.raises(InputError, match="the wrapper ClipReward would have no effect"):
            SearchRun(Args(env_id="Clipped-v0", run_dir=tmp_path / "run"), agent="reinforce")
    finally:
        del gym.registry["Clipped-v0"]
    assert not (tmp_path / "run").exists()


def test_environment_of_another_kind_is_an_input_error() -> None:
    with pytest.raises(InputError, match="is not an environment for architecture search: it must be a NASESEnv"):
        SearchLoop(gym.make("CartPole-v1"), 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget must be at least 1, not 0"),
        ({"budget": -1}, "budget must be at least 1, not -1"),
        ({"budget": 2.5}, "budget must be an integer, not 2.5"),
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"reduction_factor": 0}, "reduction_factor must be at least 2, not 0"),
        ({"num_finalists": -3}, "num_finalists must be at least 0, not -3"),
        ({"reduction_factor": 2.5}, "reduction_factor must be an integer, not 2.5"),
        ({"num_finalists": 2.5}, "num_finalists must be an integer, not 2.5"),
        ({"num_finalists": 1}, "num_finalists must be 0 or at least 2, not 1"),
    ],
)
def test_numbers_out_of_range_are_input_errors(arguments: dict[str, Any], message: str) -> None:
    env = synthetic_env()
    with pytest.raises(InputError, match=message):
        SearchLoop(env, **{"budget": 5, **arguments})
    assert not env.is_started


@pytest.mark.parametrize("size", [0, 2.5])
def test_invalid_ask_batch_size_is_an_input_error(size: Any) -> None:
    """With 0, the loop would never end."""
    loop = SearchLoop(synthetic_env(), 5)
    with pytest.raises(InputError, match=f"ask_batch_size must be .*, not {size}"):
        loop.run(RandomActions(loop.env), size)


@pytest.mark.parametrize("proposed", [get_search_space("nasbench201").architecture([0] * 6), '{"normal": []}'])
def test_proposal_outside_the_search_space_is_an_input_error(proposed: Any) -> None:
    loop = SearchLoop(synthetic_env(), 5)
    with pytest.raises(InputError, match="is not an Architecture of enas_micro"):
        loop.evaluate_all([proposed])


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


def test_environment_is_closed_and_callbacks_end_if_a_later_one_cannot_start() -> None:
    class Failing(SearchCallback):
        def on_start(self, loop: SearchLoop) -> None:
            raise OSError("disk full")

    env = synthetic_env()
    before, failing, after = Recorder(), Failing(), Recorder()
    with pytest.raises(OSError, match="disk full"), SearchLoop(env, 5, callbacks=[before, failing, after]):
        pass
    assert not env.is_started
    assert before.events == ["start", "interrupted"]
    assert after.events == []


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
        num_finalists=0,
        run_dir=run_dir,
        execution=ExecutionSettings(**execution),
    )
    with SearchRun(args, agent="reinforce") as run:
        run.search(Reinforce(run.env, args))
    return run


@pytest.fixture(scope="module")
def serial(tiny_children: None, without_reports: None, tmp_path_factory: pytest.TempPathFactory) -> SearchRun:
    """A search that trains children in this process."""
    folder = tmp_path_factory.mktemp("serial")
    return search_digits(folder / "run", executor="serial", store=str(folder / "store.sqlite"))


@pytest.mark.usefixtures("tiny_children", "without_reports", "forked_workers")
def test_trajectory_does_not_depend_on_the_executor(serial: SearchRun, tmp_path: Path) -> None:
    search_digits(tmp_path / "processes", num_workers=1)
    assert trajectory(serial.run_dir) == trajectory(tmp_path / "processes")


@pytest.mark.usefixtures("tiny_children", "without_reports")
def test_second_search_reuses_the_results_of_a_shared_store(serial: SearchRun, tmp_path: Path) -> None:
    store = str(serial.run_dir.with_name("store.sqlite"))
    second = search_digits(tmp_path / "second", executor="serial", store=store)
    assert serial.env.executor.num_from_store == 0
    assert second.env.executor.num_from_store == 5
    assert list(read_trajectory(serial.run_dir)) == list(read_trajectory(tmp_path / "second"))
