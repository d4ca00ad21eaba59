"""The benchmark of searches with equal CPU seconds on real data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.common import statistics
from benchmarks.real_search import searches
from benchmarks.real_search.analysis import Row, analyze
from benchmarks.real_search.comparison import ENAS, LARGEST, MEDIAN, RESIDUAL, Args, Comparison
from benchmarks.real_search.largest import LargestCell
from benchmarks.real_search.published import enas_genotype
from benchmarks.real_search.residual_network import ResidualNetworks
from benchmarks.real_search.searches import Child, Search, median_child
from benchmarks.real_search.trainings import Training
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Status, final_settings
from nases_env.networks import count_flops, count_parameters
from nases_env.retraining import FinalTraining
from nases_env.retraining.training import TrainingFailedError
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.training import EpochRecord
from tests.commands import error_of, module, run_benchmark, run_here
from tests.networks.cells import ENAS_NORMAL, ENAS_REDUCTION
from tests.training.images import write_two_folders

pytestmark = pytest.mark.usefixtures("tiny_children")

AGENTS = ("random_search", "regularized_evolution")
BASELINES = (MEDIAN, LARGEST, ENAS, RESIDUAL)
OPTIONS = (
    "--env-id",
    "NASES-Digits-v0",
    "--preset",
    "smoke",
    "--num-processes",
    "1",
    "--work-dir",
    "work",
    "--num-largest",
    "2",
)


def make_args(work_dir: Path, **options: Any) -> Args:
    return Args(env_id="NASES-Digits-v0", preset="smoke", num_processes=1, num_largest=2, work_dir=work_dir, **options)


def count_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every trial take one second, so that the number of children of a search is known."""
    numbers = iter(range(10**6))
    monkeypatch.setattr(searches, "seconds_of_process", lambda device: float(next(numbers)))


