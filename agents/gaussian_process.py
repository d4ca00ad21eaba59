"""Gaussian-process regression on decision vectors: exact inference, kernel selected by marginal likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

HYPERPARAMETER_REFIT_FACTOR = 1.2  # growth of the data after which the kernel is selected again


class Kernel(NamedTuple):
    """Hyperparameters of the kernel. Distances are divided by their mean over pairs of uniformly sampled architectures.

    Attributes:
        inverse_lengthscale: decay rate of the covariance with the Hamming distance.
        count_kernel_weight: weight of the kernel on choice counts, in [0, 1).
        count_inverse_lengthscale: decay rate of the covariance with the distance of the choice counts.
        noise_variance: variance of the observation noise, relative to the variance of the process.
        rung_correlation: correlation of the values of an architecture at consecutive rungs, in [0, 1].
    """

    inverse_lengthscale: float
    count_kernel_weight: float
    count_inverse_lengthscale: float
    noise_variance: float
    rung_correlation: float = 1.0


KERNELS = [
    Kernel(inverse_lengthscale, count_kernel_weight, count_inverse_lengthscale, noise_variance)
    for inverse_lengthscale, (count_kernel_weight, count_inverse_lengthscale), noise_variance in product(
        (0.3, 0.6, 1.2), ((0.0, 0.3), *product((0.25, 0.5, 0.75), (0.3, 1.2))), (0.01, 0.1, 0.5)
    )
]

RUNG_CORRELATIONS = (0.5, 0.8, 0.95)


class Posterior(NamedTuple):
    """Posterior marginals of C candidates, in the units of the targets.

    Attributes:
        mean: shape (C,).
        std: standard deviation, shape (C,).
        best: the highest posterior mean at the data.
    """

    mean: Tensor
    std: Tensor
    best: float


class GaussianProcess:
    """A Gaussian process (Rasmussen and Williams, 2006) on decision vectors.

    The kernel is a weighted sum of ``exp(-inverse_lengthscale * H)``, where H is the normalized Hamming distance, and
    ``exp(-count_inverse_lengthscale * D)``, where D is the normalized squared distance between the counts of each choice
    among decisions with the same number of choices. The second term shares information between decisions: the model
    learns once, rather than once per edge of a cell, that convolutions are good. The marginal likelihood selects its weight,
    which is 0 if the choices of different decisions are unrelated.

    With observations at several rungs, the kernel is multiplied by ``rung_correlation`` to the power of the number of rungs
    between two observations, and the posterior is that at the highest rung.

    Args:
        decision_sizes: the number of choices of each decision.
    """

    def __init__(self, decision_sizes: tuple[int, ...]) -> None:
        sizes = torch.tensor(decision_sizes)
        self.sizes = sizes
        self.mean_hamming_distance = float((1 - 1 / sizes).sum())
        self.kernel = KERNELS[0]
        self.num_fitted = 0

    def fit(self, decisions: NDArray[np.int64], targets: Tensor, rungs: Sequence[int] | None = None) -> None:
        """Condition the process on observations.

        Args:
            decisions: the architectures, shape (N, m).
            targets: their values, shape (N,), float64 with zero mean.
            rungs: the index of the rung of each observation; None: all are at the same rung.
        """
        self.decisions = torch.from_numpy(decisions)
        self.targets = targets
        has_rungs = rungs is not None and len(set(rungs)) > 1
        self.rungs = torch.tensor(rungs, dtype=torch.float64) if has_rungs else None
        distances = self._distances_of_observations(self.decisions, self.rungs)
        is_first_promotion = has_rungs and self.kernel.rung_correlation == 1.0
        if len(decisions) >= HYPERPARAMETER_REFIT_FACTOR * self.num_fitted or is_first_promotion:
            kernels = KERNELS
            if has_rungs:
                kernels = [kernel._replace(rung_correlation=each) for kernel in KERNELS for each in RUNG_CORRELATIONS]
            self.kernel = max(kernels, key=lambda kernel: self._log_likelihood(kernel, distances))
            self.num_fitted = len(decisions)
        self.cholesky = self._cholesky(self.kernel, distances)
        self.alpha = torch.cholesky_solve(targets[:, None], self.cholesky)[:, 0]
        self.outputscale = math.sqrt(float(targets @ self.alpha) / len(targets))

    def posterior(self, decisions: NDArray[np.int64], x_pending: NDArray[np.int64]) -> Posterior:
        """Compute the posterior of candidates at the highest rung.

        Args:
            decisions: the candidates, shape (C, m).
            x_pending: children under evaluation at the lowest rung, shape (P, m); they reduce the variance of similar
                candidates and do not change the mean.
        """
        candidates = torch.from_numpy(decisions)
        cross_covariance = self._cross_covariance(self.decisions, self.rungs, candidates)
        mean = cross_covariance.T @ self.alpha
        cholesky = self.cholesky
        if len(x_pending):
            observed = torch.cat([self.decisions, torch.from_numpy(x_pending)])
            rungs = None if self.rungs is None else torch.cat([self.rungs, self.rungs.new_zeros(len(x_pending))])
            cholesky = self._cholesky(self.kernel, self._distances_of_observations(observed, rungs))
            cross_covariance = self._cross_covariance(observed, rungs, candidates)
        explained = torch.linalg.solve_triangular(cholesky, cross_covariance, upper=False).square().sum(0)
        if self.rungs is None:
            mean_at_data = self.targets - self.kernel.noise_variance * self.alpha
        else:
            mean_at_data = self._cross_covariance(self.decisions, self.rungs, self.decisions).T @ self.alpha
        return Posterior(mean, self.outputscale * (1 - explained).clamp_min(1e-9).sqrt(), float(mean_at_data.max()))

    def _distances_of_observations(self, decisions: Tensor, rungs: Tensor | None) -> tuple[Tensor, ...]:
        """Compute the distances between observations, and the numbers of rungs between them if there are several rungs."""
        distances = self._distances(decisions, decisions)
        return distances if rungs is None else (*distances, (rungs[:, None] - rungs).abs())

    def _cross_covariance(self, observed: Tensor, rungs: Tensor | None, candidates: Tensor) -> Tensor:
        """Compute the prior covariance between observations and ``candidates`` at the highest rung."""
        distances = self._distances(observed, candidates)
        if rungs is None:
            return covariance(self.kernel, *distances)
        return covariance(self.kernel, *distances, (rungs.max() - rungs)[:, None])

    def _distances(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the normalized distances between ``first`` (A, m) and ``second`` (B, m).

        Returns:
            The Hamming distances and the squared distances of the choice counts, shape (A, B) each; both have mean 1 over
            uniformly sampled architectures.
        """
        hamming = (first[:, None] != second).sum(2).double() / self.mean_hamming_distance
        counts = torch.cdist(self._counts(first), self._counts(second)).square() / (2 * self.mean_hamming_distance)
        return hamming, counts

    def _counts(self, decisions: Tensor) -> Tensor:
        """Count the choices per group of decisions of equal size: (A, m) to (A, sum of the distinct sizes)."""
        groups = [F.one_hot(decisions[:, self.sizes == size], size).sum(1) for size in sorted(set(self.sizes.tolist()))]
        return torch.cat(groups, dim=1).double()

    def _cholesky(self, kernel: Kernel, distances: tuple[Tensor, ...]) -> Tensor:
        noisy_covariance = covariance(kernel, *distances)
        noisy_covariance.diagonal().add_(kernel.noise_variance)
        cholesky: Tensor = torch.linalg.cholesky(noisy_covariance)
        return cholesky

    def _log_likelihood(self, kernel: Kernel, distances: tuple[Tensor, ...]) -> float:
        """Compute the log marginal likelihood at the optimal output scale, up to a constant."""
        cholesky = self._cholesky(kernel, distances)
        quadratic_form = torch.linalg.solve_triangular(cholesky, self.targets[:, None], upper=False).square().mean()
        return -float(0.5 * len(self.targets) * quadratic_form.log() + cholesky.diagonal().log().sum())


