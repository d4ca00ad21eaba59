"""Searches that end after a number of CPU seconds, recorded child by child."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nases_agents import elite_reinforce, model_assisted, random_search, regularized_evolution

from benchmarks.common.searches import seconds_of_process
from nases_env.atomic_io import write_atomically
from nases_env.devices import resolve_device
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Evaluation, Limits, Status
from nases_env.evaluation.training import TRAINING_VERSION
from nases_env.execution import ExecutionSettings
from nases_env.hashing import sha256_hex
from nases_env.search import SearchArgs, SearchCallback, SearchLoop, Trial, make_env
from nases_env.search.agent import Agent
from nases_env.search.time_budget import UNLIMITED_BUDGET

NUM_FINALISTS = 5  # as by default in a search


class Entry(NamedTuple):
    """An agent with its default options, and its label in the table."""

    label: str
    agent: type[Agent]
    options: SearchArgs


AGENTS: dict[str, Entry] = {
    "random_search": Entry("random search", random_search.RandomSearch, random_search.Args()),
    "regularized_evolution": Entry(
        "regularized evolution", regularized_evolution.RegularizedEvolution, regularized_evolution.Args()
    ),
    "elite_reinforce": Entry("REINFORCE with elites", elite_reinforce.EliteReinforce, elite_reinforce.Args()),
    "model_assisted": Entry("model-assisted REINFORCE", model_assisted.ModelAssisted, model_assisted.Args()),
}
"""The compared agents by name."""


@dataclass(frozen=True)
class Child:
    """A recorded child of a search.

    Attributes:
        seconds: seconds of the search until the child was evaluated.
        decisions: the decisions of its architecture.
        evaluation: its evaluation.
    """

    seconds: float
    decisions: tuple[int, ...]
    evaluation: Evaluation


class Recorded(NamedTuple):
    """The content of the file of a search.

    Attributes:
        children: the children in their order.
        chosen: the key of the best child, chosen among the finalists, by the seconds of the search as text.
    """

    children: list[Child]
    chosen: dict[str, str]


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        agent: name of the agent.
        seed: seed of the agent, the validation split and the children.
        seconds: the search ends with the child during which this time passes.
        env_id: id of the environment.
        preset: preset of the children.
        settings: the settings of the children.
        data_dir: directory of the data set; None: ``NASES_DATA_DIR``.
        device: torch device.
        images: digest of the images; None for a fixed data set.
        work_dir: directory of the results.
        search_space: name of the search space; None: that of the environment.
        limits: limits of the children.
    """

    agent: str
    seed: int
    seconds: float
    env_id: str
    preset: str
    settings: ChildSettings
    data_dir: str | None
    device: str
    images: str | None
    work_dir: Path
    search_space: str | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def path(self) -> Path:
        """The file with the children. Searches that differ only in ``seconds`` share it, as one continues the other."""
        options = dataclasses.replace(self.options, data_dir=None, device=resolve_device(self.device).type)
        identity = [TRAINING_VERSION, self.agent, dataclasses.asdict(options)]
        if self.images is not None:
            identity.append(self.images)
        digest = sha256_hex(json.dumps(identity, default=str))
        return self.work_dir / "searches" / f"{self.agent}-{self.seed}-{digest[:16]}.json"

    @property
    def options(self) -> SearchArgs:
        """All options of the agent and of the environment."""
        return dataclasses.replace(
            AGENTS[self.agent].options,
            env_id=self.env_id,
            budget=UNLIMITED_BUDGET,
            seed=self.seed,
            preset=self.preset,
            data_dir=self.data_dir,
            device=self.device,
            search_space=self.search_space,
            limits=self.limits,
            child=self.settings,
        )

    def read(self) -> Recorded:
        """Return everything that is recorded."""
        try:
            content: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return Recorded([], {})
        children = [
            Child(record["seconds"], tuple(record["decisions"]), Evaluation.from_dict(record["evaluation"]))
            for record in content["children"]
        ]
        return Recorded(children, content["chosen"])

    @property
    def is_finished(self) -> bool:
        """Whether the search has ended after ``seconds``."""
        return self.children() is not None

    def children(self) -> list[Child] | None:
        """Return the children up to the one during which ``seconds`` passed; None if the search is not finished."""
        recorded = self.read()
        return _until(recorded.children, self.seconds) if str(self.seconds) in recorded.chosen else None

    def best_child(self) -> Child | None:
        """Return the child that was chosen among the finalists; None if the search is not finished."""
        recorded = self.read()
        key = recorded.chosen.get(str(self.seconds))
        return next((child for child in recorded.children if child.evaluation.key == key), None)

    def run(self) -> None:
        """Run the search in this process, or resume it: replay the recorded children, then evaluate others.

        Raises:
            InputError: if data is missing, or the agent proposes other children than those recorded.
        """
        recorded, options = self.read(), self.options
        recorder = _Recorder(self, recorded)
        env = make_env(options)
        env.reset(seed=self.seed)  # loads the data, which no agent has to pay for
        env.start(ExecutionSettings(executor="serial"))
        with SearchLoop(
            env,
            UNLIMITED_BUDGET,
            callbacks=[recorder],
            recorded=_with_is_new(recorded.children),
            num_replayed=len(recorded.children),
            num_finalists=NUM_FINALISTS,
        ) as loop:
            loop.run(AGENTS[self.agent].agent(env, options), options.ask_batch_size)  # type: ignore[call-arg]
            assert loop.best is not None
            recorded.chosen[str(self.seconds)] = loop.best.evaluation.key
            recorder.write()


