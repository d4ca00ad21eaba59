"""The surrogate of Accel-NASBench: a model of its table, which contains few of the networks of the search space.

The accuracy is predicted by support vector regression on the logarithms of expansion factors, numbers of layers and their
products, the kernel sizes, and squeeze-and-excitation. ``benchmarks/accel_surrogate.py`` compares it with other models by
cross-validation. Parameters and multiply-adds are sums over the blocks, each of which depends on the four decisions of the
block: they are predicted by linear regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nases_env.search_spaces import Architecture
from nases_env.search_spaces.accel import FIELDS, NUM_BLOCKS, Accel

SETTINGS: Mapping[str, str | float] = {"kernel": "rbf", "C": 10.0, "gamma": 0.01, "epsilon": 0.2}
"""The settings of the support vector regression of the accuracy in percent."""

SIZE_TOLERANCE = 0.01  # of the mean relative error in cross-validation; sizes that are less accurate are not predicted
NUM_FOLDS = 5
ROUNDED_TO = 1000  # parameters or multiply-adds

SPACE = Accel()


@dataclass(frozen=True)
class Surrogate:
    """Predicts the results of networks.

    Attributes:
        regressor: maps ``accuracy_features`` to the accuracy in percent.
        size_regressors: map ``size_features`` to millions of parameters and multiply-adds, by column of the table.
    """

    regressor: Any
    size_regressors: Mapping[str, Any]

    def predict_accuracies(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return the accuracies in [0, 1], shape (number of architectures,)."""
        percent = self.regressor.predict(accuracy_features(architectures))
        return np.clip(np.asarray(percent, np.float64) / 100, 0.0, 1.0)

    def predict_size(self, architecture: Architecture, column: str) -> int:
        """Return the number of parameters or multiply-adds, rounded to thousands; 0 if it cannot be predicted."""
        if column not in self.size_regressors:
            return 0
        (millions,) = self.size_regressors[column].predict(size_features([architecture]))
        return ROUNDED_TO * max(0, round(1e6 * float(millions) / ROUNDED_TO))


def fit_surrogate(
    architectures: Sequence[Architecture], accuracies: Sequence[float], sizes: Mapping[str, Sequence[float]]
) -> Surrogate:
    """Fit the surrogate; the result depends only on the arguments.

    Args:
        architectures: distinct networks.
        accuracies: their accuracies in percent.
        sizes: by column of the table, their millions of parameters or multiply-adds, all positive.
    """
    with threadpool_limits(1):
        regressor = make_regressor().fit(accuracy_features(architectures), np.asarray(accuracies))
        features = size_features(architectures)
        accurate = {
            column: make_size_regressor().fit(features, np.asarray(values))
            for column, values in sizes.items()
            if np.mean(size_errors(features, values)) < SIZE_TOLERANCE
        }
    return Surrogate(regressor, accurate)


def make_regressor() -> Any:
    """Return the regressor of the accuracy, which has one thread and draws no random numbers."""
    from sklearn.pipeline import make_pipeline  # slow to import
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    return make_pipeline(StandardScaler(), SVR(**SETTINGS))


def make_size_regressor() -> Any:
    """Return the regressor of a number of parameters or multiply-adds."""
    from sklearn.linear_model import Ridge  # slow to import

    return Ridge(alpha=1e-3, solver="cholesky")  # the indicators of a block add up to 1, so least squares has many solutions


def size_errors(features: NDArray[np.float64], values: Sequence[float]) -> NDArray[np.float64]:
    """Return the relative error of the predicted size of each network in cross-validation."""
    from sklearn.model_selection import KFold, cross_val_predict  # slow to import

    folds = KFold(NUM_FOLDS, shuffle=True, random_state=0)
    predicted = cross_val_predict(make_size_regressor(), features, np.asarray(values), cv=folds)
    errors: NDArray[np.float64] = np.abs(predicted / np.asarray(values) - 1)
    return errors


def accuracy_features(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """Return the features of the accuracy, shape (number of architectures, 35)."""
    values = np.array([SPACE.values(architecture) for architecture in architectures], np.float64)
    expansions, kernel_sizes, num_layers, excitations = (values[:, index :: len(FIELDS)] for index in range(len(FIELDS)))
    products = np.log(expansions * num_layers)
    return np.hstack([np.log(expansions), np.log(num_layers), products, kernel_sizes, excitations])


def size_features(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """Return an indicator for each combination of decisions in each block, shape (number of architectures, 264)."""
    decisions = np.array([architecture.decisions for architecture in architectures])
    indicators = []
    for block in range(NUM_BLOCKS):
        of_block = slice(block * len(FIELDS), (block + 1) * len(FIELDS))
        sizes = SPACE.decision_sizes[of_block]
        indicators.append(np.eye(int(np.prod(sizes)))[np.ravel_multi_index(tuple(decisions[:, of_block].T), sizes)])
    return np.hstack(indicators)
