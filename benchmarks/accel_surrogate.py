"""The surrogate of Accel-NASBench: how well it predicts networks that it was not fitted to.

Regressors are compared by cross-validation over the distinct networks of the table. Those with the settings of
``NASES-Accel-v0`` also predict parameters and multiply-adds. A local search from random networks finds a reference for
the rewards of agents: the best accuracy of the surrogate that is known.

    python -m benchmarks.accel_surrogate --table accel-nasbench.csv --output accel_surrogate.json
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import sklearn
from numpy.typing import NDArray
from rich.table import Table
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.common.console import wide_console
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import require_minimum
from nases_env.evaluation import AccelEvaluator
from nases_env.evaluation.accel import ACCURACY, SIZES, Networks
from nases_env.evaluation.accel_surrogate import (
    SETTINGS,
    Surrogate,
    accuracy_features,
    make_regressor,
    make_size_regressor,
    size_features,
)
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.accel import Accel
from nases_env.seeding import numpy_generator

REGRESSORS: dict[str, Callable[[], Any]] = {
    "quadratic ridge regression": lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge(10.0)),
    "gradient boosting": lambda: GradientBoostingRegressor(
        n_estimators=1000, learning_rate=0.15, max_depth=3, max_features=0.3, random_state=0
    ),
    "gradient boosting on histograms": lambda: HistGradientBoostingRegressor(
        max_iter=2000, learning_rate=0.1, max_leaf_nodes=5, max_features=0.5, early_stopping=False, random_state=0
    ),
    "support vector regression": make_regressor,
}
"""The compared regressors of the accuracy; the last one is that of the environment."""

NUM_RANDOM = 3000
MIN_WIDTH = 120  # characters of the table if the output is not a terminal


@dataclass
class Args:
    """Options of the benchmark."""

    table: str | None = None
    """CSV file of Accel-NASBench; unset: the environment variable NASES_ACCEL_TABLE, or the file in NASES_DATA_DIR."""
    num_folds: int = 5
    """Number of folds of the cross-validation."""
    num_starts: int = 100
    """Number of local searches for the best accuracy of the surrogate."""
    seed: int = 0
    """Seed of the folds and of the local searches."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        require_minimum(2, num_folds=self.num_folds)
        require_minimum(1, num_starts=self.num_starts)
        require_minimum(0, seed=self.seed)


def cross_validate(
    make: Callable[[], Any], features: NDArray[np.float64], values: NDArray[np.float64], folds: KFold
) -> tuple[NDArray[np.float64], float]:
    """Return the prediction of each value by a regressor that was fitted without it, and the mean seconds of a fit."""
    predicted, seconds = np.empty_like(values), []
    for fitted, left_out in folds.split(features):
        start = time.perf_counter()
        regressor = make().fit(features[fitted], values[fitted])
        seconds.append(time.perf_counter() - start)
        predicted[left_out] = regressor.predict(features[left_out])
    return predicted, float(np.mean(seconds))


def measure(predicted: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, float]:
    """Return rank correlations, the coefficient of determination and errors of predictions."""
    errors = predicted - values
    return {
        "kendall": float(scipy.stats.kendalltau(predicted, values).statistic),
        "spearman": float(scipy.stats.spearmanr(predicted, values).statistic),
        "r2": float(1 - np.sum(errors**2) / np.sum((values - values.mean()) ** 2)),
        "mean_absolute_error": float(np.mean(np.abs(errors))),
        "mean_relative_error": float(np.mean(np.abs(errors / values))),
        "max_relative_error": float(np.max(np.abs(errors / values))),
    }


def climb(surrogate: Surrogate, start: Architecture) -> tuple[Architecture, float]:
    """Change one decision at a time, each time the best one, until the predicted accuracy does not increase."""
    space, best, accuracy = Accel(), start, -1.0
    while True:
        neighbors = [best] + [
            space.architecture((*best.decisions[:index], choice, *best.decisions[index + 1 :]))
            for index, size in enumerate(space.decision_sizes)
            for choice in range(size)
        ]
        accuracies = surrogate.predict_accuracies(neighbors)
        found = int(accuracies.argmax())
        if accuracies[found] <= accuracy:
            return best, accuracy
        best, accuracy = neighbors[found], float(accuracies[found])


