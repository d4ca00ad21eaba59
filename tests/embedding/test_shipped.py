"""The weights that ship, against the figures that ship beside them."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from typing import Any

import numpy as np
import pytest

from nases_env.embedding import PRESETS, Embedding, QualityReport, load_embedding, quality_report
from nases_env.search_spaces import make_search_space
from nases_env.search_spaces.base import SearchSpace

WEIGHTS = resources.files("nases_env.embedding") / "weights"


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return make_search_space("enas_micro")


@pytest.fixture(scope="module")
def embedding(space: SearchSpace) -> Embedding:
    return load_embedding(space)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    shipped: dict[str, Any] = json.loads((WEIGHTS / "enas_micro.json").read_text())
    return shipped


def test_the_record_says_how_the_weights_were_made(record: dict[str, Any]) -> None:
    assert record["command"] == "nases pretrain --output enas_micro.safetensors"
    assert record["settings"] == dataclasses.asdict(PRESETS["default"])
    assert record["seed"] == 0


def test_the_weights_are_small(space: SearchSpace) -> None:
    assert len((WEIGHTS / "enas_micro.safetensors").read_bytes()) < 1_500_000


def test_the_shipped_figures_meet_the_targets(record: dict[str, Any]) -> None:
    assert record["kept_decisions"] >= 0.55
    assert record["normal_entropy_least"] >= 0.85
    assert record["normal_entropy_mean"] >= 0.95
    assert record["distinct_architectures"] >= 9_990


def test_fresh_samples_give_the_shipped_figures(embedding: Embedding, space: SearchSpace, record: dict[str, Any]) -> None:
    fresh = quality_report(embedding, space, seed=1, num_samples=2000)
    assert fresh.kept_decisions == pytest.approx(record["kept_decisions"], abs=0.01)
    assert fresh.reconstruction_error == pytest.approx(record["reconstruction_error"], rel=0.05)
    assert fresh.normal_entropy_least > record["normal_entropy_least"] - 0.02
    assert fresh.normal_entropy_mean == pytest.approx(record["normal_entropy_mean"], abs=0.01)
    assert fresh.simulated_entropy_mean == pytest.approx(record["simulated_entropy_mean"], abs=0.01)
    assert fresh.distinct_architectures >= 1990
    for size, changed in record["changed_decisions"].items():
        assert fresh.changed_decisions[size] == pytest.approx(changed, rel=0.05)


def test_the_record_is_a_report(record: dict[str, Any]) -> None:
    assert record.keys() == {"command", "settings"} | {figure.name for figure in dataclasses.fields(QualityReport)}


def test_the_decoder_reaches_both_ends_of_every_decision(embedding: Embedding, space: SearchSpace) -> None:
    vectors = embedding.decode(np.random.default_rng(0).standard_normal((2000, embedding.embedding_size)))
    chosen = np.array([space.decode(vector).decisions for vector in vectors])
    np.testing.assert_array_equal(chosen.min(axis=0), 0)
    np.testing.assert_array_equal(chosen.max(axis=0), np.array(space.decision_sizes) - 1)
