"""The Gaussian process matches the textbook formulas, and its kernels are valid and selected as intended."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nases_agents import gaussian_process
from nases_agents.gaussian_process import (
    KERNELS,
    MIN_SELECTION,
    PATH_KERNELS,
    RUNG_CORRELATIONS,
    GaussianProcess,
    PathEncoder,
    Posterior,
    covariance,
    expected_improvement,
)
from numpy.typing import NDArray
from scipy.stats import norm

from nases_env.search_spaces import EnasMicro, SearchSpace, count_paths
from nases_env.search_spaces.nasbench201 import NasBench201

SIZES = (5, 5, 2, 5, 1, 3)


def decisions(num: int, seed: int, sizes: tuple[int, ...] = SIZES) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(sizes, size=(num, len(sizes)))


def no_decisions(sizes: tuple[int, ...] = SIZES) -> NDArray[np.int64]:
    return np.empty((0, len(sizes)), np.int64)


def fitted(num: int = 30, seed: int = 0) -> tuple[GaussianProcess, NDArray[np.int64], torch.Tensor]:
    model = GaussianProcess(SIZES)
    data = decisions(num, seed)
    targets = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(num))
    model.fit(data, targets - targets.mean())
    return model, data, targets - targets.mean()


@pytest.mark.parametrize("num_pending", [0, 3])
def test_posterior_equals_the_textbook_formulas(num_pending: int) -> None:
    model, data, targets = fitted()
    candidates, x_pending = decisions(7, 5), decisions(num_pending, 6)
    posterior = model.posterior(candidates, x_pending)

    def between(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        distances = model._distances(torch.from_numpy(a), torch.from_numpy(b))
        covariances: NDArray[np.float64] = covariance(model.kernel, distances).numpy()
        return covariances

    noise = model.kernel.noise_variance
    inverse = np.linalg.inv(between(data, data) + noise * np.eye(len(data)))
    scale = targets.numpy() @ inverse @ targets.numpy() / len(data)
    np.testing.assert_allclose(posterior.mean, between(candidates, data) @ inverse @ targets.numpy(), rtol=1e-6, atol=1e-9)
    observed = np.concatenate([data, x_pending])
    inverse = np.linalg.inv(between(observed, observed) + noise * np.eye(len(observed)))
    cross = between(candidates, observed)
    variance = scale * (1 - np.einsum("ca,ab,cb->c", cross, inverse, cross))
    np.testing.assert_allclose(posterior.std.square(), variance, rtol=1e-6, atol=1e-9)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda sizes: max(sizes) > 1), st.integers(0, 1000))
def test_every_kernel_is_positive_definite_for_any_decision_sizes(sizes: list[int], seed: int) -> None:
    model = GaussianProcess(tuple(sizes))
    data = torch.from_numpy(decisions(25, seed, tuple(sizes)))
    distances = model._distances(data, data)
    for distance in (distances.hamming, distances.counts):
        assert (distance.diagonal() == 0).all()
        assert (distance >= 0).all()
    for kernel in KERNELS:
        assert torch.linalg.eigvalsh(covariance(kernel, distances)).min() > -1e-9


def test_mean_distance_of_uniform_architectures_is_one() -> None:
    model = GaussianProcess(SIZES)
    first, second = torch.from_numpy(decisions(400, 1)), torch.from_numpy(decisions(400, 2))
    distances = model._distances(first, second)
    for distance in (distances.hamming, distances.counts):
        assert float(distance.mean()) == pytest.approx(1, abs=0.05)


def test_pending_children_reduce_the_variance_and_keep_the_mean() -> None:
    model, _, _ = fitted()
    pending = decisions(1, 9)
    without, with_pending = model.posterior(pending, no_decisions()), model.posterior(pending, pending)
    assert float(with_pending.std) < float(without.std)
    torch.testing.assert_close(without.mean, with_pending.mean)


def test_count_kernel_is_selected_if_decisions_share_the_value_of_a_choice() -> None:
    sizes = (5,) * 6
    data, test = decisions(60, 0, sizes), decisions(500, 1, sizes)
    shared_values = np.tile([0.0, 1.0, 2.0, 4.0, 0.5], (6, 1))  # value of each choice, the same for each decision
    independent_values = np.random.default_rng(3).standard_normal((6, 5))
    weights = []
    for values in (shared_values, independent_values):
        test_rewards, rewards = (values[np.arange(6), choices].sum(1) for choices in (test, data))
        model = GaussianProcess(sizes)
        model.fit(data, torch.from_numpy(rewards - rewards.mean()))
        assert np.corrcoef(model.posterior(test, no_decisions(sizes)).mean, test_rewards)[0, 1] > 0.8
        weights.append(model.kernel.count_kernel_weight)
    assert weights[0] > weights[1]


def test_path_kernel_is_selected_if_branches_without_effect_do_not_count() -> None:
    """The reward counts convolutions on paths from the input to the output; those of other edges have no effect."""
    space = NasBench201()
    rng = np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(360)]
    values = np.array([sum(path.count("nor_conv_3x3") for path in count_paths(space, each)) for each in architectures])
    inputs = np.array([each.decisions for each in architectures])
    targets = torch.from_numpy(values[:60] - values[:60].mean()).double()
    errors = []
    for paths in (None, PathEncoder(space)):
        model = GaussianProcess(space.decision_sizes, paths)
        model.fit(inputs[:60], targets)
        predicted = model.posterior(inputs[60:], inputs[:0]).mean.numpy() + values[:60].mean()
        errors.append(np.abs(predicted - values[60:]).mean())
    assert model.kernel.path_kernel_weight > 0.5
    assert errors[1] < 0.85 * errors[0]


def test_kernels_on_paths_are_positive_definite_and_equal_networks_are_equal() -> None:
    space = EnasMicro()
    rng = np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(20)]
    model = GaussianProcess(space.decision_sizes, PathEncoder(space))
    inputs = torch.tensor([each.decisions for each in architectures])
    canonical = torch.tensor([space.canonicalize(each.decisions) for each in architectures])
    distances = model._distances(inputs, inputs)
    for kernel in PATH_KERNELS:
        assert torch.linalg.eigvalsh(covariance(kernel, distances)).min() > -1e-9
    between = model._distances(inputs, canonical).paths
    assert between is not None
    torch.testing.assert_close(between.diagonal(), torch.zeros(20).double(), atol=1e-9, rtol=0)


def test_search_space_without_cells_has_no_kernel_on_paths() -> None:
    class Widths(SearchSpace):
        name = "widths"
        decision_sizes = (4, 4)

    assert GaussianProcess((4, 4), PathEncoder(Widths())).kernels == KERNELS


def test_distances_of_paths_do_not_depend_on_what_was_encoded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    space, rng = EnasMicro(), np.random.default_rng(0)

    def sample(num: int) -> torch.Tensor:
        return torch.tensor([space.sample(rng).decisions for _ in range(num)])

    first, second, encoder = sample(3), sample(30), PathEncoder(space)
    before = encoder.distances(first, second)
    for index, decisions in enumerate(first.tolist()):
        for other, other_decisions in enumerate(second.tolist()):
            a, b = (count_paths(space, space.architecture(each)) for each in (decisions, other_decisions))
            squared_distance = sum((np.sqrt(a[path]) - np.sqrt(b[path])) ** 2 for path in a | b)
            assert before[index, other] == pytest.approx(squared_distance / encoder.mean_distance)
    monkeypatch.setattr(gaussian_process, "MAX_PATH_COUNTS", 500)
    for _ in range(10):
        encoder.distances(first, sample(30))
        assert len(encoder._indices) < 1500
    assert torch.equal(encoder.distances(first, second), before)


def test_expected_improvement_equals_the_integral() -> None:
    posterior = Posterior(torch.tensor([0.0, 1.0, -1.0]).double(), torch.tensor([1.0, 0.1, 2.0]).double(), 0.5)
    values = np.linspace(-15, 15, 200_001)
    for mean, std, improvement in zip(posterior.mean, posterior.std, expected_improvement(posterior), strict=True):
        density = norm.pdf(values, float(mean), float(std))
        assert float(improvement) == pytest.approx(np.trapezoid(np.maximum(values - 0.5, 0) * density, values), rel=1e-4)


def test_kernel_is_selected_again_as_the_data_grow() -> None:
    model = GaussianProcess(SIZES)
    sizes = []
    for num in range(20, 40):
        data = decisions(num, 0)
        model.fit(data, torch.from_numpy(data[:, 0] - data[:, 0].mean()))
        sizes.append(model.num_fitted)
    assert sorted(set(sizes)) == [20, 24, 29, 35]


def test_kernel_is_selected_at_the_first_fit_with_enough_observations() -> None:
    model = GaussianProcess(SIZES)
    for num in (MIN_SELECTION - 1, MIN_SELECTION):
        data = decisions(num, 0)
        model.fit(data, torch.from_numpy(data[:, 0] - data[:, 0].mean()))
    assert model.num_fitted == MIN_SELECTION


def test_equal_targets_have_an_expected_improvement_that_favors_unknown_candidates() -> None:
    model = GaussianProcess(SIZES)
    data = decisions(30, 0)
    model.fit(data, torch.zeros(30, dtype=torch.float64))
    values = expected_improvement(model.posterior(np.concatenate([data[:1], decisions(50, 1)]), data[:0]))
    assert (values >= 0).all()
    assert values[0] < values.max()


def test_one_rung_is_the_process_without_rungs() -> None:
    first, data, targets = fitted()
    second = GaussianProcess(SIZES)
    second.fit(data, targets, [0] * len(data))
    candidates, none = decisions(10, seed=5), data[:0]
    for a, b in zip(first.posterior(candidates, none), second.posterior(candidates, none), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_posterior_is_that_at_the_highest_rung() -> None:
    """An observation at the highest rung counts more than one at a lower rung, which still counts."""
    _, data, targets = fitted()
    promoted = data[:5]
    none = data[:0]

    def predict(shift: float, rungs: list[int]) -> float:
        model = GaussianProcess(SIZES)
        values = torch.cat([targets, targets[:5] + shift])
        model.fit(np.concatenate([data, promoted]), values, rungs)
        return float(model.posterior(promoted, none).mean.mean())

    rungs = [0] * len(data) + [1] * 5
    assert predict(1.0, rungs) - predict(0.0, rungs) > 0.5
    assert predict(1.0, rungs) > predict(1.0, [1] * len(data) + [0] * 5)


def test_rung_correlation_is_selected_by_the_data() -> None:
    data = decisions(40, seed=3)
    signs = np.random.default_rng(0).choice([-1, 1], size=(2, len(SIZES)))
    values, unrelated = (torch.from_numpy(data @ row - (data @ row).mean()).double() for row in signs)
    correlations = []
    for other in (values, unrelated):
        model = GaussianProcess(SIZES)
        model.fit(np.concatenate([data, data]), torch.cat([values, other]), [0] * len(data) + [1] * len(data))
        correlations.append(model.kernel.rung_correlation)
    assert correlations[0] == max(RUNG_CORRELATIONS)
    assert correlations[1] == min(RUNG_CORRELATIONS)


def test_pending_children_of_the_lowest_rung_reduce_the_variance() -> None:
    _, data, targets = fitted()
    model = GaussianProcess(SIZES)
    model.fit(np.concatenate([data, data[:3]]), torch.cat([targets, targets[:3]]), [0] * len(data) + [1] * 3)
    candidate = decisions(1, seed=9)
    before, after = (model.posterior(candidate, pending) for pending in (data[:0], candidate))
    assert after.std < before.std
    assert torch.equal(after.mean, before.mean)
