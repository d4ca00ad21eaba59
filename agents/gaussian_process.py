"""Gaussian-process regression on decision vectors: exact inference, kernel selected by marginal likelihood."""

from __future__ import annotations

import math
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
    """

    inverse_lengthscale: float
    count_kernel_weight: float
    count_inverse_lengthscale: float
    noise_variance: float


KERNELS = [
    Kernel(inverse_lengthscale, count_kernel_weight, count_inverse_lengthscale, noise_variance)
    for inverse_lengthscale, (count_kernel_weight, count_inverse_lengthscale), noise_variance in product(
        (0.3, 0.6, 1.2), ((0.0, 0.3), *product((0.25, 0.5, 0.75), (0.3, 1.2))), (0.01, 0.1, 0.5)
    )
]


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

    Args:
        decision_sizes: the number of choices of each decision.
    """

    def __init__(self, decision_sizes: tuple[int, ...]) -> None:
        sizes = torch.tensor(decision_sizes)
        self.sizes = sizes
        self.mean_hamming_distance = float((1 - 1 / sizes).sum())
        self.kernel = KERNELS[0]
        self.num_fitted = 0

    def fit(self, decisions: NDArray[np.int64], targets: Tensor) -> None:
        """Condition the process on ``decisions`` (N, m) with ``targets`` (N,), float64 with zero mean."""
        self.decisions = torch.from_numpy(decisions)
        self.targets = targets
        distances = self._distances(self.decisions, self.decisions)
        if len(decisions) >= HYPERPARAMETER_REFIT_FACTOR * self.num_fitted:
            self.kernel = max(KERNELS, key=lambda kernel: self._log_likelihood(kernel, distances))
            self.num_fitted = len(decisions)
        self.cholesky = self._cholesky(self.kernel, distances)
        self.alpha = torch.cholesky_solve(targets[:, None], self.cholesky)[:, 0]
        self.outputscale = math.sqrt(float(targets @ self.alpha) / len(targets))

    def posterior(self, decisions: NDArray[np.int64], x_pending: NDArray[np.int64]) -> Posterior:
        """Compute the posterior of candidates.

        Args:
            decisions: the candidates, shape (C, m).
            x_pending: children under evaluation, shape (P, m); they reduce the variance of similar candidates and do not
                change the mean.
        """
        candidates = torch.from_numpy(decisions)
        cross_covariance = covariance(self.kernel, *self._distances(self.decisions, candidates))
        mean = cross_covariance.T @ self.alpha
        cholesky = self.cholesky
        if len(x_pending):
            observed = torch.cat([self.decisions, torch.from_numpy(x_pending)])
            cholesky = self._cholesky(self.kernel, self._distances(observed, observed))
            cross_covariance = covariance(self.kernel, *self._distances(observed, candidates))
        explained = torch.linalg.solve_triangular(cholesky, cross_covariance, upper=False).square().sum(0)
        mean_at_data = self.targets - self.kernel.noise_variance * self.alpha
        return Posterior(mean, self.outputscale * (1 - explained).clamp_min(1e-9).sqrt(), float(mean_at_data.max()))

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

    def _cholesky(self, kernel: Kernel, distances: tuple[Tensor, Tensor]) -> Tensor:
        noisy_covariance = covariance(kernel, *distances)
        noisy_covariance.diagonal().add_(kernel.noise_variance)
        cholesky: Tensor = torch.linalg.cholesky(noisy_covariance)
        return cholesky

    def _log_likelihood(self, kernel: Kernel, distances: tuple[Tensor, Tensor]) -> float:
        """Compute the log marginal likelihood at the optimal output scale, up to a constant."""
        cholesky = self._cholesky(kernel, distances)
        quadratic_form = torch.linalg.solve_triangular(cholesky, self.targets[:, None], upper=False).square().mean()
        return -float(0.5 * len(self.targets) * quadratic_form.log() + cholesky.diagonal().log().sum())


def covariance(kernel: Kernel, hamming: Tensor, counts: Tensor) -> Tensor:
    """Compute the prior covariance.

    Args:
        kernel: the hyperparameters.
        hamming: normalized Hamming distances, shape (A, B).
        counts: normalized squared distances of the choice counts, shape (A, B).

    Returns:
        Shape (A, B).
    """
    count_covariance = (-kernel.count_inverse_lengthscale * counts).exp()
    hamming_covariance = (-kernel.inverse_lengthscale * hamming).exp()
    return kernel.count_kernel_weight * count_covariance + (1 - kernel.count_kernel_weight) * hamming_covariance


def expected_improvement(posterior: Posterior) -> Tensor:
    """Compute the expected improvement of each candidate over the best mean (Mockus, 1975), shape (C,)."""
    gain = (posterior.mean - posterior.best) / posterior.std
    density = torch.exp(-0.5 * gain.square()) / math.sqrt(2 * math.pi)
    improvement: Tensor = posterior.std * (gain * torch.special.ndtr(gain) + density)
    return improvement
