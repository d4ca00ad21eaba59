"""What a report shows of a search, as plain data: the page knows nothing about files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nases_env.search_spaces.graph import CellGraph

Numbers = NDArray[np.float64]

OK = "ok"  # status of a child that has a result
FAILED = "failed"  # status of a child that could not be evaluated because of the machine


@dataclass(frozen=True, slots=True)
class Child:
    """One trial of a search.

    Attributes:
        number: position in the history, from 1.
        key: canonical key of the architecture.
        status: how the evaluation ended.
        reward: the reward in [0, 1].
        num_params: number of parameters; 0 if no network was built.
        num_flops: floating-point operations of a forward pass of one image; 0 if no network was built.
        num_epochs: number of completed epochs.
        seconds: wall time of the evaluation; at a higher rung, including that of the lower rungs.
        device: the device of the evaluation.
        fidelity: the rung; None in a search without rungs.
        is_new: whether this is the first trial of the architecture, or the first one at this rung.
        is_promotion: whether the child was promoted to a higher rung.
        reason: one line that explains a failure; may be empty.
    """

    number: int
    key: str
    status: str
    reward: float
    num_params: int = 0
    num_flops: int = 0
    num_epochs: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    fidelity: int | None = None
    is_new: bool = True
    is_promotion: bool = False
    reason: str = ""

    @property
    def rank(self) -> tuple[int, float]:
        """The rung (-1 without a result) and the reward: a result at a higher rung is better."""
        return (self.fidelity or 0 if self.status == OK else -1, self.reward)


@dataclass(frozen=True)
class Finalist:
    """A finalist: number of its trial, and the reward of its second evaluation and the mean, both in [0, 1]."""

    number: int
    second: Child
    mean_reward: float

    @property
    def is_confirmed(self) -> bool:
        """Whether the second evaluation is a result; otherwise, ``mean_reward`` is the first reward."""
        return self.second.status != FAILED


@dataclass(frozen=True)
class Design:
    """How the architecture of a child is shown: as cells, or as text if its search space is not a built-in one."""

    number: int
    genotype: str
    graphs: tuple[CellGraph, ...] = ()


@dataclass(frozen=True)
class Curve:
    """The training accuracy in [0, 1] of a child after each epoch."""

    number: int
    epochs: Sequence[int]
    accuracies: Sequence[float]


@dataclass(frozen=True)
class Latency:
    """The seconds of a forward pass of one image of a child: the quartiles of ``num_passes`` passes."""

    number: int
    low: float
    median: float
    high: float
    num_passes: int


@dataclass(frozen=True)
class Run:
    """A search.

    Attributes:
        name: path of the run directory, as the user wrote it.
        agent: name of the agent.
        env_id: id of the environment.
        seed: seed of the search.
        budget: number of children that the search is to evaluate.
        state: ``finished``, ``running`` or ``stopped``.
        started: when the search was started or resumed, in ISO format.
        finished: when it finished; None if it has not.
        command: the command line.
        versions: versions by name.
        settings: everything else that determines the results, as text by name.
        digest: equal for two searches if and only if their children are evaluated in the same way.
        is_trained: whether the children are networks that were trained.
        is_embedded: whether the points in ``vectors`` are actions; otherwise they are architecture vectors.
        vectors: a point for each child, shape (children, dimensions); None if there is none.
        children: the trials in order.
        best: number of the best child; None without a result.
        best_reward: its reward, or the mean of both rewards of a finalist; 0 without a result.
        finalists: the finalists, best first.
        designs: the architectures of the best children, best first.
        curves: the learning curves of the best children, best first.
        operators: share of each operator among all branches of all children and of the best tenth; empty if not known.
        latencies: the latency of the best children, best first; empty unless it was measured for this report.
        processor: the processor on which it was measured.
        notes: what could not be read, and why.
    """

    name: str
    agent: str
    env_id: str
    seed: int
    budget: int
    state: str
    started: str
    finished: str | None
    command: str
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    digest: str
    is_trained: bool
    children: Sequence[Child]
    is_embedded: bool = False
    vectors: Numbers | None = field(default=None, compare=False)
    best: int | None = None
    best_reward: float = 0.0
    finalists: Sequence[Finalist] = ()
    designs: Sequence[Design] = ()
    curves: Sequence[Curve] = ()
    operators: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    latencies: Sequence[Latency] = ()
    processor: str = ""
    notes: Sequence[str] = ()

    @cached_property
    def rewards(self) -> Numbers:
        """The reward of each trial that is not a promotion, in order."""
        return np.array([child.reward for child in self.children if not child.is_promotion], dtype=np.float64)

    @cached_property
    def failures(self) -> Sequence[Child]:
        """The children without a result."""
        return [child for child in self.children if child.status != OK]

    @cached_property
    def has_result(self) -> bool:
        """Whether at least one child has a result."""
        return len(self.failures) < len(self.children)

    @cached_property
    def num_distinct(self) -> int:
        """Number of distinct architectures."""
        return len({child.key for child in self.children})

    @cached_property
    def seconds_by_device(self) -> Mapping[str, float]:
        """Wall time of all evaluations by device, including the second evaluations of finalists."""
        # A promoted child is listed once per rung; its last result includes the time of the lower rungs.
        last = {child.key: child for child in self.children if child.is_new}
        seconds: dict[str, float] = {}
        for child in [*last.values(), *(finalist.second for finalist in self.finalists)]:
            seconds[child.device] = seconds.get(child.device, 0.0) + child.seconds
        return seconds

    def child(self, number: int) -> Child:
        """Return the child with this number."""
        return self.children[number - 1]

    def ranking(self) -> list[Child]:
        """Return the result of ``rank`` for this search."""
        return rank(self.children, self.finalists)


def rank(children: Sequence[Child], finalists: Sequence[Finalist]) -> list[Child]:
    """Return the children with a result, the best first, each architecture once; finalists precede the others."""
    best: dict[str, Child] = {}
    for child in children:
        if child.status == OK and (child.key not in best or child.rank > best[child.key].rank):
            best[child.key] = child
    places = {finalist.number: place for place, finalist in enumerate(finalists)}
    return sorted(best.values(), key=lambda child: (places.get(child.number, len(places)), *(-each for each in child.rank)))
