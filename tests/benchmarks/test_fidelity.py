"""The benchmark of the validity of the reward."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fidelity.comparison import Args, analyze, main, make_jobs
from benchmarks.fidelity.rungs import RungSchedule, choose, describe_schedule, make_schedules
from benchmarks.fidelity.signals import SHORT_TRAININGS, Signal, ceiling, describe, regret
from benchmarks.fidelity.trainings import run
from nases_env.errors import InputError
from tests.commands import run_benchmark

OPTIONS = ("--dataset", "digits", "--preset", "smoke", "--num-cells", "3", "--num-processes", "1", "--num-resamples", "9")


def test_signals_are_compared_and_trainings_are_reused(tmp_path: Path) -> None:
    options = (
        *OPTIONS,
        "--trainings",
        "preset",
        "half",
        "--table",
        "table.csv",
        "--output",
        "out.json",
        "--work-dir",
        "work",
    )
    run_benchmark("fidelity", options, tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["num_cells"], report["num_failed_cells"]) == (3, 0)
    names = {row["name"] for row in report["signals"]}
    assert names >= {"preset: valid_accuracy", "half: ema_accuracy, 2 seeds", "epoch 1 of the final training: valid_loss"}
    # The sums of the seconds of both seeds, and of the epochs of a prefix.
    seconds = {row["name"]: row["seconds"] for row in report["signals"]}
    assert 0 < seconds["epoch 1 of the final training: valid_loss"] < report["final_seconds"]

    schedules = {row["name"]: row["cost"] for row in report["rung_schedules"]}
    assert schedules["3 (1/1)"] == pytest.approx(1.0)
    assert schedules["1, 3 (1/4)"] < schedules["1, 3 (1/2)"] < 1.0

    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = [row for row in rows if row["test_accuracy"]]
    assert [row["training"] for row in tested] == ["final"] * 6
    assert report["test_accuracy"]["mean"] == pytest.approx(
        np.mean([float(row["test_accuracy"]) for row in tested]), abs=1e-4
    )

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    assert len(files) == 3 * 2 * 3
    run_benchmark("fidelity", options, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")} == files
    assert json.loads((tmp_path / "out.json").read_text()) == report

    diverged = next((tmp_path / "work" / "half").glob("*.json"))
    diverged.write_text(json.dumps({**json.loads(diverged.read_text()), "status": "diverged"}))
    args = Args(dataset="digits", preset="smoke", num_cells=3, trainings=("preset", "half"), work_dir=tmp_path / "work")
    with pytest.raises(InputError, match="trainings of 2 cells are finished, and 1 cell diverged"):
        analyze(make_jobs(args), args)


def test_interrupted_final_training_is_resumed_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fidelity.trainings.CHECKPOINT_SECONDS", 0.0)

    def first_job(name: str) -> Args:
        return Args(dataset="digits", preset="smoke", num_cells=3, work_dir=tmp_path / name)

    whole, cut = (make_jobs(first_job(name))[0] for name in ("whole", "cut"))
    run(whole)
    measure = "benchmarks.fidelity.trainings._Monitor._measure"
    with monkeypatch.context() as patch:
        calls = iter(range(2))
        patch.setattr(measure, lambda self, prefix: {"valid_accuracy": next(calls)})
        with pytest.raises(StopIteration):
            run(cut)
    assert cut.read() is None
    partial = json.loads(cut.path.read_text())
    assert list(partial["epochs"]) == ["1", "2"]
    run(cut)
    expected, result = whole.read(), cut.read()
    assert expected is not None
    assert result is not None
    assert result["test_accuracy"] == expected["test_accuracy"]
    assert list(result["epochs"]) == ["1", "2", "3"]
    for name in ("train_loss", "valid_accuracy", "valid_loss"):
        assert result["epochs"]["3"][name] == expected["epochs"]["3"][name]


def test_measuring_does_not_change_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = Args(dataset="digits", preset="smoke", num_cells=3)
    job = dataclasses.replace(make_jobs(args)[0], is_final=False, work_dir=tmp_path / "measured")
    measured = run(job).read()
    monkeypatch.setattr("benchmarks.fidelity.trainings._Monitor._measure", lambda self, prefix: {})
    alone = run(dataclasses.replace(job, work_dir=tmp_path / "alone")).read()
    assert measured is not None
    assert alone is not None
    losses = [epoch["train_loss"] for epoch in measured["epochs"].values()]
    assert losses == [epoch["train_loss"] for epoch in alone["epochs"].values()]
    assert len(set(losses)) == 3
    assert all(epoch["ema_valid_loss"] != epoch["valid_loss"] for epoch in measured["epochs"].values())


def test_metrics_of_known_signals() -> None:
    accuracies = np.array([0.1, 0.4, 0.3, 0.2])
    rng = np.random.default_rng(0)
    perfect = describe(Signal("perfect", accuracies * 2, 1.0), accuracies, rng, num_resamples=100)
    assert perfect["spearman"][0] == perfect["kendall"][0] == pytest.approx(1.0)
    assert perfect["regret_1"][0] == 0.0
    wrong = describe(Signal("wrong", -accuracies, 1.0), accuracies, rng, num_resamples=100)
    assert wrong["spearman"][0] == pytest.approx(-1.0)
    assert wrong["regret_1"][0] == pytest.approx(0.3)
    assert wrong["regret_3"][0] == pytest.approx(0.1)
    constant = describe(Signal("constant", np.zeros(4), 1.0), accuracies, rng, num_resamples=100)
    assert constant["spearman"] == [None, None, None]
    assert regret(np.array([1.0, 2.0]), np.array([0.5, 0.7]), 1) == 0.0


def test_ceiling_is_1_for_equal_seeds_and_undefined_for_opposite_ones() -> None:
    accuracies = np.array([0.1, 0.4, 0.3, 0.2])
    assert ceiling(np.stack([accuracies, accuracies], axis=1)) == pytest.approx({"between_seeds": 1.0, "with_mean": 1.0})
    opposite = ceiling(np.stack([accuracies, -accuracies], axis=1))
    assert opposite["between_seeds"] == pytest.approx(-1.0)
    assert np.isnan(opposite["with_mean"])


def test_successive_halving_on_known_curves() -> None:
    # The best network after 3 epochs is the third best after 1.
    curves = np.array([[0.5, 0.6, 0.6], [0.4, 0.5, 0.7], [0.45, 0.5, 0.9], [0.1, 0.2, 0.3]])
    seconds = np.tile([10.0, 20.0, 30.0], (4, 1))
    assert choose(RungSchedule((3,), 1), curves, seconds) == (2, 120.0)
    assert choose(RungSchedule((1, 3), 2), curves, seconds) == (2, 2 * 10.0 + 2 * 30.0)
    assert choose(RungSchedule((1, 3), 4), curves, seconds) == (0, 3 * 10.0 + 30.0)
    assert choose(RungSchedule((1, 2, 3), 2), curves, seconds) == (0, 2 * 10.0 + 20.0 + 30.0)

    def describe_all(schedule: RungSchedule) -> dict[str, object]:
        rng = np.random.default_rng(0)
        return describe_schedule(schedule, curves, seconds, curves[:, -1], rng, num_subsets=20, subset_size=4)

    assert describe_all(RungSchedule((3,), 1)) == {"name": "3 (1/1)", "regret": [0.0, 0.0, 0.0], "cost": 1.0}
    wrong = describe_all(RungSchedule((1, 3), 4))
    assert wrong["regret"] == pytest.approx([0.3, 0.3, 0.3])
    assert wrong["cost"] == pytest.approx(0.5)


def test_schedules_end_with_the_whole_training() -> None:
    schedules = make_schedules([1, 3, 15])
    assert len(schedules) == 3 * 3
    assert {schedule.rungs for schedule in schedules} == {(1, 15), (3, 15), (1, 3, 15)}


def test_unfinished_cells_and_invalid_options_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trainings of 0 cells are finished;"):
        main(Args(dataset="digits", preset="smoke", num_cells=3, num_trainings=0, work_dir=tmp_path))
    with pytest.raises(InputError, match="at least 3 --num-cells"):
        Args(num_cells=2)
    with pytest.raises(InputError, match=f"unknown training 'lr_0.5'.*known: {', '.join(SHORT_TRAININGS)[:20]}"):
        Args(trainings=("lr_0.5",))
    with pytest.raises(InputError, match="unknown preset"):
        Args(preset="huge")
