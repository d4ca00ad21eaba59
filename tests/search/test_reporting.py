"""Progress, summary, curves and drawings of a search."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nases_env.evaluation import Evaluation, Limits, Status
from nases_env.quantity import ACCURACY
from nases_env.report import render
from nases_env.search import SearchArgs, SearchRun, Trial
from nases_env.search.reporting import TensorBoardLogger, _top_table
from nases_env.search.run_dir import RunDir
from nases_env.search.run_report import read_run
from nases_env.search_spaces import Architecture, EnasMicro
from tests.commands import ROOT, error_of, run_here, script
from tests.drawings import draw_every_time
from tests.evaluation.test_transnas import write_table
from tests.search.acting import RandomActions

RANDOM_SEARCH = script(ROOT / "agents" / "random_search.py")


def run(folder: Path, env_id: str = "NASES-Synthetic-v0", **options: object) -> SearchRun:
    args = SearchArgs(env_id=env_id, budget=3, run_dir=folder / "run", **options)  # type: ignore[arg-type]
    with SearchRun(args, agent="test") as search:
        search.search(RandomActions(search.env))
    return search


def test_title_comes_before_the_progress_and_the_summary_after_it(tmp_path: Path) -> None:
    terminal = io.StringIO()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        run(tmp_path)
    title, progress, summary, *_ = terminal.getvalue().splitlines()
    assert title == "NASES-Synthetic-v0: 3 children, seed 0"
    assert progress.startswith("test: 3/3 children in 00:0")
    assert summary.startswith("the best of 3 architectures")


def test_search_is_complete_if_its_summary_cannot_be_printed(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with open(write_end, "w") as out, contextlib.redirect_stdout(out):
        args = SearchArgs(env_id="NASES-Synthetic-v0", budget=3, run_dir=tmp_path / "run")
        with SearchRun(args, agent="test") as search:
            os.close(read_end)
            search.search(RandomActions(search.env))
        os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)  # so that closing it succeeds
    assert "finished" in json.loads((tmp_path / "run" / "config.json").read_text())
    assert (tmp_path / "run" / "best.svg").exists()


def test_title_of_the_best_cells_has_accuracy_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_every_time(monkeypatch)
    search = run(tmp_path, seed=7)
    assert search.loop.best is not None
    accuracy = search.loop.best.evaluation.valid_accuracy
    drawing = (tmp_path / "run" / "best.svg").read_text()
    assert f">NASES-Synthetic-v0: validation accuracy {accuracy:.2%}, seed 7</text>" in drawing
    assert (tmp_path / "run" / "best.pdf").stat().st_size > 1000


@pytest.mark.parametrize(("task", "name"), [("normal", "SSIM"), ("room_layout", "1 / (1 + loss)")])
def test_metric_of_a_table_other_than_the_accuracy_is_named(
    task: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_every_time(monkeypatch)
    env_kwargs = {"task": task, "table": write_table(tmp_path / "table.csv")}
    search = run(tmp_path, "NASES-TransNASMicro-v0", env_kwargs=env_kwargs)
    assert search.loop.best is not None
    best = f"{search.loop.best.evaluation.reward:.4f}"
    printed, drawing = capsys.readouterr().out, (tmp_path / "run" / "best.svg").read_text()
    assert f"valid {name} ┃" in printed
    assert f"{best} │" in printed
    assert f"validation {name} {best}, seed 0</text>" in drawing
    page = render([read_run(tmp_path / "run")])
    assert f"<dt>Best {name}</dt><dd><strong>{best}</strong>" in page
    assert f"↑ Validation {name}<" in page
    assert "ccuracy" not in page


def test_curves_show_only_what_is_known(tmp_path: Path) -> None:
    space = EnasMicro()
    evaluations = [
        Evaluation("a", 0, Status.OK, 0.5, 0.6, num_params=1234, seconds=2.0),
        Evaluation("b", 0, Status.TOO_LARGE, num_params=99_999),
        Evaluation("c", 0, Status.OK, 0.4, 0.4),  # from a table
        Evaluation("d", 0, Status.OK, 0.4, num_params=2000),  # from a surrogate
    ]
    trials = [
        Trial(number, space.architecture([0] * 40), evaluation) for number, evaluation in enumerate(evaluations, start=1)
    ]
    env = SimpleNamespace(search_space=space, evaluator=SimpleNamespace(quantity=ACCURACY))
    rewards = [trial.evaluation.reward for trial in trials]
    loop: Any = SimpleNamespace(env=env, recent_rewards=rewards, best=trials[0], num_distinct=3, num_replayed=0)
    logger = TensorBoardLogger(
        RunDir(tmp_path), {"env_id": "NASES-Digits-v0", "a_flag": True, "budget": 3, "agent": "x", "seed": 0}
    )
    logger.on_start(loop)
    for trial in trials:
        logger.on_trial(loop, trial, is_replayed=False)
    logger.on_end(loop, interrupted=False)

    events = EventAccumulator(str(tmp_path)).Reload()
    curves = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    groups = list(dict.fromkeys(tag.split("/")[0] for tag in sorted(curves)))
    assert groups == ["search", "trial"]
    assert curves["trial/num_params"] == [1234, 99_999, 2000]
    assert curves["trial/train_accuracy"] == [pytest.approx(0.6)]
    assert curves["trial/seconds"] == [2.0]
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    # The order of TensorBoard's table.
    columns = sorted(experiment.hparam_infos, key=lambda column: (not column.differs, column.name))
    assert [column.name for column in columns] == ["agent", "budget", "env_id", "seed", "a_flag"]
    assert [metric.name.tag for metric in experiment.metric_infos] == ["search/best_reward"]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert HParamsPluginData.FromString(content).session_start_info.hparams["a_flag"].string_value == "True"


def test_table_of_the_best_has_dashes_where_nothing_is_known() -> None:
    evaluations = [
        Evaluation("a", 0, Status.OK, 0.5, 0.0, num_params=1234, num_flops=5_000_000, seconds=1.0),
        Evaluation("b", 0, Status.OK, 0.4, 0.4),  # from a table
        Evaluation("c", 0, Status.TOO_LARGE, num_params=99_999),
        Evaluation("d", 0, Status.FAILED),
        Evaluation("e", 0, Status.OK, 0.3, num_params=2000),  # from a surrogate
    ]
    console = Console(file=io.StringIO(), width=100)
    trials = [Trial(1, Architecture("x", (), each.key), each) for each in evaluations]
    console.print(_top_table(trials, [], Limits(), ACCURACY))
    rows = [line.replace("│", "").split() for line in console.file.getvalue().splitlines()[3:-1]]  # type: ignore[attr-defined]
    assert rows == [
        ["1", "50.00%", "0.00%", "1,234", "5.0", "1", "ok"],
        ["2", "40.00%", "–", "–", "–", "1", "ok"],
        ["3", "–", "–", "99,999", "–", "1", "too_large"],
        ["4", "–", "–", "–", "–", "1", "failed"],
        ["5", "30.00%", "–", "2,000", "–", "1", "ok"],
    ]


def test_quiet_search_prints_nothing(tmp_path: Path) -> None:
    options = ("--env-id", "NASES-Synthetic-v0", "--budget", "3", "--run-dir", str(tmp_path / "run"))
    result = run_here(RANDOM_SEARCH, *options, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    message = error_of(run_here(RANDOM_SEARCH, "--quiet", "--log-json"))
    assert "--quiet and --log-json exclude each other" in message


@pytest.mark.usefixtures("tiny_children")
def test_json_log_has_an_object_per_event(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    options = ("--preset", "smoke", "--budget", "3", "--num-finalists", "2", "--run-dir", str(run_dir))
    result = run_here(RANDOM_SEARCH, *options, "--log-json")
    start, *events, end = map(json.loads, result.stdout.splitlines())
    assert start == {"event": "start", "run_dir": str(run_dir), "budget": 3, "num_recorded": 0}
    assert [event["event"] for event in events] == ["trial"] * 3 + ["finalist"] * 2
    lines = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    for event, line in zip(events, lines, strict=False):
        assert line.items() <= event.items()
        assert event["best_reward"] >= event["reward"]
    assert (end["event"], end["is_complete"], end["num_children"]) == ("end", True, 3)
    assert "log_json" not in json.loads((run_dir / "config.json").read_text())["arguments"]
    result = run_here(RANDOM_SEARCH, "--resume", str(run_dir), "--budget", "4", "--log-json")
    events = list(map(json.loads, result.stdout.splitlines()))
    assert events[0]["num_recorded"] == 3
    assert [event["child"] for event in events if event["event"] == "trial"] == [3, 4]
