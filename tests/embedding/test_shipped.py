"""The weights that ship, against the figures that ship beside them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from importlib import resources
from typing import Any

import numpy as np
import pytest
import tyro

from nases_env.cli.pretrain import PretrainArgs
from nases_env.embedding import Embedding, QualityReport, load_embedding, quality_report
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, get_search_space

WEIGHTS = resources.files("nases_env.embedding") / "weights"


@pytest.fixture(scope="module", params=list(SEARCH_SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return get_search_space(request.param)


@pytest.fixture(scope="module")
def embedding(space: SearchSpace) -> Embedding:
    return load_embedding(space)


@pytest.fixture(scope="module")
def record(space: SearchSpace) -> dict[str, Any]:
    return read_record(space.name)


def read_record(name: str) -> dict[str, Any]:
    shipped: dict[str, Any] = json.loads((WEIGHTS / f"{name}.json").read_text())
    return shipped


def decisions(space: SearchSpace, vectors: np.ndarray) -> np.ndarray:
    return np.array([space.decode(vector).decisions for vector in vectors])


def test_every_search_space_has_weights_and_a_record_and_nothing_else_ships() -> None:
    files = {f"{name}.{ending}" for name in SEARCH_SPACES for ending in ("json", "safetensors")}
    assert {file.name for file in WEIGHTS.iterdir()} == files


def test_the_record_says_how_the_weights_were_made(space: SearchSpace, embedding: Embedding, record: dict[str, Any]) -> None:
    args = tyro.cli(PretrainArgs, args=shlex.split(record["command"])[2:])
    assert get_search_space(args.search_space) is space
    assert args.output.name == f"{space.name}.safetensors"
    assert record["settings"] == dataclasses.asdict(args.settings(space))
    assert record["seed"] == args.seed
    for size in ("embedding_size", "hidden_size", "loss"):
        assert record["settings"][size] == getattr(embedding, size)


def test_the_shipped_figures_meet_the_targets() -> None:
    enas_micro = read_record("enas_micro")
    assert enas_micro["command"] == "nases pretrain --output enas_micro.safetensors"
    assert enas_micro["kept_decisions"] >= 0.55
    assert enas_micro["normal_entropy_least"] >= 0.85
    assert enas_micro["normal_entropy_mean"] >= 0.95
    assert enas_micro["distinct_architectures"] >= 9_990
    nasbench201 = read_record("nasbench201")
    assert nasbench201["kept_decisions"] >= 0.9
    assert nasbench201["normal_entropy_least"] >= 0.99


def test_every_cell_of_nasbench201_is_kept_and_within_reach() -> None:
    space = get_search_space("nasbench201")
    embedding = load_embedding(space)
    cells = np.array(list(itertools.product(*map(range, space.decision_sizes))))
    embeddings = embedding.encode((cells + 0.5) / 5)
    np.testing.assert_array_equal(np.floor(embedding.decode(embeddings) * 5), cells)
    normal = np.random.default_rng(0).standard_normal((400_000, embedding.embedding_size))
    assert len(np.unique(np.floor(embedding.decode(normal) * 5) @ 5 ** np.arange(6))) == len(cells)


def test_fresh_samples_give_the_shipped_figures(embedding: Embedding, space: SearchSpace, record: dict[str, Any]) -> None:
    fresh = quality_report(embedding, space, seed=1, num_samples=2000)
    assert fresh.kept_decisions == pytest.approx(record["kept_decisions"], abs=0.01)
    assert fresh.reconstruction_error == pytest.approx(record["reconstruction_error"], rel=0.1)
    assert fresh.normal_entropy_least > record["normal_entropy_least"] - 0.02
    assert fresh.normal_entropy_mean == pytest.approx(record["normal_entropy_mean"], abs=0.01)
    assert fresh.simulated_entropy_mean == pytest.approx(record["simulated_entropy_mean"], abs=0.01)
    assert fresh.distinct_architectures >= 2000 / 10_000 * record["distinct_architectures"] - 10
    for size, changed in record["changed_decisions"].items():
        assert fresh.changed_decisions[size] == pytest.approx(changed, rel=0.05)


def test_the_record_is_a_report(record: dict[str, Any]) -> None:
    assert record.keys() == {"command", "settings"} | {figure.name for figure in dataclasses.fields(QualityReport)}


def test_the_decoder_reaches_both_ends_of_every_decision(embedding: Embedding, space: SearchSpace) -> None:
    chosen = decisions(space, embedding.decode(np.random.default_rng(0).standard_normal((2000, embedding.embedding_size))))
    np.testing.assert_array_equal(chosen.min(axis=0), 0)
    np.testing.assert_array_equal(chosen.max(axis=0), np.array(space.decision_sizes) - 1)


def test_the_weights_are_small() -> None:
    sizes = {name: len((WEIGHTS / f"{name}.safetensors").read_bytes()) for name in SEARCH_SPACES}
    assert sizes["enas_micro"] < 1_500_000
    assert sizes["nasbench201"] < 300_000