def predict_simple_choices(surrogate: Surrogate, args: Args) -> dict[str, float]:
    """Return the accuracy of the last choice of every decision, and of the best of ``NUM_RANDOM`` random networks."""
    space, rng = Accel(), numpy_generator(args.seed, "accel surrogate", "random networks")
    last = space.architecture([size - 1 for size in space.decision_sizes])
    accuracies = surrogate.predict_accuracies([last, *(space.sample(rng) for _ in range(NUM_RANDOM))])
    return {"last_choices": float(accuracies[0]), "best_random": float(accuracies[1:].max())}


def search_locally(surrogate: Surrogate, args: Args) -> dict[str, Any]:
    """Return the best network of all local searches and the accuracies that they reach."""
    rng = numpy_generator(args.seed, "accel surrogate", "starts")
    found = [climb(surrogate, Accel().sample(rng)) for _ in range(args.num_starts)]
    best, accuracy = max(found, key=lambda each: each[1])
    return {
        "accuracy": accuracy,
        "architecture": Accel().to_string(best),
        "num_starts_that_reach_it": sum(key.key == best.key for key, _ in found),
        "accuracies": sorted((each for _, each in found), reverse=True),
    }


def compare(networks: Networks, args: Args) -> dict[str, dict[str, float]]:
    """Return the measurements of each regressor of the accuracy, and of the sizes, by name."""
    folds = KFold(args.num_folds, shuffle=True, random_state=args.seed)
    accuracies = np.array(networks.columns[ACCURACY])
    features = accuracy_features(networks.architectures)
    results = {}
    for name, make in REGRESSORS.items():
        predicted, seconds = cross_validate(make, features, accuracies, folds)
        results[name] = {**measure(predicted, accuracies), "seconds_per_fit": seconds}
    for column in SIZES:
        if column in networks.columns:
            values = np.array(networks.columns[column])
            predicted, seconds = cross_validate(make_size_regressor, size_features(networks.architectures), values, folds)
            results[column] = {**measure(predicted, values), "seconds_per_fit": seconds}
    return results


def main(args: Args) -> None:
    """Measure how well the surrogate of Accel-NASBench predicts accuracies and sizes."""
    evaluator = AccelEvaluator(path=args.table)
    evaluator.prepare()
    networks = evaluator.networks
    with threadpool_limits(1):
        results = compare(networks, args)
        simple = predict_simple_choices(evaluator.surrogate, args)
        local_search = search_locally(evaluator.surrogate, args)
    table = Table(title=f"{len(networks.architectures):,} networks, {args.num_folds}-fold cross-validation")
    for heading in ("prediction", "Kendall", "Spearman", "R²", "mean error", "mean error (%)", "s/fit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['kendall']:.3f}",
            f"{row['spearman']:.3f}",
            f"{row['r2']:.5f}",
            f"{row['mean_absolute_error']:.4f}",
            f"{100 * row['mean_relative_error']:.4f}",
            f"{row['seconds_per_fit']:.1f}",
        )
    console = wide_console(MIN_WIDTH)
    console.print(table)
    console.print(
        f"best accuracy of the surrogate: {local_search['accuracy']:.2%}, in "
        f"{local_search['num_starts_that_reach_it']} of {args.num_starts} local searches: {local_search['architecture']}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"last choice of every decision: {simple['last_choices']:.2%}; best of {NUM_RANDOM:,} random networks: "
        f"{simple['best_random']:.2%}",
        highlight=False,
        soft_wrap=True,
    )
    if args.output is not None:
        record = {
            "benchmark": "accel_surrogate",
            "settings": dataclasses.asdict(args),
            "surrogate": dict(SETTINGS),
            "digest": evaluator.digest(),
            "scikit-learn": sklearn.__version__,
            "num_networks": len(networks.architectures),
            "results": results,
            "simple_choices": simple,
            "local_search": local_search,
        }
        write_atomically(args.output, (json.dumps(record, indent=2, default=str) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
