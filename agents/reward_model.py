"""A model of the rewards of all architectures, for agents that select children among candidates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from nases_agents.gaussian_process import GaussianProcess, PathEncoder, Posterior, SizeScores
from nases_agents.local_search import sample_unseen
from nases_agents.policy import rank_normalize
from torch import Tensor

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search_spaces import Architecture, SearchSpace

NUM_SCREENED = 300  # sampled architectures, from which the first children are chosen
MAX_RESAMPLES = 300  # samples to find a feasible child if no candidate is feasible
MAX_SCREENED_BATCHES = 3  # batches of samples, if few of them are feasible
LARGEST = 0.05  # share of them that are large


class RewardModel:
    """A Gaussian process (``agents/gaussian_process.py``) fitted to the ranks of the rewards of all evaluated children.

    With rungs, it is fitted to all rewards at the lowest rung and to the comparable rewards of promoted children, and
    predicts rewards at the highest rung with a promotion.

    Args:
        search_space: the search space.
        rungs: the rungs of the environment; may be empty.

    Attributes:
        children: the evaluated children in order.
    """

    def __init__(self, search_space: SearchSpace, rungs: Sequence[int] = ()) -> None:
        self.process = GaussianProcess(search_space.decision_sizes, PathEncoder(search_space), SizeScores(search_space))
        self.children: list[Architecture] = []
        self._rungs = rungs
        self._rewards: list[float] = []  # at the lowest rung
        self._promoted: dict[str, tuple[Architecture, int]] = {}  # with the index of the highest rung, by key
        self._comparable_rewards: Mapping[str, float] = {}

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
        if self.process.size_scores is None:
            unused.add("size_variance")
        return {f"model/{name}": value for name, value in self.process.kernel._asdict().items() if name not in unused}


def screen(
    search_space: SearchSpace, samples: Sequence[Architecture], num_children: int, rng: np.random.Generator
) -> list[int]:
    """Choose the first children of a search among sampled architectures: large ones, if sizes are known.

    Where networks are trained long enough, large ones are more accurate on average. Where they are not, the model learns it
    from the first children (``SIZE_SLOPE``).

    Args:
        search_space: the search space. If it does not know the sizes of architectures, the first samples are chosen.
        samples: distinct sampled architectures.
        num_children: number of children to choose.
        rng: chooses among the large architectures.

    Returns:
        The indices of the children in ``samples``, at most ``num_children``.
    """
    sizes = [search_space.size(sample) for sample in samples]
    known = [size for size in sizes if size is not None]
    if len(known) < len(samples) or len(set(known)) == 1:
        return list(range(min(num_children, len(samples))))
    order = np.argsort([-size for size in known], kind="stable")
    large = order[: max(num_children, round(LARGEST * len(samples)))]
    return [int(index) for index in rng.permutation(large)[:num_children]]


def find_feasible(env: NASESEnv, samples: Sequence[Architecture], num_children: int) -> list[int]:
    """Return the indices of feasible samples, from which ``screen`` chooses the first children.

    If the search space knows no sizes, ``screen`` chooses the first samples, so the search for others ends when there are
    ``num_children``: screening a child can mean building its network.
    """
    feasible: list[int] = []
    for index, sample in enumerate(samples):
        if len(feasible) >= num_children and env.search_space.size(sample) is None:
            break
        if env.screen(sample) is None:
            feasible.append(index)
    return feasible


def sample_feasible(env: NASESEnv, rng: np.random.Generator, proposed: Collection[str]) -> Architecture:
    """Return an unseen feasible random architecture; without one, the last sample, which the search replaces."""
    for _ in range(MAX_RESAMPLES):
        child = sample_unseen(env.search_space, rng, proposed)
        if env.screen(child) is None:
            break
    return child


def best_feasible(env: NASESEnv, candidates: Sequence[Architecture], values: Tensor) -> int | None:
    """Return the index of the feasible candidate with the highest value; None if no candidate is feasible.

    Candidates are screened in the order of their values, so that few networks are built.
    """
    values = values.clone()
    for _ in candidates:
        index = int(values.argmax())
        if env.screen(candidates[index]) is None:
            return index
        values[index] = -torch.inf
    return None
