"""The benchmark of searches with limits of the number of parameters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.real_search.analysis import Row
from benchmarks.real_search.searches import AGENTS
from benchmarks.real_search.trainings import BASELINE_SPACES
from benchmarks.size_limits.analysis import COLORS, analyze
from benchmarks.size_limits.comparison import BASELINES, Args, Comparison
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS
from nases_env.networks import count_parameters
from tests.commands import error_of, module, run_benchmark, run_here
from tests.training.images import write_two_folders

LIMITS = (10_000, 100_000)


def make_row(method: str, seed: int, accuracy: float | None, num_params: int) -> Row:
    return Row(method, seed, "key", accuracy, num_params if accuracy else None, 1, 1.0, None, None, None, None)


@pytest.mark.usefixtures("tiny_children")
def test_methods_are_compared_within_the_limit(tmp_path: Path) -> None:
    options = (
        *("--env-id", "NASES-Digits-v0", "--preset", "smoke", "--limits", "4000", "--search-seconds", "0.01"),
        *("--search-images", "32", "--valid-images", "32", "--final-images", "64", "--final-epochs", "1"),
        *("--final-cycles", "1", "--num-seeds", "1", "--num-processes", "1", "--archive", "archive.jsonl"),
        *("--output", "out.json", "--figure", "out.svg"),
    )
    printed = run_benchmark("size_limits", (*options, "--work-dir", "work"), tmp_path).stdout
    assert "hypervolume over all limits" in printed
    assert "jobs are not finished" not in printed
    report = json.loads((tmp_path / "out.json").read_text())
    methods = report["limits"]["4000"]["methods"]
    assert list(methods) == ["model_assisted", "random_search", *BASELINES]
    for metrics in methods.values():
        assert metrics["num_failed"] == 0
        assert 0 < metrics["num_params"] <= 4000
    assert methods["random_search"]["num_children"] == 1  # it takes longer than the time of the search
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")}
    assert sorted(path.parent.name for path in files) == ["searches"] * 2 + ["trainings"] * 4
    run_benchmark("size_limits", (*options, "--work-dir", "work", "--num-jobs", "0"), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")} == files
    assert json.loads((tmp_path / "out.json").read_text())["limits"] == report["limits"]
    # Another machine has nothing but the archive.
    run_benchmark("size_limits", (*options, "--work-dir", "other", "--num-jobs", "0"), tmp_path)
    assert json.loads((tmp_path / "out.json").read_text())["limits"] == report["limits"]


def test_results_of_other_images_are_not_reused(tmp_path: Path) -> None:
    def paths(data_dir: str) -> set[Path]:
        options: dict[str, Any] = {"preset": "smoke", "limits": (4000,), "num_seeds": 1, "work_dir": tmp_path}
        args = Args(env_id="NASES-ImageFolder-v0", data_dir=data_dir, **options)
        return {job.path for job in Comparison(args).jobs() if job is not None}

    one, two = map(paths, write_two_folders(tmp_path))
    assert {path.parent.name for path in one} == {"searches", "trainings"}
    assert not one & two


def test_hypervolume_is_that_of_the_seeds_with_all_limits() -> None:
    rows = {
        LIMITS[0]: [
            make_row("search", 0, 0.5, 1000),
            make_row("search", 1, 0.6, 1000),
            make_row("random_search", 0, 0.4, 1000),
        ],
        LIMITS[1]: [
            make_row("search", 0, 0.7, 100_000),
            make_row("search", 1, None, 1),
            make_row("random_search", 0, 0.3, 10),
        ],
    }
    report = analyze(rows, "random_search")
    # The reference point: the lowest accuracy of all networks, and ten times the highest limit.
    assert report["hypervolume_reference"] == [0.3, -6.0]
    areas = report["hypervolume"]
    assert areas["search"]["values"] == {0: pytest.approx((0.7 - 0.3) * 1 + (0.5 - 0.3) * 2)}
    assert areas["random_search"]["values"] == {0: pytest.approx((0.4 - 0.3) * 3)}
    assert areas["search"]["difference"]["value"] == pytest.approx(0.8 - 0.3)
    assert report["limits"][str(LIMITS[1])]["methods"]["search"]["num_failed"] == 1


def test_each_method_has_its_own_color_in_the_figure() -> None:
    assert len(set(COLORS)) == len(COLORS) >= len(AGENTS) + len(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("limit", [5_000, 10_000, 30_000, 100_000])
def test_baseline_is_the_widest_network_within_the_limit(name: str, limit: int) -> None:
    space, settings = BASELINE_SPACES[name], PRESETS["cpu"]
    architecture = space.largest(limit, settings, num_classes=10, in_channels=3)
    network = space.build(architecture, settings, num_classes=10, image_shape=(3, 16, 16))
    num_params = count_parameters(network)
    assert architecture.decisions == (num_params,)
    assert num_params <= limit
    assert network(torch.zeros(2, 3, 9, 7)).shape == (2, 10)
    (linear,) = (each for each in network.modules() if isinstance(each, torch.nn.Linear))
    assert count_parameters(space.make(linear.in_features + 1, settings, num_classes=10, in_channels=3)) > limit
    # Depth and width of a family are fixed, so the widest network is not far below the limit.
    assert math.isclose(num_params, limit, rel_tol=0.12)


def test_limit_below_every_network_is_an_error() -> None:
    with pytest.raises(InputError, match="no residual network has at most 10 parameters; pass a higher limit"):
        BASELINE_SPACES["residual_network"].largest(10, PRESETS["cpu"], num_classes=10, in_channels=3)


def test_wrong_options_are_errors(tmp_path: Path) -> None:
    for options, message in (
        ({"agents": ("model_assisted",)}, "--agents must contain random_search"),
        ({"agents": ("random",)}, "unknown agent 'random'"),
        ({"limits": (0,)}, "--limits must be numbers of parameters"),
        ({"search_seconds": 0.0}, "--search-seconds must be a positive number"),
        ({"num_seeds": 0}, "--num-seeds must be at least 1"),
        ({"figure": tmp_path / "a.txt"}, "--figure must end in"),
    ):
        with pytest.raises(InputError, match=message):
            Args(**options)
    result = run_here(module("benchmarks.size_limits"), "--env-id", "NASES-Synthetic-v0")
    assert "trains no children" in error_of(result)
