"""A model of the reward: a Gaussian process on decisions, with a closed form for what is known and how well."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

REFIT_GROWTH = 1.2  # the kernel is chosen anew when the data have grown by so much


class Kernel(NamedTuple):
    """What is chosen by the data; distances are relative to their mean over pairs of uniform architectures.

    Attributes:
        rate: how fast the similarity falls with the number of decisions that differ.
        shared: weight of the part that asks only how often each choice is made, not where.
        shared_rate: how fast the similarity of that part falls.
        noise: variance of a reward around the model, relative to that of the model.
    """

    rate: float
    shared: float
    shared_rate: float
    noise: float


KERNELS = [
    Kernel(rate, shared, shared_rate, noise)
    for rate, (shared, shared_rate), noise in product(
        (0.3, 0.6, 1.2), ((0.0, 0.3), *product((0.25, 0.5, 0.75), (0.3, 1.2))), (0.01, 0.1, 0.5)
    )
]


class Posterior(NamedTuple):
    """What is known of candidates: means (C,) and deviations (C,), in the units of the targets, and the best so far."""

    mean: Tensor
    deviation: Tensor
    best: float


class GaussianProcess:
    """A Gaussian process (Rasmussen and Williams, 2006) whose inputs are lists of decisions.

    Its kernel is the sum of two: ``exp(-rate · H)``, where H is the share of decisions that differ, and
    ``exp(-shared_rate · D)``, where D is the squared distance between how often each choice is made among decisions of the
    same number of choices. The latter shares strength between decisions: that convolutions are good is learned once and not
    for each edge of a cell. Which counts for how much is decided by the marginal likelihood, so that where choices of
    different decisions have nothing in common the second part is switched off.

    Args:
        decision_sizes: the number of choices of each decision.
    """

    def __init__(self, decision_sizes: tuple[int, ...]) -> None:
        sizes = torch.tensor(decision_sizes)
        self.sizes = sizes
        self.mean_difference = float((1 - 1 / sizes).sum())
        self.kernel = KERNELS[0]
        self.num_fitted = 0

    def fit(self, decisions: NDArray[np.int64], targets: Tensor) -> None:
        """Learns from ``decisions`` (N, m) with ``targets`` (N,), float64 of zero mean."""
        self.decisions = torch.from_numpy(decisions)
        self.targets = targets
        distances = self._distances(self.decisions, self.decisions)
        if len(decisions) >= REFIT_GROWTH * self.num_fitted:
            self.kernel = max(KERNELS, key=lambda kernel: self._log_likelihood(kernel, distances))
            self.num_fitted = len(decisions)
        self.factor = self._factor(self.kernel, distances)
        self.weights = torch.cholesky_solve(targets[:, None], self.factor)[:, 0]
        self.scale = math.sqrt(float(targets @ self.weights) / len(targets))

    def posterior(self, decisions: NDArray[np.int64], pending: NDArray[np.int64]) -> Posterior:
        """What is known of candidates ``decisions`` (C, m), those ``pending`` (P, m) being under evaluation.

        A pending child makes its neighbours less uncertain, but not better or worse.
        """
        candidates = torch.from_numpy(decisions)
        similarity = similarities(self.kernel, *self._distances(self.decisions, candidates))
        mean = similarity.T @ self.weights
        known, factor = similarity, self.factor
        if len(pending):
            everything = torch.cat([self.decisions, torch.from_numpy(pending)])
            factor = self._factor(self.kernel, self._distances(everything, everything))
            known = similarities(self.kernel, *self._distances(everything, candidates))
        explained = torch.linalg.solve_triangular(factor, known, upper=False).square().sum(0)
        fitted = self.targets - self.kernel.noise * self.weights  # the posterior mean at the data
        return Posterior(mean, self.scale * (1 - explained).clamp_min(1e-9).sqrt(), float(fitted.max()))

    def _distances(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Of (A, m) and (B, m): how many decisions differ, and how the counts of choices do; each (A, B), 1 in the mean."""
        differ = (first[:, None] != second).sum(2).double() / self.mean_difference
        counts = torch.cdist(self._counts(first), self._counts(second)).square() / (2 * self.mean_difference)
        return differ, counts

    def _counts(self, decisions: Tensor) -> Tensor:
        """How often each choice is made among the decisions of each size: (A, m) to (A, sum of the different sizes)."""
        groups = [F.one_hot(decisions[:, self.sizes == size], size).sum(1) for size in sorted(set(self.sizes.tolist()))]
        return torch.cat(groups, dim=1).double()

    def _factor(self, kernel: Kernel, distances: tuple[Tensor, Tensor]) -> Tensor:
        covariance = similarities(kernel, *distances)
        covariance.diagonal().add_(kernel.noise)
        factor: Tensor = torch.linalg.cholesky(covariance)
        return factor

    def _log_likelihood(self, kernel: Kernel, distances: tuple[Tensor, Tensor]) -> float:
        """Of the targets, up to a constant, at the scale that makes it greatest."""
        factor = self._factor(kernel, distances)
        misfit = torch.linalg.solve_triangular(factor, self.targets[:, None], upper=False).square().mean()
        return -float(0.5 * len(self.targets) * misfit.log() + factor.diagonal().log().sum())


def similarities(kernel: Kernel, differ: Tensor, counts: Tensor) -> Tensor:
    """The prior covariance at the distances ``differ`` and ``counts``."""
    return kernel.shared * (-kernel.shared_rate * counts).exp() + (1 - kernel.shared) * (-kernel.rate * differ).exp()


def expected_improvement(posterior: Posterior) -> Tensor:
    """Of each candidate over the best so far (Mockus, 1975), shape (C,)."""
    gain = (posterior.mean - posterior.best) / posterior.deviation
    density = torch.exp(-0.5 * gain.square()) / math.sqrt(2 * math.pi)
    improvement: Tensor = posterior.deviation * (gain * torch.special.ndtr(gain) + density)
    return improvement
