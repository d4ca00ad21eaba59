from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from nases_env.embedding import Embedding, quality_report, report_table
from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from tests.embedding.spaces import ListSpace, decisions

NUM_SAMPLES = 3000


def relative_entropies(chosen: np.ndarray, sizes: tuple[int, ...]) -> list[float]:
    return [
        float(scipy.stats.entropy(np.bincount(column, minlength=size), base=size))
        for column, size in zip(chosen.T, sizes, strict=True)
        if size > 1
    ]


def test_metrics_agree_with_an_independent_computation_on_other_samples(trained: Embedding, space: SearchSpace) -> None:
    report = quality_report(trained, space, seed=0, num_samples=NUM_SAMPLES)
    rng = np.random.default_rng(1)
    uniform = rng.random((NUM_SAMPLES, 7))
    normal = rng.standard_normal((NUM_SAMPLES, 3))
    restored = trained.decode(trained.encode(uniform))
    decoded = decisions(space, trained.decode(normal))

    assert report.num_decisions == 7
    assert report.reconstruction_error == pytest.approx(np.mean((restored - uniform) ** 2), rel=0.05)
    accuracy = np.mean(decisions(space, restored) == decisions(space, uniform))
    assert report.reconstruction_accuracy == pytest.approx(accuracy, abs=0.02)
    assert report.chance_accuracy == pytest.approx(np.mean(1 / np.array(space.decision_sizes)))
    assert report.prior_decision_entropy == pytest.approx(relative_entropies(decoded, space.decision_sizes), abs=0.05)
    assert report.reconstructed_decision_entropy == pytest.approx(
        relative_entropies(decisions(space, restored), space.decision_sizes), abs=0.05
    )
    assert report.num_unique == pytest.approx(len(np.unique(decoded, axis=0)), rel=0.1)
    for size, changed in report.perturbation_sensitivity.items():
        moved = decisions(space, trained.decode(normal + float(size) * rng.standard_normal(normal.shape)))
        assert changed == pytest.approx(np.sum(moved != decoded, axis=1).mean(), abs=0.1)


def test_decisions_with_one_choice_are_left_out_of_the_entropy(trained: Embedding, space: SearchSpace) -> None:
    report = quality_report(trained, space, seed=0, num_samples=200)
    assert len(report.prior_decision_entropy) == len(report.reconstructed_decision_entropy) == 6
    assert report.prior_decision_entropy_min == min(report.prior_decision_entropy)
    assert report.reconstructed_decision_entropy_mean == pytest.approx(np.mean(report.reconstructed_decision_entropy))


def test_report_depends_on_the_seed(trained: Embedding, space: SearchSpace) -> None:
    first, again, other = (quality_report(trained, space, seed, num_samples=300) for seed in (1, 1, 2))
    assert first == again
    assert first.reconstruction_error != other.reconstruction_error


def test_report_converts_to_json_and_a_table(trained: Embedding, space: SearchSpace) -> None:
    report = quality_report(trained, space, seed=0, num_samples=200)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["perturbation_sensitivity"].keys() == {"0.1", "0.3", "1.0"}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report_table(report))
    assert f"{report.reconstruction_accuracy:.1%}" in console.export_text()


def test_other_search_space_is_an_input_error(trained: Embedding) -> None:
    with pytest.raises(InputError, match="not for list"):
        quality_report(trained, ListSpace((2, 2)), seed=0)


def test_single_architecture_is_an_input_error() -> None:
    space = ListSpace((1, 1))
    with pytest.raises(InputError, match="nothing to measure"):
        quality_report(Embedding(space, embedding_size=1, hidden_size=4, loss="cross_entropy"), space, seed=0)
