"""Gaussian-process regression on decision vectors: exact inference, kernel selected by marginal likelihood."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri
from torch import Tensor

from nases_env.search_spaces import Architecture, SearchSpace, count_paths
from nases_env.search_spaces.cell_paths import Path
from nases_env.seeding import numpy_generator

HYPERPARAMETER_REFIT_FACTOR = 1.2  # growth of the data after which the kernel is selected again


class Kernel(NamedTuple):
    """Hyperparameters of the kernel. Distances are divided by their mean over pairs of uniformly sampled architectures.

    Attributes:
        inverse_lengthscale: decay rate of the covariance with the Hamming distance.
        count_kernel_weight: weight of the kernel on choice counts, in [0, 1).
        count_inverse_lengthscale: decay rate of the covariance with the distance of the choice counts.
        noise_variance: variance of the observation noise, relative to the variance of the process.
        rung_correlation: correlation of the values of an architecture at consecutive rungs, in [0, 1].
        path_kernel_weight: weight of the kernel on paths, in [0, 1]; the other kernels share the rest.
        path_inverse_lengthscale: decay rate of the covariance with the distance of the paths.
        trend_variance: prior variance of the slopes of the values over the trend scores; 0: they are not used.
    """

    inverse_lengthscale: float
    count_kernel_weight: float
    count_inverse_lengthscale: float
    noise_variance: float
    rung_correlation: float = 1.0
    path_kernel_weight: float = 0.0
    path_inverse_lengthscale: float = 0.0
    trend_variance: float = 0.0


KERNELS = [
    Kernel(inverse_lengthscale, count_kernel_weight, count_inverse_lengthscale, noise_variance)
    for inverse_lengthscale, (count_kernel_weight, count_inverse_lengthscale), noise_variance in product(
        (0.3, 0.6, 1.2), ((0.0, 0.3), *product((0.25, 0.5, 0.75), (0.3, 1.2))), (0.01, 0.1, 0.5)
    )
]

PATH_KERNELS = [
    Kernel(0.6, count_kernel_weight, 0.3, noise_variance, 1.0, path_kernel_weight, path_inverse_lengthscale)
    for count_kernel_weight, noise_variance, path_kernel_weight, path_inverse_lengthscale in product(
        (0.0, 0.5), (0.01, 0.1, 0.5), (0.5, 0.8, 1.0), (0.15, 0.3, 0.6, 1.2)
    )
]
"""Further kernels for search spaces with cells."""

MIN_OUTPUTSCALE = 1e-6
MIN_SELECTION = 20  # observations; fewer do not determine a kernel
FIRST_KERNEL = Kernel(0.6, 0.5, 0.3, 0.1)
"""The kernel of the first observations, without further terms."""
FIRST_PATH_KERNEL = FIRST_KERNEL._replace(path_kernel_weight=0.5, path_inverse_lengthscale=0.3)
TREND_SLOPE, TREND_VARIANCE = 0.25, 0.5
"""Prior mean and variance of the slope of the values over the trend scores. Several scores share both."""

NUM_SIZES = 1000  # of architectures, for the size scores
MAX_SIZE_SCORE = 2.0

NUM_PAIRS = 200  # of architectures, for the mean distance of their paths
MAX_PATH_COUNTS = 2_000_000  # of all architectures whose paths are kept
MAX_ENCODED = 20_000  # architectures whose scores are kept

RUNG_CORRELATIONS = (0.5, 0.8, 0.95)


class Distances(NamedTuple):
    """Distances between A and B architectures, shape (A, B) each.

    Attributes:
        hamming: normalized Hamming distances.
        counts: normalized squared distances of the choice counts.
        paths: normalized squared distances of the paths; None if the search space has no cells.
        trends: mean products of the trend scores; None if there are none, or the kernel does not use them.
        num_rungs: numbers of rungs between the observations, broadcast to (A, B); None: all are at the same rung.
    """

    hamming: Tensor
    counts: Tensor
    paths: Tensor | None = None
    trends: Tensor | None = None
    num_rungs: Tensor | None = None


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

    If the search space has cells, a third term is ``exp(-path_inverse_lengthscale * P)``, where P is the normalized squared
    distance of the square roots of the path counts (``nases_env.search_spaces.count_paths``). P is 0 for architectures that
    differ only in branches without effect.

    With fewer than ``MIN_SELECTION`` observations, which do not determine a kernel, the kernel is fixed. If there are trend
    scores, such as the sizes of architectures, the values then have a linear trend in these scores. The prior of the slopes
    favors high scores (``TREND_SLOPE``); the observations may make the slopes negative. With more observations, the trend
    is not used or, with ``keeps_trend``, is used if the marginal likelihood selects it.

    With observations at several rungs, the kernel is multiplied by ``rung_correlation`` to the power of the number of rungs
    between two observations, and the posterior is that at the highest rung.

    Args:
        decision_sizes: the number of choices of each decision.
        paths: encodes the paths of architectures; None: without the third term.
        trend_scores: scores of architectures; None: without the trend.
        keeps_trend: whether the trend can be used with many observations too.
    """

    def __init__(
        self,
        decision_sizes: tuple[int, ...],
        paths: PathEncoder | None = None,
        trend_scores: TrendScores | None = None,
        *,
        keeps_trend: bool = False,
    ) -> None:
        sizes = torch.tensor(decision_sizes)
        self.sizes = sizes
        self.mean_hamming_distance = float((1 - 1 / sizes).sum())
        self.paths = paths if paths is not None and paths.mean_distance > 0 else None
        self.trend_scores = trend_scores
        self.keeps_trend = keeps_trend
        self.kernels = KERNELS if self.paths is None else KERNELS + PATH_KERNELS
        self.first_kernel = FIRST_KERNEL if self.paths is None else FIRST_PATH_KERNEL
        if trend_scores is not None:
            self.first_kernel = self.first_kernel._replace(trend_variance=TREND_VARIANCE)
            if keeps_trend:
                self.kernels = self.kernels + [kernel._replace(trend_variance=TREND_VARIANCE) for kernel in self.kernels]
        self.kernel = self.first_kernel
        self.num_fitted = 0

    def inputs(self, architectures: Sequence[Architecture]) -> NDArray[np.int64]:
        """Return the decisions of ``architectures``, shape (architectures, m), as the other methods take them."""
        decisions = [architecture.decisions for architecture in architectures]
        return np.array(decisions, dtype=np.int64).reshape(len(decisions), len(self.sizes))

    def fit(self, decisions: NDArray[np.int64], targets: Tensor, rungs: Sequence[int] | None = None) -> None:
        """Condition the process on observations.

        Args:
            decisions: the architectures, shape (N, m).
            targets: their values, shape (N,), float64, whose mean is about 0.
            rungs: the index of the rung of each observation; None: all are at the same rung.
        """
        self.decisions = torch.from_numpy(decisions)
        self.targets = targets
        has_rungs = rungs is not None and len(set(rungs)) > 1
        self.rungs = torch.tensor(rungs, dtype=torch.float64) if has_rungs else None
        distances = self._distances_of_observations(self.decisions, self.rungs)
        self._select_kernel(distances)
        self.trend_at_data = self._trend(self.kernel, self.decisions)
        residuals = targets - self._center(self.trend_at_data)
        self.cholesky = self._cholesky(self.kernel, distances)
        self.alpha = torch.cholesky_solve(residuals[:, None], self.cholesky)[:, 0]
        # Equal targets have no scale. It must not be 0, so that the expected improvement is defined and favors variance.
        self.outputscale = max(MIN_OUTPUTSCALE, math.sqrt(float(residuals @ self.alpha) / len(targets)))

    def _select_kernel(self, distances: Distances) -> None:
        """Select the kernel by its marginal likelihood, if there are many more observations than at the last selection."""
        num_observations, has_rungs = len(self.targets), self.rungs is not None
        is_first_promotion = has_rungs and self.kernel.rung_correlation == 1.0
        is_first_selection = num_observations >= MIN_SELECTION > self.num_fitted
        is_much_more = num_observations >= HYPERPARAMETER_REFIT_FACTOR * self.num_fitted
        if not (is_much_more or is_first_selection or is_first_promotion):
            return
        kernels = self.kernels if num_observations >= MIN_SELECTION else [self.first_kernel]
        if has_rungs:
            kernels = [kernel._replace(rung_correlation=each) for kernel in kernels for each in RUNG_CORRELATIONS]
        self.kernel = max(kernels, key=lambda kernel: self._log_likelihood(kernel, distances))
        self.num_fitted = num_observations

    def posterior(self, decisions: NDArray[np.int64], x_pending: NDArray[np.int64]) -> Posterior:
        """Compute the posterior of candidates at the highest rung.

        Args:
            decisions: the candidates, shape (C, m).
            x_pending: children in flight at the first rung, shape (P, m); they reduce the variance of similar
                candidates and do not change the mean.
        """
        candidates = torch.from_numpy(decisions)
        observed, rungs, cholesky = self.decisions, self.rungs, self.cholesky
        if len(x_pending):
            observed = torch.cat([observed, torch.from_numpy(x_pending)])
            rungs = None if rungs is None else torch.cat([rungs, rungs.new_zeros(len(x_pending))])
            cholesky = self._cholesky(self.kernel, self._distances_of_observations(observed, rungs))
        cross_covariance = self._cross_covariance(observed, rungs, candidates)
        mean = self._center(self._trend(self.kernel, candidates)) + cross_covariance[: len(self.alpha)].T @ self.alpha
        explained = torch.linalg.solve_triangular(cholesky, cross_covariance, upper=False).square().sum(0)
        if self.rungs is None:
            mean_at_data = self.targets - self.kernel.noise_variance * self.alpha
        else:
            mean_at_data = self._cross_covariance(self.decisions, self.rungs, self.decisions).T @ self.alpha
            mean_at_data += self._center(self.trend_at_data)
        variance = (self._prior_variance(candidates) - explained).clamp_min(1e-9)
        return Posterior(mean, self.outputscale * variance.sqrt(), float(mean_at_data.max()))

    def _trend(self, kernel: Kernel, decisions: Tensor) -> Tensor:
        """Compute the prior mean of the values, up to a constant, shape (architectures,)."""
        if self.trend_scores is None or not kernel.trend_variance:
            return torch.zeros(len(decisions), dtype=torch.float64)
        return TREND_SLOPE * self.trend_scores(decisions).mean(1)

    def _center(self, trend: Tensor) -> Tensor:
        """Subtract the mean of the trend at the observations, because the targets have zero mean."""
        return trend - self.trend_at_data.mean()

    def _prior_variance(self, decisions: Tensor) -> Tensor:
        """Compute the prior variance of the values, relative to that of the process without trend."""
        if self.trend_scores is None or not self.kernel.trend_variance:
            return torch.ones(len(decisions), dtype=torch.float64)
        return 1 + self.kernel.trend_variance * self.trend_scores(decisions).square().mean(1)

    def _distances_of_observations(self, decisions: Tensor, rungs: Tensor | None) -> Distances:
        """Compute the distances between observations, and the numbers of rungs between them if there are several rungs."""
        distances = self._distances(decisions, decisions)
        return distances if rungs is None else distances._replace(num_rungs=(rungs[:, None] - rungs).abs())

    def _cross_covariance(self, observed: Tensor, rungs: Tensor | None, candidates: Tensor) -> Tensor:
        """Compute the prior covariance between observations and ``candidates`` at the highest rung."""
        distances = self._distances(observed, candidates)
        if rungs is not None:
            distances = distances._replace(num_rungs=(rungs.max() - rungs)[:, None])
        return covariance(self.kernel, distances)

    def _distances(self, first: Tensor, second: Tensor) -> Distances:
        """Compute the distances between ``first`` (A, m) and ``second`` (B, m), with mean 1 for uniform samples."""
        hamming = (first[:, None] != second).sum(2).double() / self.mean_hamming_distance
        counts = torch.cdist(self._counts(first), self._counts(second)).square() / (2 * self.mean_hamming_distance)
        paths = None if self.paths is None else self.paths.distances(first, second)
        return Distances(hamming, counts, paths, self._trends(first, second))

    def _trends(self, first: Tensor, second: Tensor) -> Tensor | None:
        """Compute the mean products of the trend scores of ``first`` and ``second``; None if they are not used."""
        if self.trend_scores is None or not (self.keeps_trend or self.kernel.trend_variance):
            return None
        scores = self.trend_scores(first), self.trend_scores(second)
        return scores[0] @ scores[1].T / scores[0].shape[1]

    def _counts(self, decisions: Tensor) -> Tensor:
        """Count the choices per group of decisions of equal size: (A, m) to (A, sum of the distinct sizes)."""
        groups = [F.one_hot(decisions[:, self.sizes == size], size).sum(1) for size in sorted(set(self.sizes.tolist()))]
        return torch.cat(groups, dim=1).double()

    def _cholesky(self, kernel: Kernel, distances: Distances) -> Tensor:
        noisy_covariance = covariance(kernel, distances)
        noisy_covariance.diagonal().add_(kernel.noise_variance)
        cholesky: Tensor = torch.linalg.cholesky(noisy_covariance)
        return cholesky

    def _log_likelihood(self, kernel: Kernel, distances: Distances) -> float:
        """Compute the log marginal likelihood at the optimal output scale, up to a constant."""
        cholesky = self._cholesky(kernel, distances)
        trend = self._trend(kernel, self.decisions)
        residuals = self.targets - (trend - trend.mean())
        quadratic_form = torch.linalg.solve_triangular(cholesky, residuals[:, None], upper=False).square().mean()
        return -float(0.5 * len(self.targets) * quadratic_form.log() + cholesky.diagonal().log().sum())


