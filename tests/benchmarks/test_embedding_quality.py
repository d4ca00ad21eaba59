"""Tests of the comparison of embeddings: the rows agree with their names and are paired by landscape."""

from __future__ import annotations

import dataclasses
import json
import pickle
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from nases_agents import elite_reinforce, model_assisted
from nases_agents.elite_reinforce import EliteReinforce
from nases_agents.model_assisted import ModelAssisted
from nases_agents.random_search import RandomSearch

from benchmarks.embedding_quality.comparison import (
    BASELINES,
    EMBEDDING_AGENTS,
    REFERENCE,
    SETTINGS,
    Args,
    Searches,
    main,
    make_pretrainings,
    make_searches,
    train_and_measure,
)
from nases_env.embedding import PretrainSettings, load_embedding, quality_report
from nases_env.errors import InputError
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search_spaces import SearchSpace, get_search_space
from tests.commands import run_benchmark

pytestmark = pytest.mark.usefixtures("few_samples")

SPACE = get_search_space("nasbench201")
ROW_NAMES = ("paper", "least_squares_n12", "calibrated_n20")


class Plain(SearchSpace):
    """A search space without cell graphs."""

    name: ClassVar[str] = "plain"
    decision_sizes = (3, 3, 3)


def options(output: Path) -> dict[str, Any]:
    """Return options of a comparison that takes seconds but is longer than the warm-up of the agents."""
    return {
        "settings": ROW_NAMES,
        "num_steps": 3,
        "num_seeds": 3,
        "num_assisted_seeds": 2,
        "budgets": (10, 9),
        "search_space": SPACE.name,
        "num_processes": 1,
        "output": output,
    }


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    """The options of a finished comparison that was run from the command line; tests must not change its files."""
    folder = tmp_path_factory.mktemp("comparison")
    arguments = options(folder / "out" / "metrics.json")
    words: list[str] = []
    for name, value in arguments.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    run_benchmark("embedding_quality", words, folder)
    return Args(**arguments)