def test_methods_are_compared_and_results_are_reused(tmp_path: Path) -> None:
    options = (
        *(*OPTIONS, "--agents", *AGENTS, "--search-seconds", "0.01", "--num-seeds", "2"),
        *("--final-epochs", "1", "--final-cycles", "1", "--output", "out.json", "--figure", "out.svg"),
    )
    printed = run_benchmark("real_search", options, tmp_path).stdout
    assert "minus random search" in printed
    assert "jobs are not finished" not in printed
    report = json.loads((tmp_path / "out.json").read_text())
    assert list(report["methods"]) == [*AGENTS, *BASELINES]
    assert report["num_unfinished_jobs"] == 0
    for name, metrics in report["methods"].items():
        test = metrics["test_accuracy"]
        assert list(test["values"]) == ["0", "1"]
        assert test["low"] <= test["mean"] <= test["high"]
        assert metrics["training_seconds"] > 0
        # One child takes longer than the time of the search.
        assert metrics["num_children"] == (1.0 if name in AGENTS else None)
        assert (metrics["search_seconds"] or 0.0) >= (0.01 if name in AGENTS else 0.0)
    # With a single child, the best random cell is the median one, and is trained once.
    methods = report["methods"]
    assert methods[MEDIAN]["test_accuracy"] == methods["random_search"]["test_accuracy"]
    assert methods[MEDIAN]["difference"]["mean"] == 0.0
    assert methods["random_search"]["difference"] is None
    searched = np.mean([methods[name]["num_params"] for name in AGENTS])
    assert methods[RESIDUAL]["num_params"] == pytest.approx(searched, rel=0.2)
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")}
    assert sorted(path.parent.name for path in files) == ["largest"] * 2 + ["searches"] * 4 + ["trainings"] * 10
    run_benchmark("real_search", options, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.*")} == files
    assert json.loads((tmp_path / "out.json").read_text()) == report


def test_only_the_named_baselines_are_trained(tmp_path: Path) -> None:
    def paths(baselines: tuple[str, ...]) -> list[Path]:
        comparison = Comparison(make_args(tmp_path, agents=AGENTS, num_seeds=1, baselines=baselines))
        assert list(comparison.labels) == [*AGENTS, *baselines]
        return [job.path for job in comparison.jobs() if job is not None]

    assert [path.parent.name for path in paths(())] == ["searches"] * 2
    assert [path.parent.name for path in paths((ENAS,))] == ["searches"] * 2 + ["trainings"]
    # Which cell is the largest is found by a job of its own, before its training is known.
    assert [path.parent.name for path in paths((LARGEST,))] == ["searches"] * 2 + ["largest"]
    # The searches are shared with a comparison of all baselines.
    assert set(paths((ENAS,))) < set(paths(BASELINES))


def test_final_training_is_the_recipe_of_the_preset_unless_options_change_it(tmp_path: Path) -> None:
    comparison = Comparison(make_args(tmp_path))
    recipe = final_settings(comparison.settings, "smoke")
    assert comparison.final_settings(comparison.settings) == recipe
    shorter = Comparison(make_args(tmp_path, final_epochs=1, final_cycles=1, final_images=32))
    expected = replace(recipe, num_epochs=1, num_cycles=1, num_train_images=32)
    assert shorter.final_settings(shorter.settings) == expected
    training = shorter.training(ENAS, 0)
    assert training is not None
    assert training.settings == expected


def test_results_of_other_images_are_not_reused(tmp_path: Path) -> None:
    one, two = write_two_folders(tmp_path)

    def paths(data_dir: str) -> set[Path]:
        args = replace(make_args(tmp_path / "work"), env_id="NASES-ImageFolder-v0", data_dir=data_dir)
        return {job.path for job in Comparison(args).jobs() if isinstance(job, (Search, Training))}

    of_one = paths(one)
    assert {path.parent.name for path in of_one} == {"searches", "trainings"}
    assert not of_one & paths(two)
    Path(one).rename(tmp_path / "moved")
    assert paths(str(tmp_path / "moved")) == of_one


def test_interrupted_search_is_resumed_with_the_same_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_children(monkeypatch)
    agent = "model_assisted"
    options: dict[str, Any] = {"learning_starts": 2, "ask_batch_size": 2, "gradient_steps": 2, "imagined_batch_size": 8}
    options |= {"num_policy_candidates": 10, "num_prior_candidates": 10, "num_mutants": 20}
    entry = searches.AGENTS[agent]
    monkeypatch.setitem(searches.AGENTS, agent, entry._replace(options=replace(entry.options, **options)))

    def make_search(name: str, seconds: float) -> searches.Search:
        # The networks of this search space are small.
        space: dict[str, Any] = {"search_space": "nasbench201", "baselines": ()}
        args = make_args(tmp_path / name, agents=("random_search", agent), search_seconds=seconds, **space)
        return Comparison(args).searches[agent, 0]

    def keys(search: searches.Search) -> list[str]:
        children = search.children()
        assert children is not None
        return [child.evaluation.key for child in children]

    whole, cut = make_search("whole", 6.0), make_search("cut", 6.0)
    whole.run()
    assert [child.seconds for child in whole.read().children] == [float(number) for number in range(1, 7)]

    with monkeypatch.context() as patch:
        written = iter(range(3))

        def write_three_times(path: Path, content: bytes) -> None:
            next(written)
            write_atomically(path, content)

        patch.setattr("benchmarks.real_search.searches.write_atomically", write_three_times)
        with pytest.raises(StopIteration):
            cut.run()
    assert cut.children() is None
    first = cut.read().children
    assert len(first) == 3
    cut.run()
    assert cut.read().children[:3] == first  # not evaluated again, which would change the wall time of the evaluations
    assert keys(cut) == keys(whole)
    assert [child.seconds for child in cut.read().children] == [child.seconds for child in whole.read().children]
    best = cut.best_child()
    assert best is not None
    assert cut.read().chosen == whole.read().chosen == {"6.0": best.evaluation.key}

    # A shorter search is the first part of a longer one, but has other finalists.
    shorter = make_search("whole", 4.0)
    assert shorter.path == whole.path
    assert shorter.children() is None
    shorter.run()
    assert keys(shorter) == keys(whole)[:4]
    assert shorter.read().chosen.keys() == {"4.0", "6.0"}


def test_search_that_was_recorded_differently_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_children(monkeypatch)
    search = Comparison(make_args(tmp_path, search_seconds=1.0)).searches["random_search", 0]
    search.run()
    content = json.loads(search.path.read_text())
    content["children"][0]["evaluation"]["key"] = "another"
    content["children"][0]["seconds"] = 0.5
    search.path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="cannot be resumed: trial 1 was another and is now enas_micro"):
        search.run()


