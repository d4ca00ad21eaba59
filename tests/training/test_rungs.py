"""A training that is interrupted after each rung and continued equals an uninterrupted one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from nases_env.training import Checkpoint, EpochRecord, TrainingResult
from tests.training.test_checkpoint import QUICK, Counter, KilledError, dropping_net, kill, train

RUNGS = (1, 2, 4)


def without_seconds(result: TrainingResult) -> TrainingResult:
    return dataclasses.replace(result, seconds=0.0)


def train_to(
    rung: int | None, checkpoint: Checkpoint | None, rungs: tuple[int, ...] = RUNGS
) -> tuple[TrainingResult, list[int]]:
    """Return the result and the epochs that were trained."""
    epochs: list[EpochRecord] = []
    result = train(dropping_net(), checkpoint, rungs=rungs, stop_epoch=rung, on_epoch=epochs.append)
    return without_seconds(result), [record.epoch for record in epochs]


def test_each_rung_continues_the_one_before_with_the_same_result(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path, interval_seconds=1e9)
    expected = [train_to(rung, None)[0] for rung in RUNGS]
    results = [train_to(rung, checkpoint) for rung in RUNGS]
    assert [epochs for _, epochs in results] == [[1], [2], [3, 4]]
    assert [result for result, _ in results] == expected
    assert expected[-1] == train_to(None, None)[0]
    assert not path.exists(), "the last rung is the end of the training"


def test_rungs_change_the_schedule() -> None:
    curve = train_to(None, None)[0].curve
    assert [record.learning_rate for record in curve] == pytest.approx([QUICK.lr_max] * 3 + [curve[3].learning_rate])
    assert curve[3].learning_rate < QUICK.lr_max


def test_killed_continuation_resumes(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", interval_seconds=0)
    train_to(2, checkpoint)
    model = dropping_net()
    Counter(model, act_at=5, act=kill)  # in the fourth epoch
    with pytest.raises(KilledError):
        train(model, checkpoint, rungs=RUNGS)
    result, epochs = train_to(4, checkpoint)
    assert epochs == [4]
    assert result == train_to(None, None)[0]


def test_lower_rung_after_a_higher_one_keeps_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", interval_seconds=0)
    train_to(2, checkpoint)
    result, epochs = train_to(1, checkpoint)
    assert epochs == [1]
    assert result == train_to(1, None)[0]
    assert train_to(4, checkpoint)[1] == [3, 4]


def test_training_with_other_rungs_is_not_continued(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", interval_seconds=0)
    train_to(1, checkpoint)
    assert train_to(4, checkpoint, rungs=(1, 4))[1] == [1, 2, 3, 4]
    assert "belongs to a different training run" in caplog.text


def test_no_checkpoint_is_written_with_an_infinite_interval(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", interval_seconds=math.inf)
    train_to(1, checkpoint)
    assert not (tmp_path / "checkpoint").exists()
    assert train_to(2, checkpoint)[0] == train_to(2, None)[0]


def test_diverged_training_leaves_no_checkpoint(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, lr_max=math.inf)
    result = train(dropping_net(), Checkpoint(tmp_path / "checkpoint", 0), settings=settings, rungs=RUNGS, stop_epoch=2)
    assert result.status == "diverged"
    assert not (tmp_path / "checkpoint").exists()
    assert torch.isfinite(torch.tensor(result.valid_accuracy))
