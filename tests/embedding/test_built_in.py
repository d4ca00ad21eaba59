"""The built-in embeddings and their quality reports."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from importlib import resources
from typing import Any

import numpy as np
import pytest

from nases_env.cli.pretrain import parse_pretrain
from nases_env.embedding import Embedding, QualityReport, load_embedding, quality_report
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, get_search_space
from tests.embedding.spaces import decisions

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
    report: dict[str, Any] = json.loads((WEIGHTS / f"{name}.json").read_text())
    return report


def test_every_search_space_has_weights_and_a_report() -> None:
    files = {f"{name}.{ending}" for name in SEARCH_SPACES for ending in ("json", "safetensors")}
    assert {file.name for file in WEIGHTS.iterdir()} == files


def test_report_contains_command_settings_and_seed(space: SearchSpace, embedding: Embedding, record: dict[str, Any]) -> None:
    args = parse_pretrain(shlex.split(record["command"])[2:])
    assert get_search_space(args.search_space) is space
    assert args.output.name == f"{space.name}.safetensors"
    assert args.settings is not None
    settings = dataclasses.replace(args.settings, embedding_size=args.settings.embedding_size_for(space))
    assert record["settings"] == dataclasses.asdict(settings)
    assert record["seed"] == args.seed
    for size in ("embedding_size", "hidden_size", "loss"):
        assert record["settings"][size] == getattr(embedding, size)


def test_metrics_meet_the_targets() -> None:
    enas_micro = read_record("enas_micro")
    assert enas_micro["command"] == "nases pretrain --output enas_micro.safetensors"
    assert enas_micro["reconstruction_accuracy"] >= 0.55
    assert enas_micro["prior_decision_entropy_min"] >= 0.85
    assert enas_micro["prior_decision_entropy_mean"] >= 0.95
    assert enas_micro["num_unique"] >= 9_990
    enas_micro_sized = read_record("enas_micro_sized")
    assert enas_micro_sized["settings"] == enas_micro["settings"]
    assert enas_micro_sized["reconstruction_accuracy"] >= 0.55
    assert enas_micro_sized["prior_decision_entropy_min"] >= 0.95
    assert enas_micro_sized["num_unique"] >= 9_990
    nasbench201 = read_record("nasbench201")
    assert nasbench201["reconstruction_accuracy"] >= 0.9
    assert nasbench201["prior_decision_entropy_min"] >= 0.99
    transnas_micro = read_record("transnas_micro")
    assert transnas_micro["settings"] == nasbench201["settings"]
    assert transnas_micro["reconstruction_accuracy"] >= 0.9
    assert transnas_micro["prior_decision_entropy_min"] >= 0.99
    accel = read_record("accel")
    assert accel["settings"] == enas_micro["settings"]
    assert accel["reconstruction_accuracy"] >= 0.95
    assert accel["prior_decision_entropy_min"] >= 0.95
    assert accel["num_unique"] >= 9_990


@pytest.mark.parametrize("name", ["nasbench201", "transnas_micro"])
def test_every_cell_of_six_edges_is_reconstructed_and_reachable(name: str) -> None:
    space = get_search_space(name)
    embedding = load_embedding(space)
    size = space.decision_sizes[0]
    cells = np.array(list(itertools.product(range(size), repeat=6)))
    embeddings = embedding.encode((cells + 0.5) / size)
    np.testing.assert_array_equal(np.floor(embedding.decode(embeddings) * size), cells)
    normal = np.random.default_rng(0).standard_normal((200_000, embedding.embedding_size))
    assert len(np.unique(np.floor(embedding.decode(normal) * size) @ size ** np.arange(6))) == len(cells)


def test_metrics_are_reproduced_on_new_samples(embedding: Embedding, space: SearchSpace, record: dict[str, Any]) -> None:
    num_samples = 2000 if space.num_decisions > 6 else 8000  # means over few decisions vary more
    report = quality_report(embedding, space, seed=1, num_samples=num_samples)
    assert report.reconstruction_accuracy == pytest.approx(record["reconstruction_accuracy"], abs=0.01)
    assert report.reconstruction_error == pytest.approx(record["reconstruction_error"], rel=0.1)
    assert report.prior_decision_entropy_min > record["prior_decision_entropy_min"] - 0.02
    for name in ("prior_decision_entropy_mean", "reconstructed_decision_entropy_mean"):
        assert getattr(report, name) == pytest.approx(record[name], abs=0.01)
    assert report.num_unique >= num_samples / 10_000 * record["num_unique"] - 10
    for size, changed in record["perturbation_sensitivity"].items():
        assert report.perturbation_sensitivity[size] == pytest.approx(changed, rel=0.05)


def test_report_has_the_fields_of_quality_report(record: dict[str, Any]) -> None:
    assert record.keys() == {"command", "settings"} | {figure.name for figure in dataclasses.fields(QualityReport)}


def test_decoder_reaches_first_and_last_choice_of_every_decision(embedding: Embedding, space: SearchSpace) -> None:
    chosen = decisions(space, embedding.decode(np.random.default_rng(0).standard_normal((2000, embedding.embedding_size))))
    np.testing.assert_array_equal(chosen.min(axis=0), 0)
    np.testing.assert_array_equal(chosen.max(axis=0), np.array(space.decision_sizes) - 1)


def test_weights_are_small() -> None:
    sizes = {name: len((WEIGHTS / f"{name}.safetensors").read_bytes()) for name in SEARCH_SPACES}
    assert sizes["accel"] < 700_000
    assert sizes["enas_micro"] < 1_500_000
    assert sizes["enas_micro_sized"] < 700_000
    assert sizes["nasbench201"] < 300_000
    assert sizes["transnas_micro"] < 300_000
