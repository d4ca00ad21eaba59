"""The results of final trainings, and their summary."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS
from nases_env.retraining import FinalResult
from nases_env.retraining.report import (
    describe_training,
    format_test_error,
    seeds_table,
    summarize,
    table_1_row,
)
from nases_env.retraining.result import read_result
from nases_env.training import EpochRecord


def final_result(seed: int = 0, num_correct: int = 9655, num_test_images: int = 10_000) -> FinalResult:
    return FinalResult(
        seed=seed,
        num_correct=num_correct,
        num_test_images=num_test_images,
        train_accuracy=0.99,
        num_params=4_758_920,
        num_flops=1_500_000_000,
        num_epochs=2,
        seconds=7200.0,
        device="a GPU",
        on_gpu=True,
        curve=(EpochRecord(1, 0.05, 2.0, 0.25), EpochRecord(2, 0.01, 1.0, 0.5)),
        activation_bytes=1_000_000,
        file_bytes=19_100_000,
    )


@given(num_test_images=st.integers(1, 20_000), data=st.data())
def test_interval_is_the_wilson_interval(num_test_images: int, data: st.DataObject) -> None:
    num_correct = data.draw(st.integers(0, num_test_images))
    result = final_result(num_correct=num_correct, num_test_images=num_test_images)
    z, n, p = 1.959963984540054, num_test_images, 1 - num_correct / num_test_images
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert result.test_error_interval == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert result.test_error == pytest.approx(p)


def test_result_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_result(path) is None
    path.write_text(json.dumps(final_result().to_dict()))
    assert read_result(path) == final_result()
    values = json.loads(path.read_text())
    assert values["test_error"] == pytest.approx(0.0345)
    assert values["hours"] == 2.0


def test_result_of_an_earlier_version_has_no_memory(tmp_path: Path) -> None:
    values = final_result().to_dict()
    del values["activation_bytes"], values["file_bytes"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(values))
    assert read_result(path) == dataclasses.replace(final_result(), activation_bytes=0, file_bytes=0)
    path.write_text(json.dumps({**values, "file_bytes": -1}))
    with pytest.raises(InputError, match="file_bytes is negative"):
        read_result(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 0}'])
def test_invalid_result_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"is not a result of a final training.*remove it"):
        read_result(path)


def test_results_are_summarized_over_seeds() -> None:
    results = [final_result(0, 9600), final_result(1, 9700)]
    assert summarize(results)["test_error_mean"] == pytest.approx(0.035)
    assert summarize(results)["test_error_std"] == pytest.approx(0.01 / math.sqrt(2))
    assert summarize(results)["hours"] == 4.0
    larger = dataclasses.replace(results[0], num_params=results[0].num_params + 2_000_000)
    assert summarize([results[0], larger])["num_params"] == results[0].num_params + 1_000_000
    assert table_1_row("reinforce", [results[0], larger], 0, "–").params == f"{results[0].num_params / 1e6 + 1:.2g}"
    assert summarize(results[:1])["test_error_std"] is None
    assert format_test_error(results) == "3.50 ± 0.71"
    assert format_test_error(results[:1]) == "4.00"
    row = table_1_row("reinforce", results, cutout_length=16, days="0.5")
    assert (row.method, row.error, row.params, row.days) == ("reinforce + cutout", "3.50 ± 0.71", "4.8", "0.5")


@pytest.mark.parametrize(
    ("num_images", "limit", "text"),
    [
        (100, None, "all 100"),
        (100, 6000, "all 100"),
        (256, 256, "256"),
        (None, None, "all"),
        (None, 6000, "at most 6000"),  # of an earlier version
    ],
)
def test_report_states_how_many_images_were_used(num_images: int | None, limit: int | None, text: str) -> None:
    settings = dataclasses.asdict(dataclasses.replace(RETRAIN_PRESETS["smoke"], num_train_images=limit))
    config = {"configuration": {"dataset": "digits", "settings": settings}, "num_train_images": num_images}
    assert describe_training(config, [final_result()]).startswith(f"Trained on {text} training images of digits")


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "digits, 2 epochs"), (32, "digits at 32 x 32 pixels at most, 2"), ("32x24", "digits at 32x24 pixels, 2")],
)
def test_report_states_the_size_of_the_images(size: int | str | None, text: str) -> None:
    settings = dataclasses.asdict(dataclasses.replace(RETRAIN_PRESETS["smoke"], image_size=size))
    assert f" of {text}" in describe_training(
        {"configuration": {"dataset": "digits", "settings": settings}}, [final_result()]
    )


def test_table_fits_into_80_columns() -> None:
    shown = io.StringIO()
    Console(file=shown, width=80).print(seeds_table([dataclasses.replace(final_result(), on_gpu=False, seconds=1.4)]))
    assert "…" not in shown.getvalue()
    (row,) = (line for line in shown.getvalue().splitlines() if "3.45" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("0", "3.45", "3.11–3.83", "99.00", "4,758,920", "1,500.0", "2", "1.4 s")
    ]