def covariance(kernel: Kernel, distances: Distances) -> Tensor:
    """Compute the prior covariance of architectures with these ``distances``, shape (A, B)."""
    count_covariance = (-kernel.count_inverse_lengthscale * distances.counts).exp()
    hamming_covariance = (-kernel.inverse_lengthscale * distances.hamming).exp()
    mixture = kernel.count_kernel_weight * count_covariance + (1 - kernel.count_kernel_weight) * hamming_covariance
    if distances.paths is not None:
        path_covariance = (-kernel.path_inverse_lengthscale * distances.paths).exp()
        mixture = kernel.path_kernel_weight * path_covariance + (1 - kernel.path_kernel_weight) * mixture
    if distances.trends is not None and kernel.trend_variance:
        mixture = mixture + kernel.trend_variance * distances.trends
    return mixture if distances.num_rungs is None else mixture * kernel.rung_correlation**distances.num_rungs


class _Row(NamedTuple):
    """The paths of an architecture: their indices, the square roots of their counts, and the sum of the counts."""

    indices: NDArray[np.int64]
    roots: NDArray[np.float64]
    total: float


class PathEncoder:
    """Encodes architectures as the square roots of their path counts.

    The distances of two architectures do not depend on which others were encoded before.

    Args:
        search_space: the search space.

    Attributes:
        mean_distance: the mean squared distance of uniformly sampled architectures; 0 if the search space has no cells.
    """

    def __init__(self, search_space: SearchSpace) -> None:
        self._search_space = search_space
        self._indices: dict[Path, int] = {}
        self._rows: dict[tuple[int, ...], _Row] = {}
        self._num_counts = 0  # in all rows
        self.mean_distance = 1.0
        rng = numpy_generator(0, "path distance")
        pairs = torch.tensor([[search_space.sample(rng).decisions for _ in range(2)] for _ in range(NUM_PAIRS)])
        self.mean_distance = float(self.distances(pairs[:, 0], pairs[:, 1]).diagonal().mean())

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute the normalized squared distances between ``first`` (A, m) and ``second`` (B, m), shape (A, B)."""
        if self._num_counts > MAX_PATH_COUNTS:
            self._indices.clear()
            self._rows.clear()
            self._num_counts = 0
        rows = [[self._row(tuple(decisions)) for decisions in each.tolist()] for each in (first, second)]
        roots = [self._to_matrix(each) for each in rows]
        totals = [np.array([row.total for row in each]) for each in rows]
        distances: NDArray[np.float64] = (roots[0] @ roots[1].T).toarray()
        distances *= -2
        distances += totals[0][:, None]
        distances += totals[1]
        return torch.from_numpy(distances.clip(min=0, out=distances)).div_(self.mean_distance)

    def _row(self, decisions: tuple[int, ...]) -> _Row:
        row = self._rows.get(decisions)
        if row is None:
            paths = count_paths(self._search_space, self._search_space.architecture(decisions))
            indices = [self._indices.setdefault(path, len(self._indices)) for path in paths]
            counts = np.array(list(paths.values()), dtype=np.float64)
            self._rows[decisions] = row = _Row(np.array(indices, dtype=np.int64), np.sqrt(counts), counts.sum())
            self._num_counts += len(indices)
        return row

    def _to_matrix(self, rows: Sequence[_Row]) -> sparse.csr_array:
        """Return the square roots of the path counts, shape (rows, paths)."""
        starts = np.cumsum([0, *(len(row.indices) for row in rows)])
        indices, roots = np.concatenate([row.indices for row in rows]), np.concatenate([row.roots for row in rows])
        return sparse.csr_array((roots, indices, starts), shape=(len(rows), max(1, len(self._indices))))


class TrendScores(Protocol):
    """Numbers that are known for each architecture before it is evaluated, of which high ones are probably good."""

    def __call__(self, decisions: Tensor) -> Tensor:
        """Return the scores of architectures, of shape (architectures, m), as float64, shape (architectures, scores)."""


Size = Callable[[Architecture], float | None]
"""Returns the size of an architecture; None if it is not known."""


class SizeScores:
    """Scores architectures by their size: the normal quantile of its rank among sampled ones.

    Scores are limited to ``MAX_SIZE_SCORE``, because the very largest architectures are seldom the best.

    Args:
        search_space: the search space.
        size: the size of an architecture.

    Attributes:
        are_known: whether the sizes of architectures are known and differ.
    """

    def __init__(self, search_space: SearchSpace, size: Size) -> None:
        self._search_space, self._size = search_space, size
        rng = numpy_generator(0, "size scores")
        self._sizes: list[float] = []
        for _ in range(NUM_SIZES):
            if (known := size(search_space.sample(rng))) is None:
                break
            self._sizes.append(known)
        self._sizes.sort()
        self.are_known = len(self._sizes) == NUM_SIZES and self._sizes[0] < self._sizes[-1]
        self._score = lru_cache(MAX_ENCODED)(self._score_uncached)

    @classmethod
    def of(cls, search_space: SearchSpace, size: Size) -> SizeScores | None:
        """Return the scores of architectures; None if their sizes are not known."""
        scores = cls(search_space, size)
        return scores if scores.are_known else None

    def __call__(self, decisions: Tensor) -> Tensor:
        """Return the scores of architectures, of shape (architectures, m), as float64, shape (architectures, 1)."""
        return torch.tensor([[self._score(tuple(each))] for each in decisions.tolist()], dtype=torch.float64)

    def _score_uncached(self, decisions: tuple[int, ...]) -> float:
        size = self._size(self._search_space.architecture(decisions))
        if size is None:
            raise RuntimeError(
                f"the sizes of some architectures of {self._search_space.name} are known, but not of {decisions}"
            )
        below = (bisect_left(self._sizes, size) + bisect_right(self._sizes, size)) / 2
        quantile = (below + 0.5) / (NUM_SIZES + 1)
        return float(min(MAX_SIZE_SCORE, max(-MAX_SIZE_SCORE, ndtri(quantile))))


def expected_improvement(posterior: Posterior) -> Tensor:
    """Compute the expected improvement of each candidate over the best mean (Mockus, 1975), shape (C,)."""
    return normal_excess(posterior, posterior.mean.new_tensor([posterior.best]))[:, 0]


def normal_excess(posterior: Posterior, levels: Tensor) -> Tensor:
    """Compute E[max(0, X - level)] for each candidate and level from normal distributions, shape (C, L); exact."""
    gain = (posterior.mean[:, None] - levels) / posterior.std[:, None]
    density = torch.exp(-0.5 * gain.square()) / math.sqrt(2 * math.pi)
    excess = posterior.std[:, None] * (gain * torch.special.ndtr(gain) + density)
    return torch.where(levels.isinf(), 0.0, excess)