@pytest.fixture(scope="module")
def metrics(args: Args) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(args.output.read_text())
    return written


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return contents and modification times of the files of embeddings and records."""
    paths = [*folder.rglob("*.safetensors"), *folder.rglob("*.records.jsonl")]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_names_of_rows_agree_with_their_settings() -> None:
    assert SETTINGS["paper"] == PretrainSettings(
        loss="least_squares",
        learning_rate=1e-5,
        schedule="constant",
        standardize=False,
        noise_std=0.0,
        num_calibration_rounds=0,
    )
    for name, settings in SETTINGS.items():
        if name == "paper":
            continue
        kind, size, *noise = name.replace("_n", " ").replace("oise", " ").split()
        assert settings.embedding_size == int(size)
        assert settings.noise_std == float(*noise or ["0.1"])
        assert settings.loss == ("least_squares" if kind == "least_squares" else "cross_entropy")
        assert bool(settings.num_calibration_rounds) == (kind == "calibrated")
        assert settings.standardize
        assert settings.schedule == "cosine"
    assert len(set(SETTINGS.values())) == len(SETTINGS)


def test_reference_is_the_built_in_embedding_of_enas_micro() -> None:
    record = json.loads((resources.files("nases_env.embedding") / "weights" / "enas_micro.json").read_text())
    assert dataclasses.asdict(SETTINGS[REFERENCE]) == record["settings"]


def test_embeddings_are_pretrained_with_the_settings_of_their_row(args: Args, metrics: dict[str, Any]) -> None:
    assert list(metrics["embeddings"]) == list(ROW_NAMES)
    for name, (pretraining,) in make_pretrainings(args, SPACE).items():
        expected = dataclasses.replace(
            SETTINGS[name], num_steps=3, embedding_size=6 if name == "paper" else SETTINGS[name].embedding_size
        )
        assert metrics["embeddings"][name]["settings"] == dataclasses.asdict(expected)
        embedding = load_embedding(SPACE, pretraining.path)
        assert embedding.embedding_size == expected.embedding_size
        assert embedding.loss == expected.loss
        report = json.loads(json.dumps(dataclasses.asdict(quality_report(embedding, SPACE, 0))))
        assert metrics["embeddings"][name]["reports"] == [report]


@pytest.mark.parametrize("agent", EMBEDDING_AGENTS)
def test_landscape_s_is_searched_with_seed_s_and_the_embedding_of_the_row(
    agent: str, args: Args, metrics: dict[str, Any]
) -> None:
    """A search with the same options outside the benchmark finds the same rewards."""
    row = "least_squares_n12"
    common: dict[str, Any] = {
        "env_id": "NASES-Synthetic-v0",
        "search_space": SPACE.name,
        "embedding": str(make_pretrainings(args, SPACE)[row][0].path),
        "env_kwargs": {"landscape_seed": "1"},
        "seed": 1,
        "budget": 10,
    }
    options = elite_reinforce.Args(**common) if agent == "elite_reinforce" else model_assisted.Args(**common)
    env = make_env(options)
    env.reset(seed=1)
    search = SearchLoop(env, 10)
    agent_type: Any = EliteReinforce if agent == "elite_reinforce" else ModelAssisted
    search.run(agent_type(search.env, options), options.ask_batch_size)
    rewards = [child.evaluation.reward for child in search.trials]
    for budget in (9, 10):
        at = metrics["search"][agent]["rows"][row][str(budget)]
        assert at["values"][1] == max(rewards[:budget])
        assert at["value"] == pytest.approx(np.mean(at["values"]))
        assert at["low"] <= at["value"] <= at["high"]


def test_random_search_does_not_depend_on_the_embedding(args: Args, metrics: dict[str, Any]) -> None:
    options = SearchArgs(
        env_id="NASES-Synthetic-v0", search_space=SPACE.name, env_kwargs={"landscape_seed": "2"}, seed=2, budget=10
    )
    env = make_env(options)  # with the built-in embedding
    env.reset(seed=2)
    search = SearchLoop(env, 10)
    search.run(RandomSearch(search.env, options))
    assert search.best is not None
    assert metrics["search"]["elite_reinforce"]["rows"]["random_search"]["10"]["values"][2] == search.best.evaluation.reward


def test_rows_are_paired_by_landscape(metrics: dict[str, Any]) -> None:
    for agent, num_landscapes in (("elite_reinforce", 3), ("model_assisted", 2)):
        assert metrics["search"][agent]["num_landscapes"] == num_landscapes
        rows = metrics["search"][agent]["rows"]
        assert list(rows) == [*ROW_NAMES, *BASELINES]
        for name, at in rows.items():
            assert list(at) == ["9", "10"]
            for budget, estimate in at.items():
                assert len(estimate["values"]) == num_landscapes
                differences = np.subtract(estimate["values"], rows[REFERENCE][budget]["values"])
                if name == REFERENCE:
                    assert "difference" not in estimate
                else:
                    assert estimate["difference"]["value"] == pytest.approx(differences.mean())
                    assert min(differences) <= estimate["difference"]["low"] <= estimate["difference"]["high"]
                    assert estimate["difference"]["high"] <= max(differences)
        for name in BASELINES:  # the same searches for each agent
            assert (
                rows[name]["10"]["values"]
                == metrics["search"]["elite_reinforce"]["rows"][name]["10"]["values"][:num_landscapes]
            )


def test_tables_agree_with_the_output(args: Args, metrics: dict[str, Any]) -> None:
    lines = args.output.with_suffix(".md").read_text().splitlines()
    for name in ROW_NAMES:
        quality, *searches = [line.strip("| ").split(" | ") for line in lines if line.startswith(f"| {name} |")]
        report = metrics["embeddings"][name]["reports"][0]
        assert quality[4:] == [
            *(
                f"{report[key]:.3f}"
                for key in ("reconstruction_accuracy", "prior_decision_entropy_min", "prior_decision_entropy_mean")
            ),
            f"{report['num_unique']:,}",
            f"{report['perturbation_sensitivity']['0.1']:.1f}",
        ]
        assert len(searches) == len(EMBEDDING_AGENTS)
        for agent, cells in zip(EMBEDDING_AGENTS, searches, strict=True):
            for cell, estimate in zip(cells[1:], metrics["search"][agent]["rows"][name].values(), strict=False):
                assert cell.startswith(f"{estimate['value']:.3f} ({estimate['low']:.3f} to ")


def test_second_run_only_adds_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = Args(**{**options(tmp_path / "metrics.json"), "settings": ROW_NAMES[1:3], "budgets": (5,), "num_seeds": 2})
    main(args)
    before, metrics = files_in(tmp_path), args.output.read_text()
    main(args)
    assert files_in(tmp_path) == before
    assert args.output.read_text() == metrics
    assert "corrupt" not in capsys.readouterr().out

    corrupt, other = sorted(tmp_path.rglob("*.safetensors"))
    corrupt.write_bytes(corrupt.read_bytes()[:-1])
    main(args)
    assert f"{corrupt} is corrupt: this embedding is trained again" in capsys.readouterr().out
    after = files_in(tmp_path)
    assert after[corrupt.name][0] == before[corrupt.name][0]
    assert after[other.name] == before[other.name]
    assert after["metrics.records.jsonl"] == before["metrics.records.jsonl"]

    main(dataclasses.replace(args, num_steps=4))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    # The baselines use no embedding and are not run again.
    assert len((tmp_path / "metrics.records.jsonl").read_text().splitlines()) == 2 * (2 * 2 + 2 * 2) + 2 * 2


def test_landscapes_alternate_between_pretrainings(tmp_path: Path) -> None:
    args = Args(**{**options(tmp_path / "metrics.json"), "settings": ("calibrated_n12",), "num_pretrainings": 2})
    pretrainings = make_pretrainings(args, SPACE)
    several = pretrainings["calibrated_n12"]
    assert [pretraining.seed for pretraining in several] == [0, 1]
    first, second = (train_and_measure(pretraining)[1] for pretraining in several)
    assert first.reconstruction_accuracy != second.reconstruction_accuracy
    assert pickle.loads(pickle.dumps((several, first))) == (several, first)  # required for other processes
    for searches in make_searches(args, pretrainings):
        if searches.agent in EMBEDDING_AGENTS:
            paths = [job.options.embedding for job in searches.jobs]
            assert paths == [str(several[seed % 2].path) for seed in range(len(paths))]
            assert len({job.settings for job in searches.jobs}) == 2


def test_settings_digests_differ_by_row_and_agent(args: Args) -> None:
    pretrainings = make_pretrainings(args, SPACE)
    paths = [pretraining.path for several in pretrainings.values() for pretraining in several]
    assert len(set(paths)) == len(paths)
    searches: list[Searches] = make_searches(args, pretrainings)
    digests = [{job.settings for job in several.jobs} for several in searches]
    assert all(len(digest) == 1 for digest in digests)
    assert len(set.union(*digests)) == len(searches) == 2 * len(ROW_NAMES) + len(BASELINES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": ("calibrated_n21",)}, r"unknown settings 'calibrated_n21' \(did you mean 'calibrated_n20'\?\)"),
        ({"settings": ()}, "pass at least one name with --settings"),
        ({"budgets": (0, 5)}, "1 or larger"),
        ({"num_seeds": 1}, "--num-seeds must be at least 2, not 1"),
        ({"num_assisted_seeds": 1}, "--num-assisted-seeds must be at least 2, not 1"),
        ({"num_assisted_seeds": 4}, "--num-assisted-seeds must be at most --num-seeds, 3"),
        ({"num_steps": 0}, "--num-steps must be at least 1, not 0"),
        ({"num_pretrainings": 0}, "--num-pretrainings must be at least 1, not 0"),
        ({"num_processes": 0}, "--num-processes must be at least 1, not 0"),
        ({"output": Path("metrics.png")}, r"--output must end in \.json, as metrics\.json does"),
    ],
)
def test_invalid_options_are_rejected(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Args(**{**options(tmp_path / "metrics.json"), **change})


@pytest.mark.parametrize(
    ("space", "message"), [("enas_mikro", "enas_micro"), (f"{__name__}:Plain", "has no cell graph with operators")]
)
def test_search_space_without_landscape_is_rejected_before_training(space: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        main(Args(**{**options(tmp_path / "out" / "metrics.json"), "search_space": space}))
    assert list(tmp_path.iterdir()) == []
