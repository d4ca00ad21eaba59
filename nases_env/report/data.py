"""What a report shows of a search, as plain data: the page knows nothing about files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nases_env.quantity import ACCURACY, REWARD, Quantity
from nases_env.search_spaces.graph import CellGraph

Numbers = NDArray[np.float64]

OK = "ok"  # status of a child that has a result
UNEVALUATED = ("failed", "timed_out", "out_of_memory")  # the statuses of children that no attempt could evaluate


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
        activation_bytes: peak memory of the activations of one image; 0 if it is not known.
        file_bytes: bytes of the tensors in a weights file; 0 if they are not known.
        latency: measured seconds of a forward pass of one image; 0 if it was not measured.
        valid_accuracy: the validation accuracy, or another metric, in [0, 1], which may be the reward.
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
    activation_bytes: int = 0
    file_bytes: int = 0
    latency: float = 0.0
    valid_accuracy: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """The rung (-1 without a result) and the reward: a result at a higher rung is better."""
        return (self.fidelity or 0 if self.status == OK else -1, self.reward)


@dataclass(frozen=True)
class Finalist:
    """A finalist: number of its trial, its second evaluation, and the mean reward; the second one if their rungs differ."""

    number: int
    second: Child
    mean_reward: float

    @property
    def is_confirmed(self) -> bool:
        """Whether the second evaluation is a result; otherwise, ``mean_reward`` is the first reward."""
        return self.second.status not in UNEVALUATED


@dataclass(frozen=True)
class Design:
    """How the architecture of a child is shown: as cells, or as text if its search space is not a built-in one.

    The summary says what the cells do not show, such as the depth of the network.
    """

    number: int
    genotype: str
    graphs: tuple[CellGraph, ...] = ()
    summary: str = ""


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
class Totals:
    """What a report states about all trials of a search, even if it shows only some of them.

    Attributes:
        num_trials: number of trials.
        num_promotions: number of trials that are promotions.
        num_distinct: number of distinct architectures.
        rewards: the rewards of the trials with a result, in order.
        failures: number of trials without a result by status.
        seconds_by_device: wall time of all evaluations by device; that of a promoted child at its highest rung,
            which includes the lower ones.
    """

    num_trials: int
    num_promotions: int
    num_distinct: int
    rewards: Numbers = field(compare=False)
    failures: Mapping[str, int]
    seconds_by_device: Mapping[str, float]

    @property
    def num_failures(self) -> int:
        """Number of trials without a result."""
        return self.num_trials - len(self.rewards)


class EvaluationDigest(NamedTuple):
    """What determines how the children of a search are evaluated.

    Attributes:
        configuration: digest of everything except the validation split.
        split_seed: seed of the split, as text.
        images: digest of the images after the split, as text.
    """

    configuration: str
    split_seed: str = ""
    images: str = ""


def are_comparable(digests: Iterable[EvaluationDigest]) -> bool:
    """Return whether searches evaluate children in the same way, except that those with other seeds have another split."""
    distinct = set(digests)
    num_configurations = len({each.configuration for each in distinct})
    num_seeds = len({each.split_seed for each in distinct})
    return num_configurations <= 1 and num_seeds == len(distinct)  # otherwise, a seed has two sets of images


@dataclass(frozen=True)
class Run:
    """A search.

    Attributes:
        name: path of the run directory, as the user wrote it.
        agent: name of the agent.
        env_id: id of the environment.
        seed: seed of the search.
        budget: number of children that the search is to evaluate; None: only its time is limited.
        state: ``finished``, ``running`` or ``stopped``.
        started: when the search was started or resumed, in ISO format.
        finished: when it finished; None if it has not.
        command: the command line.
        versions: versions by name.
        settings: everything else that determines the results, as text by name.
        digest: how the children are evaluated, for ``are_comparable``.
        is_trained: whether the children are networks that were trained.
        totals: what is known about all trials.
        children: the trials in order; of a search with many trials, those that ``TrialSample`` keeps.
        stride: distance of two trials that are evenly spaced, from the first one; 1 if ``children`` are all trials.
        is_embedded: whether the points in ``vectors`` are actions; otherwise they are architecture vectors.
        vectors: a point for each of ``children``, shape (children, dimensions); None if there is none.
        best: number of the best child; None without a result.
        best_reward: its reward, or the ``mean_reward`` of a finalist; 0 without a result.
        quantity: what the validation metric of the children is.
        has_metric_rewards: whether the reward is this metric.
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
    budget: int | None
    state: str
    started: str
    finished: str | None
    command: str
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    digest: EvaluationDigest
    is_trained: bool
    totals: Totals
    children: Sequence[Child]
    stride: int = 1
    is_embedded: bool = False
    vectors: Numbers | None = field(default=None, compare=False)
    best: int | None = None
    best_reward: float = 0.0
    quantity: Quantity = ACCURACY
    has_metric_rewards: bool = True
    finalists: Sequence[Finalist] = ()
    designs: Sequence[Design] = ()
    curves: Sequence[Curve] = ()
    operators: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    latencies: Sequence[Latency] = ()
    processor: str = ""
    notes: Sequence[str] = ()

    @property
    def reward_quantity(self) -> Quantity:
        """What the reward is."""
        return self.quantity if self.has_metric_rewards else REWARD

    @property
    def reward_name(self) -> str:
        """The name of the reward in figures, in lower case."""
        return f"validation {self.quantity.name}" if self.has_metric_rewards else REWARD.name

    @property
    def unit(self) -> str:
        """The unit of the reward on an axis, in parentheses; "" if it has none."""
        return " (%)" if self.reward_quantity.is_percentage else ""

    def format_reward(self, reward: float) -> str:
        """Format a reward."""
        return self.reward_quantity.format(reward)

    @cached_property
    def spaced(self) -> Sequence[Child]:
        """The children that are evenly spaced among all trials."""
        return [child for child in self.children if is_spaced(child.number, self.stride)]

    @cached_property
    def failures(self) -> Sequence[Child]:
        """The children without a result."""
        return [child for child in self.children if child.status != OK]

    @property
    def has_result(self) -> bool:
        """Whether at least one trial has a result."""
        return len(self.totals.rewards) > 0

    @cached_property
    def seconds_by_device(self) -> Mapping[str, float]:
        """Wall time of all evaluations by device, including the second evaluations of finalists."""
        seconds = dict(self.totals.seconds_by_device)
        for finalist in self.finalists:
            seconds[finalist.second.device] = seconds.get(finalist.second.device, 0.0) + finalist.second.seconds
        return seconds

    @cached_property
    def index(self) -> Mapping[int, int]:
        """The index in ``children`` of each number of a child."""
        return {child.number: index for index, child in enumerate(self.children)}

    def child(self, number: int) -> Child:
        """Return the child with this number, which must be one of ``children``."""
        return self.children[self.index[number]]

    def ranking(self) -> list[Child]:
        """Return the result of ``rank`` for this search."""
        return rank(self.children, self.finalists)


def is_spaced(number: int, stride: int) -> bool:
    """Return whether the trial with this number is one of those that are evenly spaced."""
    return (number - 1) % stride == 0


def rank(children: Iterable[Child], finalists: Sequence[Finalist]) -> list[Child]:
    """Return the children with a result, the best first, each architecture once; finalists precede the others.

    Of two equal children, the first one is better.
    """
    best: dict[str, Child] = {}
    for child in children:
        if child.status == OK and (child.key not in best or child.rank > best[child.key].rank):
            best[child.key] = child
    places = {finalist.number: place for place, finalist in enumerate(finalists)}

    def order(child: Child) -> tuple[float, ...]:
        return (places.get(child.number, len(places)), *(-each for each in child.rank), child.number)

    return sorted(best.values(), key=order)