def covariance(kernel: Kernel, hamming: Tensor, counts: Tensor, num_rungs: Tensor | None = None) -> Tensor:
    """Compute the prior covariance.

    Args:
        kernel: the hyperparameters.
        hamming: normalized Hamming distances, shape (A, B).
        counts: normalized squared distances of the choice counts, shape (A, B).
        num_rungs: numbers of rungs between the observations, broadcast to (A, B); None: all are at the same rung.

    Returns:
        Shape (A, B).
    """
    count_covariance = (-kernel.count_inverse_lengthscale * counts).exp()
    hamming_covariance = (-kernel.inverse_lengthscale * hamming).exp()
    mixture = kernel.count_kernel_weight * count_covariance + (1 - kernel.count_kernel_weight) * hamming_covariance
    return mixture if num_rungs is None else mixture * kernel.rung_correlation**num_rungs


def expected_improvement(posterior: Posterior) -> Tensor:
    """Compute the expected improvement of each candidate over the best mean (Mockus, 1975), shape (C,)."""
    gain = (posterior.mean - posterior.best) / posterior.std
    density = torch.exp(-0.5 * gain.square()) / math.sqrt(2 * math.pi)
    improvement: Tensor = posterior.std * (gain * torch.special.ndtr(gain) + density)
    return improvement
