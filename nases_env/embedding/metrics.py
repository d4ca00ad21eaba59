"""Quality metrics of an embedding; saved next to its weights."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from nases_env.embedding.autoencoder import Embedding
from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from nases_env.seeding import numpy_generator

NUM_SAMPLES = 10_000
STEP_SIZES = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class QualityReport:
    """Quality metrics of one embedding, each measured on ``num_samples`` samples. ``asdict`` returns JSON values.

    Attributes:
        search_space: name of the search space.
        num_decisions: m, the number of its decisions.
        embedding_size: n.
        num_samples: number of samples of each metric.
        seed: seed of the samples.
        reconstruction_error: mean squared difference between uniform vectors u and decode(encode(u)).
        constant_predictor_mse: the same for a decoder that always outputs 0.5, which is 1/12.
        reconstruction_accuracy: share of the decisions of u that decode(encode(u)) preserves.
        chance_accuracy: the same for a decoder that guesses uniformly.
        prior_decision_entropy: entropy of each decision when standard-normal embeddings are decoded, divided by the entropy
            of the uniform distribution. Decisions with a single choice are omitted.
        prior_decision_entropy_min: minimum of ``prior_decision_entropy``.
        prior_decision_entropy_mean: mean of ``prior_decision_entropy``.
        reconstructed_decision_entropy: the same when the embeddings of uniform vectors are decoded.
        reconstructed_decision_entropy_min: minimum of ``reconstructed_decision_entropy``.
        reconstructed_decision_entropy_mean: mean of ``reconstructed_decision_entropy``.
        num_unique: number of distinct architecture keys among the decoded standard-normal embeddings.
        perturbation_sensitivity: for each step size s, the mean number of decisions that change when Gaussian noise of
            standard deviation s is added to a standard-normal embedding.
        versions: versions of Python, NumPy and PyTorch.
    """

    search_space: str
    num_decisions: int
    embedding_size: int
    num_samples: int
    seed: int
    reconstruction_error: float
    constant_predictor_mse: float
    reconstruction_accuracy: float
    chance_accuracy: float
    prior_decision_entropy: list[float]
    prior_decision_entropy_min: float
    prior_decision_entropy_mean: float
    reconstructed_decision_entropy: list[float]
    reconstructed_decision_entropy_min: float
    reconstructed_decision_entropy_mean: float
    num_unique: int
    perturbation_sensitivity: dict[str, float]
    versions: dict[str, str]


def quality_report(
    embedding: Embedding, search_space: SearchSpace, seed: int, num_samples: int = NUM_SAMPLES
) -> QualityReport:
    """Measure the quality of an embedding on uniform vectors and standard-normal embeddings.

    Args:
        embedding: the embedding.
        search_space: the search space that it was trained for.
        seed: seed of the samples.
        num_samples: number of vectors and of embeddings.

    Raises:
        InputError: if the embedding belongs to a different search space, or the search space has a single architecture.
    """
    if embedding.decision_sizes != search_space.decision_sizes:
        raise InputError(f"the embedding is for the search space {embedding.search_space_name}, not for {search_space.name}")
    sizes = np.asarray(search_space.decision_sizes)
    if sizes.max() < 2:
        raise InputError(f"{search_space.name} has a single architecture, so there is nothing to measure")
    rng = numpy_generator(seed, "embedding", "quality report")
    uniform = rng.random((num_samples, embedding.num_decisions), dtype=np.float32)
    normal = rng.standard_normal((num_samples, embedding.embedding_size), dtype=np.float32)

    reconstructed = embedding.decode(embedding.encode(uniform))
    reconstructed_decisions = _decisions(reconstructed, sizes)
    reconstructed_entropy = _relative_entropy(reconstructed_decisions, sizes)
    prior = embedding.decode(normal)
    prior_decisions = _decisions(prior, sizes)
    prior_entropy = _relative_entropy(prior_decisions, sizes)
    sensitivity = {}
    for step_size in STEP_SIZES:
        perturbed = normal + np.float32(step_size) * rng.standard_normal(normal.shape, dtype=np.float32)
        changes = _decisions(embedding.decode(perturbed), sizes) != prior_decisions
        sensitivity[str(step_size)] = float(changes.sum(axis=1).mean())
    return QualityReport(
        search_space=search_space.name,
        num_decisions=embedding.num_decisions,
        embedding_size=embedding.embedding_size,
        num_samples=num_samples,
        seed=seed,
        reconstruction_error=float(np.square(reconstructed - uniform, dtype=np.float64).mean()),
        constant_predictor_mse=1 / 12,
        reconstruction_accuracy=float((reconstructed_decisions == _decisions(uniform, sizes)).mean()),
        chance_accuracy=float((1 / sizes).mean()),
        prior_decision_entropy=prior_entropy,
        prior_decision_entropy_min=min(prior_entropy),
        prior_decision_entropy_mean=float(np.mean(prior_entropy)),
        reconstructed_decision_entropy=reconstructed_entropy,
        reconstructed_decision_entropy_min=min(reconstructed_entropy),
        reconstructed_decision_entropy_mean=float(np.mean(reconstructed_entropy)),
        num_unique=len({architecture.key for architecture in search_space.decode_batch(prior)}),
        perturbation_sensitivity=sensitivity,
        versions={"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    )


def report_table(report: QualityReport) -> Table:
    """Return the report as a table for the terminal."""
    table = Table(
        title=f"Embedding of {report.search_space}: {report.num_decisions} decisions, {report.embedding_size} dimensions"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("reference")
    prior = report.prior_decision_entropy_min, report.prior_decision_entropy_mean
    reconstructed = report.reconstructed_decision_entropy_min, report.reconstructed_decision_entropy_mean
    rows: list[tuple[str, str, str]] = [
        ("reconstruction error", f"{report.reconstruction_error:.4f}", f"{report.constant_predictor_mse:.4f} (always 0.5)"),
        ("reconstruction accuracy", f"{report.reconstruction_accuracy:.1%}", f"{report.chance_accuracy:.1%} (chance)"),
        ("decision entropy, normal embeddings: min, mean", "{:.3f}, {:.3f}".format(*prior), "1 (uniform)"),
        ("decision entropy, reconstructions: min, mean", "{:.3f}, {:.3f}".format(*reconstructed), "1 (uniform)"),
        ("unique architectures", f"{report.num_unique:,}", f"of {report.num_samples:,}"),
    ]
    for step_size, changes in report.perturbation_sensitivity.items():
        rows.append((f"decisions changed by noise of std {step_size}", f"{changes:.1f}", f"of {report.num_decisions}"))
    for row in rows:
        table.add_row(*row)
    return table


def _decisions(vectors: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    decisions: NDArray[np.int64] = np.minimum((vectors.astype(np.float64) * sizes).astype(np.int64), sizes - 1)
    return decisions


def _relative_entropy(decisions: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[float]:
    entropies = []
    for chosen, size in zip(decisions.T, sizes, strict=True):
        if size > 1:
            shares = np.bincount(chosen, minlength=size) / len(chosen)
            shares = shares[shares > 0]
            entropies.append(float((shares * np.log(1 / shares)).sum() / np.log(size)))
    return entropies