def _with_is_new(children: Sequence[Child]) -> list[tuple[Evaluation, bool]]:
    """Return the evaluations of ``children``, each with whether it is the first one of its architecture."""
    first: dict[str, Child] = {}
    return [(child.evaluation, first.setdefault(child.evaluation.key, child) is child) for child in children]


class _Recorder(SearchCallback):
    """Writes each child with the seconds of the search to the file, and stops the search."""

    def __init__(self, search: Search, recorded: Recorded) -> None:
        self._search, self._recorded, self._num_recorded = search, recorded, len(recorded.children)
        self._device = resolve_device(search.device)
        self._start = 0.0

    def on_start(self, loop: SearchLoop) -> None:
        self._start = seconds_of_process(self._device)

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        now = seconds_of_process(self._device)
        if trial.number <= self._num_recorded:
            self._start = now - self._recorded.children[trial.number - 1].seconds
        else:
            decisions = tuple(int(decision) for decision in trial.architecture.decisions)
            self._recorded.children.append(Child(now - self._start, decisions, trial.evaluation))
            self.write()
        if now - self._start >= self._search.seconds:
            loop.stop()

    def write(self) -> None:
        """Write everything that is recorded to the file."""
        content = {
            "agent": self._search.agent,
            "seed": self._search.seed,
            "children": [
                {"seconds": child.seconds, "decisions": child.decisions, "evaluation": child.evaluation.to_dict()}
                for child in self._recorded.children
            ],
            "chosen": self._recorded.chosen,
        }
        write_atomically(self._search.path, (json.dumps(content) + "\n").encode())


def _until(children: list[Child], seconds: float) -> list[Child]:
    """Return the children up to the one during which ``seconds`` passed."""
    return children[: 1 + sum(child.seconds < seconds for child in children)]


def median_child(children: list[Child]) -> Child:
    """Return the child with the median reward of all distinct trained ones; of an even number, the lower one.

    Raises:
        InputError: if no child could be trained.
    """
    distinct = {child.evaluation.key: child for child in children if child.evaluation.status is Status.OK}
    if not distinct:
        raise InputError("no child of a random search could be trained; choose another --preset")
    ordered = sorted(distinct.values(), key=lambda child: child.evaluation.reward)
    return ordered[(len(ordered) - 1) // 2]
