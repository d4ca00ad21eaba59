"""The benchmark of the validity of the reward."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fidelity import cells, comparison, trainings
from benchmarks.fidelity.cells import describe_further_cells, mean_row, read_cells, sample_cells
from benchmarks.fidelity.comparison import Args, analyze, main, make_jobs, make_tables
from benchmarks.fidelity.rungs import RungSchedule, choose, describe_schedule, make_schedules
from benchmarks.fidelity.signals import (
    METRICS,
    SHORT_TRAININGS,
    Signal,
    ceiling,
    describe,
    extrapolate,
    regret,
    scores_of_epochs,
    signals_of_rungs,
)
from benchmarks.fidelity.techniques import TECHNIQUES, Distillation, GrowingImages, SmoothedCrossEntropy
from benchmarks.fidelity.trainings import find_teacher, read_teacher, run
from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError
from nases_env.search_spaces import get_search_space
from nases_env.training import TrainingSettings, train_classifier
from tests.commands import run_benchmark
from tests.embedding.spaces import ListSpace
from tests.training.images import write_two_folders
from tests.training.test_trainer import CPU, SmallNet, digits

pytestmark = pytest.mark.usefixtures("tiny_children")

OPTIONS = ("--dataset", "digits", "--preset", "smoke", "--num-cells", "3", "--num-processes", "1", "--num-resamples", "3")


def test_signals_are_compared_and_trainings_are_reused(tmp_path: Path) -> None:
    options = (
        *OPTIONS,
        "--search-space",
        "nasbench201",
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

    assert {row["signal"] for row in report["rung_schedules"]} == {"valid_accuracy", "training_speed, exponent 0.5"}
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
    args = Args(
        dataset="digits",
        preset="smoke",
        search_space="nasbench201",
        num_cells=3,
        trainings=("preset", "half"),
        work_dir=tmp_path / "work",
    )
    with pytest.raises(InputError, match="trainings of 2 cells are finished, and 1 cell diverged"):
        analyze(make_jobs(args), args)


def test_results_of_other_settings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[trainings.Job] = []

    def write_result(job: trainings.Job) -> trainings.Job:
        trained.append(job)
        write_atomically(job.path, json.dumps({"identity": job.identity, "epochs": {}, "status": "diverged"}).encode())
        return job

    monkeypatch.setattr(comparison, "run", write_result)

    def num_trained(seed: int, work_dir: str) -> int:
        """Run the benchmark with an archive, and return how many cells it trains."""
        trained.clear()
        args = Args(
            dataset="digits",
            preset="smoke",
            num_cells=3,
            trainings=(),
            seed=seed,
            num_processes=1,
            work_dir=tmp_path / work_dir,
            archive=tmp_path / "archive.jsonl",
        )
        with pytest.raises(InputError, match="and 3 cells diverged"):
            main(args)
        return len(trained)

    assert [num_trained(seed=0, work_dir="a"), num_trained(seed=1, work_dir="b")] == [6, 6]
    assert num_trained(seed=0, work_dir="c") == 0  # from the archive
    assert [num_trained(seed=1, work_dir="a"), num_trained(seed=0, work_dir="a")] == [0, 0]
    assert len(list((tmp_path / "a" / "final").iterdir())) == 12


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
    equal = describe(Signal("signal", accuracies, 1.0), np.full(4, 0.1), rng, num_resamples=100)
    assert equal == {name: [None, None, None] for name in METRICS}
    assert regret(np.array([1.0, 2.0]), np.array([0.5, 0.7]), 1) == 0.0


def test_ceiling_is_1_for_equal_seeds_and_undefined_for_opposite_ones() -> None:
    accuracies = np.array([0.1, 0.4, 0.3, 0.2])
    assert ceiling(np.stack([accuracies, accuracies], axis=1)) == pytest.approx({"between_seeds": 1.0, "with_mean": 1.0})
    opposite = ceiling(np.stack([accuracies, -accuracies], axis=1))
    assert opposite["between_seeds"] == pytest.approx(-1.0)
    assert opposite["with_mean"] is None
    assert ceiling(np.ones((3, 2))) == {"between_seeds": None, "with_mean": None}
    table, *_, further = make_tables(
        {
            "num_cells": 4,
            "num_failed_cells": 0,
            "num_seeds": 2,
            "teacher": {"seconds": 12.34, "valid_accuracy": 0.9},
            "ceiling": {"valid": opposite, "test": opposite},
            "signals": [],
            "rewards": {},
            "rung_schedules": [],
            "test_accuracy": {"mean": 0.5, "sd": 0.1},
            "further_cells": [{"line": 2, "valid_accuracy": 0.7, "test_accuracy": 0.6, "worse_random_cells": 0.75}],
        }
    )
    assert "-1.00 between two final trainings, – with their mean" in table.title
    assert "teacher of the distillation was trained once, in 12.3 seconds" in table.title
    assert further.title.endswith("random ones is 50.0%")
    assert further.rows == [["2", "70.0%", "60.0%", "75.0%"], ["mean", "70.0%", "60.0%", "75.0%"]]


def test_intervals_are_unknown_without_samples() -> None:
    accuracies = np.array([0.1, 0.4, 0.3, 0.2])
    metrics = describe(Signal("perfect", accuracies, 1.0), accuracies, np.random.default_rng(0), num_resamples=0)
    assert metrics["spearman"] == [pytest.approx(1.0), None, None]


def test_log_linear_curves_are_extrapolated_exactly() -> None:
    levels, slopes = np.array([0.3, 0.4, 0.2]), np.array([0.1, 0.05, 0.15])

    def accuracy(epoch: float) -> list[float]:
        return list(levels + slopes * np.log(epoch))

    curves = np.array([accuracy(epoch) for epoch in (1, 3, 7)]).T
    np.testing.assert_allclose(extrapolate([1, 3, 7], curves, 15), accuracy(15))

    # The accuracies between the rungs are not used.
    by_epoch = {epoch: accuracy(epoch) if epoch in (1, 3) else [0.0, 0.0, 0.0] for epoch in range(1, 16)}
    results = [
        {
            "epochs": {
                str(epoch): {"valid_accuracy": values[cell], "train_loss": 1.0, "seconds": 2.0 * epoch}
                for epoch, values in by_epoch.items()
            }
        }
        for cell in range(3)
    ]
    signals = {signal.name: signal for signal in signals_of_rungs(results, [1, 3])}
    assert "epoch 1 of the final training: extrapolated_accuracy" not in signals
    extrapolated = signals["epoch 3 of the final training: extrapolated_accuracy"]
    np.testing.assert_allclose(extrapolated.values, accuracy(15))
    assert extrapolated.seconds == 6.0


def test_signals_of_rungs_include_the_last_epoch_and_the_mean_with_the_rung_before() -> None:
    accuracies = {1: [0.1, 0.2], 2: [0.0, 0.9], 3: [0.3, 0.6], 4: [0.5, 0.7]}
    results = [
        {
            "epochs": {
                str(epoch): {"valid_accuracy": values[cell], "train_loss": 1.0, "seconds": 2.0 * epoch}
                for epoch, values in accuracies.items()
            }
        }
        for cell in range(2)
    ]
    signals = {signal.name: signal for signal in signals_of_rungs(results, [1, 3])}
    assert signals["epoch 4 of the final training: valid_accuracy"].values.tolist() == [0.5, 0.7]
    assert "epoch 4 of the final training: extrapolated_accuracy" not in signals
    np.testing.assert_allclose(signals["epoch 3 of the final training: mean_accuracy of epochs 1 and 3"].values, [0.2, 0.4])
    mean = signals["epoch 4 of the final training: mean_accuracy of epochs 3 and 4"]
    np.testing.assert_allclose(mean.values, [0.4, 0.65])
    assert mean.seconds == 8.0


def random_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, generator=generator)
    return logits, torch.arange(6), torch.randn(6, 1, 8, 8, generator=generator)


def test_label_smoothing_is_that_of_torch() -> None:
    logits, labels, images = random_batch()
    loss = SmoothedCrossEntropy(0.1)(logits, labels, images)
    assert loss == F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert loss != F.cross_entropy(logits, labels)


class FixedTeacher(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert images.shape == (6, 1, 8, 8)
        return self.logits * 1.0


def test_distillation_loss_with_known_teachers() -> None:
    logits, labels, images = random_batch()
    cross_entropy = F.cross_entropy(logits, labels)
    agreeing = Distillation(FixedTeacher(logits.clone()), teacher_weight=0.5, temperature=2.0)
    torch.testing.assert_close(agreeing(logits, labels, images), 0.5 * cross_entropy)
    # With a teacher that is certain of the labels, the divergence is a cross-entropy.
    teacher = FixedTeacher(1e4 * F.one_hot(labels, 10).float())
    certain = Distillation(teacher, teacher_weight=0.5, temperature=2.0)
    expected = 0.5 * cross_entropy + 0.5 * 4.0 * F.cross_entropy(logits / 2.0, labels)
    logits.requires_grad_()
    loss = certain(logits, labels, images)
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert teacher.logits.grad is None


@pytest.mark.parametrize("with_auxiliary", [False, True])
def test_images_grow_after_a_part_of_the_training(with_auxiliary: bool) -> None:
    class Recorder(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []
            self.progress: list[float] = []

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                self.sizes.append(images.shape[-1])
            return super().forward(images)

        def set_drop_path_progress(self, fraction: Tensor) -> None:
            self.progress.append(fraction.item())

    class TwoHeads(Recorder):
        def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
            logits = self(images)
            return logits, logits

    network = TwoHeads() if with_auxiliary else Recorder()
    settings = TrainingSettings(num_epochs=3, num_cycles=1, batch_size=16)
    growing = GrowingImages(network, small_fraction=2 / 3)
    result = train_classifier(growing, *digits(64), settings, seed=0, device=CPU, flip=False)
    assert result.status == "ok"
    assert network.sizes == [4] * 8 + [8] * 4
    assert network.progress == pytest.approx([batch / 12 for batch in range(12)])


def test_all_techniques_change_the_training_and_share_one_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_of = comparison.settings_of
    monkeypatch.setattr(
        comparison, "settings_of", lambda args, name: dataclasses.replace(settings_of(args, name), num_train_images=32)
    )
    monkeypatch.setitem(trainings.TEACHER_SETTINGS, "num_epochs", 1)
    monkeypatch.setitem(trainings.TEACHER_SETTINGS, "num_train_images", 32)
    names = (*TECHNIQUES, "image_size_12", "image_size_8")
    args = Args(
        dataset="digits",
        preset="smoke",
        search_space="nasbench201",
        num_cells=3,
        trainings=names,
        num_trainings=2 * (1 + len(names)),
        num_processes=1,
        work_dir=tmp_path,
    )
    jobs = make_jobs(args)
    distillation = next(job for job in jobs if job.name == "distillation")
    with pytest.raises(InputError, match="the teacher is not trained or diverged"):
        run(distillation)
    with pytest.raises(InputError, match="trainings of 1 cells are finished;"):
        main(args)

    for name in TECHNIQUES:
        job = next(job for job in jobs if job.name == name)
        result, plain = job.read(), run(dataclasses.replace(job, name=f"plain_{name}")).read()
        assert result is not None
        assert plain is not None
        assert result["epochs"]["1"]["train_loss"] != plain["epochs"]["1"]["train_loss"]

    teacher = find_teacher(jobs)
    assert teacher == distillation.teacher
    trained = read_teacher(distillation.teacher)
    assert trained is not None
    assert trained[0]["seconds"] > 0.0
    assert distillation.teacher.settings.num_filters == 2 * distillation.settings.num_filters
    assert distillation.teacher.key not in {job.key for job in jobs}
    assert read_teacher(dataclasses.replace(distillation, seed=1).teacher) is None
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "teacher").iterdir())
    with pytest.raises(InputError, match="trainings of 1 cells are finished;"):
        main(dataclasses.replace(args, trainings=("distillation",), num_trainings=0))
    run(dataclasses.replace(distillation, repeat=1))
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "teacher").iterdir()) == before


def test_parameters_of_techniques_change_only_the_identity_of_their_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    args = Args(dataset="digits", preset="smoke", num_cells=3)

    def identities() -> dict[str, str]:
        return {job.name: job.identity for job in make_jobs(args)}

    before = identities()
    monkeypatch.setitem(TECHNIQUES, "label_smoothing", {"smoothing": 0.2})
    monkeypatch.setitem(trainings.TEACHER_SETTINGS, "num_epochs", 7)
    after = identities()
    assert {name for name in before if before[name] != after[name]} == {"label_smoothing", "distillation"}


def test_images_of_the_user_are_part_of_the_identity(tmp_path: Path) -> None:
    def identities(data_dir: str) -> set[str]:
        args = Args(dataset="image_folder", data_dir=data_dir, preset="smoke", num_cells=3)
        return {job.identity for job in make_jobs(args)}

    one, two = map(identities, write_two_folders(tmp_path))
    assert len(one) == len(two)
    assert not one & two


def test_rungs_rank_by_the_accuracy_or_by_the_reward_of_the_epochs_so_far() -> None:
    losses, accuracies = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[0.3, 0.6], [0.5, 0.4]])
    scores = scores_of_epochs(accuracies, losses, np.array([1e6, 4e6]), 0.5)
    assert list(scores) == ["valid_accuracy", "training_speed, exponent 0.5"]
    np.testing.assert_array_equal(scores["valid_accuracy"], accuracies)
    # The odds of the second cell are doubled: the square root of its 4 MFLOPs.
    speeds = np.exp(-np.array([[2.0, 1.5], [1.0, 2.0]]))
    odds = speeds / (1 - speeds) * [[1.0], [2.0]]
    np.testing.assert_allclose(scores["training_speed, exponent 0.5"], odds / (1 + odds))


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


def test_too_few_architectures_are_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "get_search_space", lambda name: ListSpace((2, 2)))
    assert len(sample_cells("list", 4, seed=0)) == 4
    with pytest.raises(InputError, match="list has only 4 architectures; pass --num-cells 4 or fewer"):
        sample_cells("list", 5, seed=0)


def test_further_cells_are_trained_after_the_random_ones(tmp_path: Path) -> None:
    first, second = sample_cells("nasbench201", 2, seed=5)
    path = tmp_path / "cells.jsonl"
    path.write_text("".join(get_search_space("nasbench201").to_json(cell) + "\n" for cell in (first, second)))
    assert [cell.key for cell in read_cells(path, "nasbench201")] == [first.key, second.key]

    def further_jobs(num_cells: int) -> list[trainings.Job]:
        args = Args(search_space="nasbench201", num_cells=num_cells, trainings=("preset",), further_cells=path)
        jobs = make_jobs(args)
        assert [job.key for job in jobs[: 4 * num_cells]] == [
            job.key for job in make_jobs(dataclasses.replace(args, further_cells=None))
        ]
        return jobs[4 * num_cells :]

    jobs = further_jobs(3)
    assert [(job.key, job.name) for job in jobs[1:3]] == [(first.key, "final"), (first.key, "preset")]
    assert {job.key for job in jobs[4:]} == {second.key}
    assert jobs == further_jobs(4)  # the number of random cells does not change their files


def test_further_cells_are_compared_with_the_random_ones() -> None:
    def result(valid: float, test: float) -> dict[str, Any]:
        return {
            "key": "cell",
            "epochs": {"1": {"valid_accuracy": 0.0}, "2": {"valid_accuracy": valid}},
            "test_accuracy": test,
        }

    finals = {(0, 0): result(0.9, 0.9), (0, 1): result(0.9, 0.9)}  # a random cell
    finals |= {(1000, 0): result(0.6, 0.5), (1000, 1): result(0.8, 0.7), (1001, 0): result(0.5, 0.5)}
    finals |= {(1002, 0): result(0.2, 0.1), (1002, 1): result(0.2, 0.1)}
    rows = describe_further_cells(finals, 2, np.array([0.2, 0.4, 0.6, 0.8]))
    assert [row["line"] for row in rows] == [1, 3]  # the second is not finished
    assert rows[0] == {
        "line": 1,
        "key": "cell",
        "valid_accuracy": pytest.approx(0.7),
        "test_accuracy": pytest.approx(0.6),
        "worse_random_cells": 0.5,
    }
    assert mean_row(rows) == pytest.approx({"valid_accuracy": 0.45, "test_accuracy": 0.35, "worse_random_cells": 0.25})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cells.jsonl is empty; pass a file with one architecture per line"),
        ('{"search_space": "enas_micro"}\n', "line 1 of .*cells.jsonl is not a valid architecture"),
    ],
)
def test_invalid_file_of_further_cells_is_an_input_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        make_jobs(Args(search_space="nasbench201", further_cells=path))
    assert "\n" not in str(caught.value)


def test_unfinished_cells_and_invalid_options_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trainings of 0 cells are finished;"):
        main(Args(dataset="digits", preset="smoke", num_cells=3, num_trainings=0, work_dir=tmp_path))
    with pytest.raises(InputError, match="at least 3 --num-cells"):
        Args(num_cells=2)
    with pytest.raises(InputError, match="--num-resamples must be at least 1, not 0"):
        Args(num_resamples=0)
    with pytest.raises(InputError, match="--num-trainings must be at least 0, not -1"):
        Args(num_trainings=-1)
    with pytest.raises(InputError, match=f"unknown training 'lr_0.5'.*known: {', '.join(SHORT_TRAININGS)[:20]}"):
        Args(trainings=("lr_0.5",))
    with pytest.raises(InputError, match="unknown preset"):
        Args(preset="huge")