def test_interrupted_final_training_is_resumed_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_training(name: str) -> Training:
        training = Comparison(make_args(tmp_path / name)).training(ENAS, 0)
        assert training is not None
        return training

    whole, cut = make_training("whole"), make_training("cut")
    whole.run()
    expected = whole.read()
    assert expected is not None

    run = FinalTraining.run

    def interrupted(self: FinalTraining, seed: int, checkpoint: Path, on_epoch: Any) -> Any:
        def note(record: EpochRecord) -> None:
            if record.epoch == 3:
                raise KeyboardInterrupt
            on_epoch(record)

        return run(self, seed, checkpoint, note)

    with monkeypatch.context() as patch:
        patch.setattr(FinalTraining, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut.run()
    assert cut.read() is None
    assert cut.path.with_suffix(".safetensors").exists()
    partial = json.loads(cut.path.read_text())["seconds_at_epoch"]
    cut.run()
    result = cut.read()
    assert result is not None
    assert not cut.path.with_suffix(".safetensors").exists()
    assert result["result"]["curve"] == expected["result"]["curve"]
    assert result["result"]["num_correct"] == expected["result"]["num_correct"]
    assert list(result["seconds_at_epoch"]) == ["1", "2", "3"]
    assert {epoch: result["seconds_at_epoch"][epoch] for epoch in partial} == partial
    assert result["seconds"] == result["seconds_at_epoch"]["3"] > partial["2"]


def test_failed_final_training_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(make_args(tmp_path))
    training = comparison.training(ENAS, 0)
    assert training is not None

    def fail_with(error: InputError) -> None:
        def run(*arguments: Any) -> Any:
            raise error

        monkeypatch.setattr(FinalTraining, "run", run)

    fail_with(InputError("data is missing"))
    with pytest.raises(InputError, match="data is missing"):
        training.run()
    assert training.read() is None
    fail_with(TrainingFailedError(0, 1, "diverged"))
    training.run()
    (row,) = comparison.rows()
    assert (row.method, row.test_accuracy) == (ENAS, None)


def test_jobs_are_ordered_by_seed_and_can_be_run_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_children(monkeypatch)
    options = {"agents": AGENTS, "search_seconds": 2.0, "num_seeds": 2}
    comparison = Comparison(make_args(tmp_path, **options))
    # Without any result, of the trainings only that of the published cell is known.
    ready = [(type(job).__name__, job.seed) for job in comparison.ready_jobs()]
    assert ready == [(name, seed) for seed in (0, 1) for name in ("Search", "Search", "LargestCell", "Training")]
    assert comparison.num_unfinished() == 2 * (len(AGENTS) + 1 + len(AGENTS) + len(BASELINES))
    Comparison(make_args(tmp_path, num_jobs=4, **options)).run()
    # Both searches of the first seed, the choice of its largest cell, and the training of one network.
    assert len(list((tmp_path / "searches").iterdir())) == 2
    assert [row.method for row in comparison.rows()] == ["random_search"]
    assert all(job.seed == 0 for job, _ in zip(comparison.ready_jobs(), range(4), strict=False))
    report = analyze(comparison.rows(), "random_search")
    assert report["methods"]["random_search"]["test_accuracy"]["low"] is None
    # The residual network of a seed depends on all of its searches.
    assert comparison.training(RESIDUAL, 0) is not None
    assert comparison.training(RESIDUAL, 1) is None


def test_another_search_space_is_searched(tmp_path: Path) -> None:
    options = {"agents": ("random_search",), "baselines": (MEDIAN, LARGEST), "search_seconds": 0.01, "num_seeds": 1}
    comparison = Comparison(make_args(tmp_path, search_space="nasbench201", **options))
    comparison.run()
    trainings = [comparison.training(method, 0) for method in ("random_search", LARGEST)]
    assert all(training is not None and training.key.startswith("nasbench201:") for training in trainings)
    assert [row.method for row in comparison.rows()] == ["random_search", MEDIAN, LARGEST]


def test_enas_cell_has_the_published_operators() -> None:
    space = get_search_space("enas_micro")
    architecture = space.from_genotype(enas_genotype())
    decisions = [number for cell in (ENAS_NORMAL, ENAS_REDUCTION) for node in cell for number in node]
    assert list(architecture.decisions) == decisions
    # The first and the last node of the arc: "0 2 0 0" and "0 3 1 1".
    genotype = space.genotype(architecture)
    assert genotype["normal"][0] == [["avg_pool_3x3", 0], ["sep_conv_3x3", 0]]
    assert genotype["normal"][1] == [["identity", 0], ["sep_conv_5x5", 0]]
    assert genotype["reduction"][-1] == [["max_pool_3x3", 0], ["sep_conv_5x5", 1]]


@pytest.mark.parametrize("num_params", [30_000, 78_000, 500_000])
def test_residual_network_has_almost_as_many_parameters_as_requested(num_params: int) -> None:
    space = ResidualNetworks()

    def build(target: int) -> torch.nn.Module:
        architecture = space.architecture([target])
        return space.build(architecture, PRESETS["cpu"], num_classes=10, image_shape=(3, 16, 16))

    network = build(num_params)
    assert count_parameters(network) == pytest.approx(num_params, rel=0.03)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert network(torch.zeros(2, 3, 9, 7)).shape == (2, 10)
    # The closest one: it is found again by its own number of parameters.
    assert count_parameters(build(count_parameters(network))) == count_parameters(network)
    with pytest.raises(InputError, match="cannot have 900,000,000 parameters"):
        build(900_000_000)


def test_median_child_is_that_of_the_distinct_trained_ones() -> None:
    def child(key: str, accuracy: float, status: Status = Status.OK) -> Child:
        return Child(0.0, (), Evaluation(key, 0, status, valid_accuracy=accuracy))

    children = [child("a", 0.4), child("b", 0.6), child("c", 0.6), child("d", 0.5), child("e", 0.0, Status.DIVERGED)]
    children += [child("b", 0.6)]
    assert median_child(children).evaluation.key == "d"  # of a, b, c, d: the lower one of two in the middle
    with pytest.raises(InputError, match="no child of a random search could be trained"):
        median_child([children[4]])


def test_differences_are_paired_by_seed() -> None:
    def row(method: str, seed: int, accuracy: float | None) -> Row:
        return Row(method, seed, "key", accuracy, 10, 20, 3.0, 0.5, 7, 6, 100.0)

    rows = [row("random_search", seed, accuracy) for seed, accuracy in enumerate((0.5, 0.6, 0.7))]
    rows += [row("elite_reinforce", seed, accuracy) for seed, accuracy in enumerate((0.52, 0.64, 0.76))]
    rows += [row("enas_cell", 1, 0.7), row("enas_cell", 2, None)]
    report = analyze(rows, "random_search")["methods"]
    difference = report["elite_reinforce"]["difference"]
    assert difference["values"] == pytest.approx({"0": 0.02, "1": 0.04, "2": 0.06})
    assert difference["mean"] == pytest.approx(0.04)
    assert difference["low"] < 0.04 < difference["high"]
    assert difference["low"] == pytest.approx(statistics.mean(np.array([0.02, 0.04, 0.06]), np.random.default_rng(0)).low)
    assert report["elite_reinforce"]["test_accuracy"]["mean"] == pytest.approx(0.64)
    assert report["random_search"]["difference"] is None
    assert report["enas_cell"]["difference"]["values"] == pytest.approx({"1": 0.1})
    assert report["enas_cell"]["num_failed"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--agents", "random_search", "elite_reinforc"),
            "unknown agent 'elite_reinforc' (did you mean 'elite_reinforce'?)",
        ),
        (("--agents", "elite_reinforce"), "--agents must contain random_search"),
        (("--baselines", "enas_cel"), "unknown baseline 'enas_cel' (did you mean 'enas_cell'?)"),
        (("--search-seconds", "0"), "--search-seconds must be a positive number, not 0"),
        (("--search-seconds", "nan"), "--search-seconds must be a positive number, not nan"),
        (("--num-seeds", "0"), "--num-seeds must be at least 1, not 0"),
        (("--num-jobs", "-1"), "--num-jobs must be at least 0, not -1"),
        (("--final-epochs", "0"), "--final-epochs must be at least 1, not 0"),
        (("--figure", "out.txt"), "--figure must end in .svg, .png, .pdf, not 'out.txt'"),
        (
            ("--search-space", "nasbench201"),
            "enas_cell is a cell of enas_micro, not of nasbench201; omit it from --baselines",
        ),
        (("--preset", "cpuu"), "unknown preset 'cpuu' (did you mean 'cpu'?)"),
        (("--env-id", "NASES-Synthetic-v0"), "NASES-Synthetic-v0 trains no children"),
        (("--device", "cuda:99"), "cannot use the device 'cuda:99'"),
        (("--num-jobs", "0"), "no final training is finished"),
    ],
)
def test_wrong_options_are_one_line_errors(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(run_here(module("benchmarks.real_search"), *OPTIONS, *options))
    assert list(tmp_path.iterdir()) == []


def test_the_largest_cell_has_the_most_flops_of_the_sample(tmp_path: Path) -> None:
    settings, shape = PRESETS["smoke"], (1, 8, 8)

    def choose(num_cells: int, seed: int) -> Architecture:
        job = LargestCell("enas_micro", settings, 10, shape, num_cells, seed, tmp_path)
        assert job.read() is None
        job.run()
        cell = job.read()
        assert cell is not None
        job.path.unlink()
        return cell

    cells = [choose(number, seed=1) for number in (1, 4)]
    space = get_search_space("enas_micro")
    small, large = (count_flops(space.build(cell, settings, num_classes=10, image_shape=shape), shape) for cell in cells)
    assert large > small
    assert cells[1] == choose(4, seed=1)
    assert cells[1] != choose(4, seed=0)
