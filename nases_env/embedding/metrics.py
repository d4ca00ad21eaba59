"""What an embedding is worth: the figures that stand beside every file of weights."""

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
    """Figures of one embedding, each measured on ``num_samples`` samples. Plain values: ``asdict`` gives JSON.

    Attributes:
        reconstruction_error: mean squared difference between uniform vectors u and decode(encode(u)).
        mean_predictor_error: the same for a decoder that always answers 0.5: 1/12.
        kept_decisions: share of the decisions of u that decode(encode(u)) makes too.
        kept_by_chance: the same for a decoder that guesses uniformly.
        normal_entropy: entropy of each decision when standard-normal embeddings are decoded, relative to uniform (1).
            Decisions with one choice are left out.
        normal_entropy_least: its least.
        normal_entropy_mean: its mean.
        simulated_entropy: the same for the simulator's embeddings of uniform vectors.
        simulated_entropy_least: its least.
        simulated_entropy_mean: its mean.
        distinct_architectures: different architecture keys among ``num_samples`` decoded standard-normal embeddings.
        changed_decisions: per step size s (in deviations of the embedding): how many decisions change on average when a
            standard-normal embedding moves by a Gaussian of deviation s in every dimension.
    """

    search_space: str
    num_decisions: int
    embedding_size: int
    num_samples: int
    seed: int
    reconstruction_error: float
    mean_predictor_error: float
    kept_decisions: float
    kept_by_chance: float
    normal_entropy: list[float]
    normal_entropy_least: float
    normal_entropy_mean: float
    simulated_entropy: list[float]
    simulated_entropy_least: float
    simulated_entropy_mean: float
    distinct_architectures: int
    changed_decisions: dict[str, float]
    versions: dict[str, str]


def quality_report(
    embedding: Embedding, search_space: SearchSpace, seed: int, num_samples: int = NUM_SAMPLES
) -> QualityReport:
    """Measure ``embedding`` on ``num_samples`` uniform vectors and as many standard-normal embeddings, drawn from ``seed``.

    Raises:
        InputError: if the embedding is of another search space, or of none that makes a decision.
    """
    if embedding.decision_sizes != search_space.decision_sizes:
        raise InputError(f"the embedding is of {embedding.search_space_name}, not of {search_space.name}")
    sizes = np.asarray(search_space.decision_sizes)
    if sizes.max() < 2:
        raise InputError(f"{search_space.name} has one architecture only; there is nothing to measure")
    rng = numpy_generator(seed, "embedding", "quality report")
    uniform = rng.random((num_samples, embedding.num_decisions), dtype=np.float32)
    normal = rng.standard_normal((num_samples, embedding.embedding_size), dtype=np.float32)

    simulated = embedding.decode(embedding.encode(uniform))
    simulated_decisions = _decisions(simulated, sizes)
    decoded = embedding.decode(normal)
    normal_decisions = _decisions(decoded, sizes)
    normal_entropy = _relative_entropy(normal_decisions, sizes)
    simulated_entropy = _relative_entropy(simulated_decisions, sizes)
    changed = {}
    for size in STEP_SIZES:
        moved = normal + np.float32(size) * rng.standard_normal(normal.shape, dtype=np.float32)
        changes = _decisions(embedding.decode(moved), sizes) != normal_decisions
        changed[str(size)] = float(changes.sum(axis=1).mean())
    return QualityReport(
        search_space=search_space.name,
        num_decisions=embedding.num_decisions,
        embedding_size=embedding.embedding_size,
        num_samples=num_samples,
        seed=seed,
        reconstruction_error=float(np.square(simulated - uniform, dtype=np.float64).mean()),
        mean_predictor_error=1 / 12,
        kept_decisions=float((simulated_decisions == _decisions(uniform, sizes)).mean()),
        kept_by_chance=float((1 / sizes).mean()),
        normal_entropy=normal_entropy,
        normal_entropy_least=min(normal_entropy),
        normal_entropy_mean=float(np.mean(normal_entropy)),
        simulated_entropy=simulated_entropy,
        simulated_entropy_least=min(simulated_entropy),
        simulated_entropy_mean=float(np.mean(simulated_entropy)),
        distinct_architectures=len({search_space.decode(vector).key for vector in decoded}),
        changed_decisions=changed,
        versions={"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    )


def report_table(report: QualityReport) -> Table:
    """The report as a table for people."""
    table = Table(
        title=f"Embedding of {report.search_space}: {report.num_decisions} decisions in {report.embedding_size} numbers"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("to compare")
    rows: list[tuple[str, str, str]] = [
        ("reconstruction error", f"{report.reconstruction_error:.4f}", f"{report.mean_predictor_error:.4f} always 0.5"),
        ("decisions kept", f"{report.kept_decisions:.1%}", f"{report.kept_by_chance:.1%} by chance"),
        ("entropy of decisions, normal embeddings: least", f"{report.normal_entropy_least:.3f}", "1 uniform"),
        ("entropy of decisions, normal embeddings: mean", f"{report.normal_entropy_mean:.3f}", "1 uniform"),
        ("entropy of decisions, simulated embeddings: least", f"{report.simulated_entropy_least:.3f}", "1 uniform"),
        ("entropy of decisions, simulated embeddings: mean", f"{report.simulated_entropy_mean:.3f}", "1 uniform"),
        ("distinct architectures", f"{report.distinct_architectures:,}", f"of {report.num_samples:,}"),
    ]
    for size, changes in report.changed_decisions.items():
        rows.append((f"decisions changed by a step of {size} deviations", f"{changes:.1f}", f"of {report.num_decisions}"))
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
