"""``nases pareto``: the front, its hypervolume and figure, and the error messages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nases_agents.random_search import Args, main

from nases_env.cli import main as cli
from nases_env.evaluation import Limits
from nases_env.search.run_dir import CONFIG, TRAJECTORY, read_trials
from nases_env.search_spaces import parse_architecture
from tests.commands import error_of, run_here
from tests.evaluation.latency_table import write_latency_table

BUDGET = 25


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latency_table(tmp_path_factory.mktemp("table") / "latency.csv")


@pytest.fixture(scope="module")
def args(table: str) -> Args:
    return Args(
        env_id="NASES-MO-NASBench201-v0",
        env_kwargs={"table": table},
        objectives="accuracy,ms_phone",
        budget=BUDGET,
        quiet=True,
        limits=Limits(max_latency=0.02),
    )


@pytest.fixture(scope="module")
def runs(args: Args, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("runs") / f"run{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        main(replace(args, seed=seed, run_dir=path))
    return paths


def front_of(*runs: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    result = run_here(cli.main, "pareto", *map(str, runs), "--objectives", "accuracy,latency", "--json", *options)
    assert result.returncode == 0, result.stderr
    front: dict[str, Any] = json.loads(result.stdout)
    return front


def points_of(*runs: Path) -> list[tuple[float, float]]:
    return [(child.reward, child.latency) for run in runs for _, child in read_trials(run)]


@pytest.mark.parametrize("num_runs", [1, 2])
def test_json_has_the_children_that_no_other_dominates(runs: list[Path], num_runs: int) -> None:
    points = points_of(*runs[:num_runs])
    expected = {
        (reward, latency)
        for reward, latency in points
        if not any(other[0] >= reward and other[1] <= latency and other != (reward, latency) for other in points)
    }
    shown = front_of(*runs[:num_runs])
    assert {(child["reward"], child["latency"]) for child in shown["front"]} == expected
    assert len(shown["front"]) == len(expected)
    assert shown["limit"] == 0.02
    assert {child["run"] for child in shown["front"]} <= {str(run) for run in runs[:num_runs]}
    assert all(set(child["genotype"]) == {"search_space", "cell"} for child in shown["front"])
    for child in shown["front"]:
        space, architecture = parse_architecture(json.dumps(child["genotype"]))
        assert (space.name, architecture.search_space) == ("nasbench201", "nasbench201")


def test_reward_other_than_the_accuracy_is_not_called_accuracy(runs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "run")
    path = tmp_path / "run" / TRAJECTORY
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["score"] = record["valid_accuracy"] / 2
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    shown = front_of(tmp_path / "run")
    assert [child["child"] for child in shown["front"]] == [child["child"] for child in front_of(runs[0])["front"]]
    assert all(child["reward"] == child["valid_accuracy"] / 2 > 0 for child in shown["front"])
    assert "accuracy" not in shown["front"][0].keys() | shown["reference"].keys()
    table = run_here(cli.main, "pareto", str(tmp_path / "run"), "--objectives", "accuracy,latency").stdout
    assert "accuracy" not in table
    assert "reference point: reward 0, latency" in table


def test_metric_of_the_searches_is_named(runs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / CONFIG).read_text())
    config["quantity"] = {"name": "SSIM", "is_percentage": False}
    (tmp_path / "run" / CONFIG).write_text(json.dumps(config))
    table = run_here(cli.main, "pareto", str(tmp_path / "run"), "--objectives", "accuracy,latency").stdout
    assert "accuracy" not in table
    assert "reference point: SSIM 0, latency" in table
    both = (tmp_path / "run", runs[1])
    assert [front_of(*paths)["quantity"] for paths in (runs, both[:1], both)] == ["accuracy", "SSIM", "reward"]


def test_hypervolume_is_the_area_between_the_front_and_the_reference_point(runs: list[Path]) -> None:
    reference = (0.3, 0.018)
    shown = front_of(runs[0], options=("--reference", *map(str, reference)))
    rng = np.random.default_rng(0)
    samples = np.stack([rng.uniform(0.3, 1.0, 50_000), rng.uniform(-3.0, np.log10(0.018), 50_000)], axis=1)
    dominated = np.zeros(len(samples), bool)
    for reward, latency in points_of(runs[0]):
        dominated |= (samples[:, 0] <= reward) & (samples[:, 1] >= np.log10(latency))
    area = 0.7 * (np.log10(0.018) + 3.0)
    assert shown["hypervolume"] == pytest.approx(dominated.mean() * area, abs=0.02)
    assert shown["reference"] == {"reward": 0.3, "latency": 0.018}


def test_default_reference_point_is_the_accuracy_0_and_the_highest_cost(runs: list[Path]) -> None:
    assert front_of(*runs)["reference"] == {
        "reward": 0.0,
        "latency": max(latency for _, latency in points_of(*runs)),
    }


def test_table_fits_into_80_columns_and_names_the_runs(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run_here(cli.main, "pareto", *map(str, runs), "--objectives", "accuracy,latency")
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"run {number}: {run}" for number, run in enumerate(runs, start=1)]
    assert all(len(line) <= 80 for line in lines[2:])
    shown = front_of(*runs)
    assert f"{len(shown['front'])} of {shown['num_children']} children are on the Pareto front" in result.stdout
    assert f"hypervolume {shown['hypervolume']:.4f}; reference point: accuracy 0, latency" in result.stdout
    assert result.stdout.count("knee") == sum(child["is_knee"] for child in shown["front"])


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_figure_is_written(runs: list[Path], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"front{suffix}"
    result = run_here(cli.main, "pareto", str(runs[0]), "--objectives", "accuracy,latency", "--output", str(path))
    assert result.stdout.splitlines()[-1] == str(path)
    content = path.read_bytes()
    assert content.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    if suffix == ".svg":
        for text in ("latency", "10 ms", "accuracy", "Pareto front", "knee", "above the limit"):
            assert f">{text}<" in content.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no run directory is given; pass one or more in runs/"),
        (("RUN", "RUN/"), "a run directory is given more than once; pass each one once"),
        (("RUN",), "params is not known for any child (known: latency); pass --objectives accuracy,latency"),
        (("RUN", "--objectives", "accuracy,speed"), "unknown objective 'speed'"),
        (("RUN", "--objectives", "params,accuracy"), "they must be accuracy and then distinct costs"),
        (("RUN", "--objectives", "accuracy,params,flops"), "--objectives must be accuracy and one cost; omit flops"),
        (("RUN", "--reference", "1", "2"), "--reference must be an accuracy from 0 to less than 1"),
        (("RUN", "--objectives", "accuracy,latency", "--output", "front.gif"), "the name must end in .png, .svg, .pdf"),
        (("missing",), "missing is not a run directory"),
    ],
)
def test_invalid_input_is_one_line(options: tuple[str, ...], message: str, runs: list[Path]) -> None:
    words = [word.replace("RUN", str(runs[0])) for word in options]
    assert message in error_of(run_here(cli.main, "pareto", *words))


def test_search_without_any_known_cost_is_an_error_that_says_so(tmp_path: Path) -> None:
    main(Args(env_id="NASES-Synthetic-v0", budget=3, quiet=True, run_dir=tmp_path / "run"))
    message = error_of(run_here(cli.main, "pareto", str(tmp_path / "run")))
    assert "no cost is known for any child; pass a search that trains networks" in message


def test_different_evaluations_are_noted(runs: list[Path], args: Args, tmp_path: Path) -> None:
    main(replace(args, objectives="accuracy,ms_server", budget=3, run_dir=tmp_path / "other"))
    words = ["pareto", str(runs[0]), str(tmp_path / "other"), "--objectives", "accuracy,latency"]
    assert "evaluate children differently" in run_here(cli.main, *words).stderr
    assert run_here(cli.main, "pareto", *map(str, runs), "--objectives", "accuracy,latency").stderr == ""


def test_other_validation_splits_are_not_noted(runs: list[Path], tmp_path: Path) -> None:
    paths = [tmp_path / f"split{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        shutil.copytree(runs[seed], path)
        config = json.loads((path / CONFIG).read_text())
        config["configuration"] |= {"split_seed": seed, "images": f"images of {seed}"}
        (path / CONFIG).write_text(json.dumps(config))
    assert run_here(cli.main, "pareto", *map(str, paths), "--objectives", "accuracy,latency").stderr == ""
