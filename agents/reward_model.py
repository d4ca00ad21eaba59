"""A model of the rewards of all architectures, for agents that select children among candidates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from nases_agents.gaussian_process import GaussianProcess, PathEncoder, Posterior, Size, SizeScores, TrendScores
from nases_agents.local_search import sample_unseen
from nases_agents.policy import rank_normalize
from torch import Tensor

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search_spaces import Architecture, SearchSpace

NUM_SCREENED = 300  # sampled architectures, from which the first children are chosen
MAX_RESAMPLES = 300  # samples to find a feasible child if no candidate is feasible
MAX_SCREENED_BATCHES = 3  # batches of samples, if few of them are feasible
BEST_SHARE = 0.05  # the share of them that counts as large, or as good by earlier searches


class RewardModel:
    """A Gaussian process (``agents/gaussian_process.py``) fitted to the ranks of the rewards of all evaluated children.

    With rungs, it is fitted to all rewards at the first rung and to the comparable rewards of promoted children, and
    predicts rewards at the highest rung with a promotion.

    Args:
        search_space: the search space.
        rungs: the rungs of the environment; may be empty.
        earlier: rewards that earlier searches predict, which replace the sizes of architectures; None: without them.
        size: the size of an architecture, such as ``NASESEnv.size``; None: that of the search space.

    Attributes:
        children: the evaluated children in order.
    """

    def __init__(
        self,
        search_space: SearchSpace,
        rungs: Sequence[int] = (),
        earlier: TrendScores | None = None,
        size: Size | None = None,
    ) -> None:
        self._size = size or search_space.size
        self.process = GaussianProcess(
            search_space.decision_sizes,
            PathEncoder(search_space),
            SizeScores.of(search_space, self._size) if earlier is None else earlier,
            keeps_trend=earlier is not None,
        )
        self._earlier = earlier
        self.children: list[Architecture] = []
        self._rungs = rungs
        self._rewards: list[float] = []  # at the first rung
        self._promoted: dict[str, tuple[Architecture, int]] = {}  # with the index of the highest rung, by key
        self._comparable_rewards: Mapping[str, float] = {}

    @property
    def has_trend(self) -> bool:
        """Whether sizes or earlier searches say which architectures are probably good."""
        return self.process.trend_scores is not None

    def add(self, child: Architecture, reward: float) -> None:
        """Add an evaluated child."""
        self.children.append(child)
        self._rewards.append(reward)

    def add_promotion(self, child: Architecture, evaluation: Evaluation, rewards: Mapping[str, float]) -> None:
        """Add the result of a child at a higher rung; see ``Agent.tell_promoted``."""
        assert evaluation.fidelity is not None
        self._promoted[child.key] = (child, self._rungs.index(evaluation.fidelity))
        self._comparable_rewards = dict(rewards)

    def ranking(self) -> list[Architecture]:
        """Return the evaluated children, best first, by their comparable rewards."""
        rewards = [
            self._comparable_rewards.get(child.key, reward)
            for child, reward in zip(self.children, self._rewards, strict=True)
        ]
        return [self.children[index] for index in np.argsort(rewards, kind="stable")[::-1]]

    def choose_first(
        self,
        samples: Sequence[Architecture],
        num_children: int,
        rng: np.random.Generator,
        is_feasible: Callable[[Architecture], bool],
    ) -> list[int]:
        """Choose the first children of a search among sampled architectures.

        Most of them are large, because large networks are more accurate on average if they are trained long enough. With
        earlier searches, half of the children are instead among the best by their predictions. Every fourth child, beginning
        with the second, is the next sample, of any size: otherwise the model could not learn from the first children that
        small networks, or networks with low predictions, are better (``TREND_SLOPE``). Without sizes, the first samples are
        chosen. Only feasible children are chosen; as few samples as possible are checked, because a check can build a
        network.

        Args:
            samples: distinct sampled architectures.
            num_children: number of children to choose.
            rng: chooses among the best ones.
            is_feasible: whether an architecture is feasible.

        Returns:
            The indices of the children in ``samples``; fewer than ``num_children`` if fewer samples are feasible.
        """
        feasible = [partial(is_feasible, sample) for sample in samples]
        large = screen([self._size(sample) for sample in samples], num_children, rng, feasible)
        best = large
        if self._earlier is not None and samples:
            predicted = self._earlier(torch.from_numpy(self.process.inputs(samples))).mean(1)
            best = screen(predicted.tolist(), num_children, rng, feasible)
        chosen: list[int] = []
        for number in range(len(best)):
            source = range(len(samples)) if number % 4 == 1 else large if number % 4 == 2 else best
            chosen.append(next(index for index in source if index not in chosen and feasible[index]()))
        return chosen

    def fit(self) -> None:
        """Fit the process to all results."""
        promoted = [(child, rung, self._comparable_rewards[child.key]) for child, rung in self._promoted.values()]
        children = [*self.children, *(child for child, _, _ in promoted)]
        rewards = [*self._rewards, *(reward for _, _, reward in promoted)]
        rungs = [0] * len(self.children) + [rung for _, rung, _ in promoted]
        targets = rank_normalize(torch.tensor(rewards, dtype=torch.float64))
        self.process.fit(self.process.inputs(children), targets, rungs)

    def posterior(self, candidates: Sequence[Architecture], pending: Sequence[Architecture]) -> Posterior:
        """Compute the posterior of ``candidates``, given also which children are ``pending``; see ``GaussianProcess``."""
        return self.process.posterior(self.process.inputs(candidates), self.process.inputs(pending))

    def metrics(self) -> dict[str, float]:
        """Return the hyperparameters of the kernel by name, without those of terms that are not used."""
        unused = set() if self._promoted else {"rung_correlation"}
        if self.process.paths is None:
            unused |= {"path_kernel_weight", "path_inverse_lengthscale"}
        if not self.has_trend:
            unused.add("trend_variance")
        return {f"model/{name}": value for name, value in self.process.kernel._asdict().items() if name not in unused}


def screen(
    scores: Sequence[float | None], num_children: int, rng: np.random.Generator, feasible: Sequence[Callable[[], bool]]
) -> list[int]:
    """Choose random architectures of the feasible ones with the best scores.

    Args:
        scores: the score of each architecture. If one is None, or all are equal, the first architectures are chosen.
        num_children: number of architectures to choose.
        rng: chooses among the best ones, whose number is the share ``BEST_SHARE`` of all.
        feasible: whether each architecture is feasible; called for as few as possible.

    Returns:
        The indices of the chosen architectures, at most ``num_children``.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores) or len(set(known)) == 1:
        return list(islice((index for index in range(len(scores)) if feasible[index]()), num_children))
    order = np.argsort([-score for score in known], kind="stable").tolist()
    num_best = max(num_children, round(BEST_SHARE * len(scores)))
    best = list(islice((index for index in order if feasible[index]()), num_best))
    return [int(index) for index in rng.permutation(best)[:num_children]]


def sample_feasible(env: NASESEnv, rng: np.random.Generator, proposed: Collection[str]) -> Architecture:
    """Return an unseen feasible random architecture; without one, the last sample, which the search replaces."""
    for _ in range(MAX_RESAMPLES):
        child = sample_unseen(env.search_space, rng, proposed)
        if env.is_feasible(child):
            break
    return child


def best_feasible(env: NASESEnv, candidates: Sequence[Architecture], values: Tensor) -> int | None:
    """Return the index of the feasible candidate with the highest value; None if no candidate is feasible.

    Candidates are screened in the order of their values, so that few networks are built.
    """
    values = values.clone()
    for _ in candidates:
        index = int(values.argmax())
        if env.is_feasible(candidates[index]):
            return index
        values[index] = -torch.inf
    return None
