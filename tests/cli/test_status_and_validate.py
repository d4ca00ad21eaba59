"""``nases status`` and ``nases validate``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from nases_env.cli.reproduce import _config, parse_reproduce
from nases_env.cli.status import StatusArgs, status_command
from nases_env.cli.train import _from_file, parse_train, train_command
from nases_env.cli.validate import ValidateArgs, validate_command
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution import ExecutionSettings
from nases_env.execution.caching import CachingExecutor
from nases_env.retraining import FinalFolder
from nases_env.retraining.plan import make_plan
from nases_env.search import Proposal, SearchArgs, SearchRun
from nases_env.search.run_dir import is_locked
from nases_env.training import EpochRecord
from tests.retraining.architectures import architecture_file

pytestmark = pytest.mark.usefixtures("tiny_children")


def search(run_dir: Path, num_children: int) -> None:
    args = SearchArgs(env_id="NASES-Digits-v0", preset="smoke", budget=3, num_finalists=2, run_dir=run_dir)
    with SearchRun(args, agent="random_search") as run:
        rng = np.random.default_rng(0)
        run.loop.evaluate_all([run.env.search_space.sample(rng) for _ in range(num_children)])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "run"
    search(path, 2)
    return path


def status(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    status_command(StatusArgs(run_dir))
    return capsys.readouterr().out


def test_status_does_not_need_the_store(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "store.sqlite").unlink()
    shown = status(tmp_path / "run", capsys)
    assert "2 of 3 children, number in flight not known, 0 failed" in shown
    assert "in flight: not known (there is no store" in shown


def test_status_names_the_metric_that_is_not_the_reward(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished_run, path)
    records = [json.loads(line) for line in (path / "evaluations.jsonl").read_text().splitlines()]
    changed = [{**record, "valid_accuracy": 0.5, "score": 0.25, "reward": 0.25} for record in records]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))
    config = json.loads((path / "config.json").read_text())
    assert config["quantity"] == {"name": "accuracy", "is_percentage": True}
    for quantity, shown in (
        ({"quantity": {"name": "SSIM", "is_percentage": False}}, "validation SSIM 0.5000"),
        ({}, "validation accuracy 50.00%"),  # of an earlier version
    ):
        earlier = {name: value for name, value in config.items() if name != "quantity"}
        (path / "config.json").write_text(json.dumps({**earlier, **quantity}))
        assert f"best: child 1, reward 0.2500, {shown}\n" in status(path, capsys)


@pytest.mark.parametrize(("rungs", "name"), [((1, 1), "mean of two evaluations"), ((1, 2), "second evaluation")])
def test_status_says_whether_the_reward_of_a_finalist_is_a_mean(
    rungs: tuple[int, int], name: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished_run, path)
    record = {**json.loads((path / "evaluations.jsonl").read_text().splitlines()[0]), "fidelity": rungs[0]}
    (path / "evaluations.jsonl").write_text(json.dumps(record) + "\n")
    finalist = {"child": 1, "mean_reward": 0.75, "second": {**record, "fidelity": rungs[1]}}
    (path / "finalists.json").write_text(json.dumps([finalist]))
    assert f"best: child 1, reward {record['reward']:.4f}, {name} 0.7500\n" in status(path, capsys)


def test_status_of_a_run_at_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=3, run_dir=run_dir)
    with SearchRun(args, agent="random_search") as run:
        space, rng = run.env.search_space, np.random.default_rng(0)
        shown = status(run_dir, capsys)
        assert "random_search in NASES-Synthetic-v0, running\n0 of 3 children, 0 in flight, 0 failed" in shown
        (evaluation,) = run.loop.evaluate_all([space.sample(rng)])
        shown = status(run_dir, capsys)
        assert "1 of 3 children" in shown
        assert f"best: child 1, reward {evaluation.reward:.4f}" in shown
        child = space.sample(rng)
        executor = run.env.executor
        assert isinstance(executor, CachingExecutor)
        assert executor.store is not None
        assert executor.store.acquire(child.key, run.env.evaluator.digest(), 0)
        shown = status(run_dir, capsys)
        assert "1 in flight" in shown
        assert f"in flight: {child.key} since" in shown
        executor.store.release_all()
        failed = Evaluation(child.key, 0, Status.FAILED, reason="killed by SIGKILL")
        run.loop._record(Proposal(child), failed, is_new=True, is_promotion=False)
    shown = status(run_dir, capsys)
    assert "stopped; resume it with --resume\n2 of 3 children, 0 in flight, 1 failed" in shown
    assert "child 2: failed killed by SIGKILL" in shown


def test_search_that_ends_while_its_status_is_read_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=1, run_dir=tmp_path / "run")
    run = SearchRun(args, agent="random_search")
    run.__enter__()
    run.loop.evaluate_all([run.env.search_space.sample(np.random.default_rng(0))])

    def is_locked_after_the_end(path: Path) -> bool:
        run.__exit__(None, None, None)
        return is_locked(path)

    monkeypatch.setattr("nases_env.cli.status.is_locked", is_locked_after_the_end)
    status_command(StatusArgs(tmp_path / "run"))
    assert ", finished" in capsys.readouterr().out


def test_status_of_a_final_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(architecture_file(tmp_path)), "--dataset", "digits", "--preset", "smoke"]
    train_command(parse_train(options))
    folder = FinalFolder(tmp_path / "final")
    (result,) = folder.results()
    error = f"test error {100 * result.test_error:.2f}%"
    title = f"{folder.path}: final training on digits, 3 epochs"
    assert status(folder.path, capsys) == f"{title}\nseed 0: finished, {error}\n1 of 1 seeds finished, {error}\n"

    states: list[str] = []

    def stop_after_two_epochs(record: EpochRecord) -> None:
        states.append(status(folder.path, capsys))
        if record.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.train(_from_file(parse_train(options)), 10, stop_after_two_epochs)
    assert "seed 10: 0 of 3 epochs, running\n1 of 2 seeds finished" in states[0]
    assert "seed 10: 2 of 3 epochs, stopped; rerun the command to resume it" in status(folder.path, capsys)


def test_status_of_a_reproduction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "smoke", "--output", str(tmp_path), "--seeds", "1", "--agents", "random_search", "local_search"]
    plan = make_plan(parse_reproduce(options))
    (tmp_path / "config.json").write_text(json.dumps(_config(plan)))
    (tmp_path / "seed-0").mkdir()
    search(tmp_path / "seed-0" / "random_search", 2)
    shown = status(tmp_path, capsys)
    assert shown.splitlines() == [
        f"{tmp_path}: reproduction in NASES-Digits-v0, preset smoke",
        "seed-0: pretraining not finished",
        "seed-0, random_search: 2 of 3 children, final training not started",
        "seed-0, local_search: search not started",
    ]
    train_command(parse_train([str(tmp_path / "seed-0" / "random_search"), "--child.num-epochs", "1"]))
    assert "random_search: 2 of 3 children, final training finished, test error" in status(tmp_path, capsys)


def test_status_of_another_directory_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        status_command(StatusArgs(tmp_path))


def test_validate_reproduces_a_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate_command(ValidateArgs(finished_run, sample=1))
    shown = capsys.readouterr().out
    assert shown.count("✔") == 1
    assert "1 of 1 children were reproduced" in shown


def test_validate_detects_a_modified_result(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "evaluations.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[1]["valid_accuracy"] += 1 / 32
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(SystemExit) as exited:
        validate_command(ValidateArgs(tmp_path / "run"))
    assert exited.value.code == 1
    shown = capsys.readouterr().out
    assert shown.count("✔") == 1
    assert "✘ child 2: valid_accuracy" in shown
    validate_command(ValidateArgs(tmp_path / "run", tolerance=0.05))
    assert "2 of 2 children were reproduced" in capsys.readouterr().out


def test_validate_does_not_call_a_failed_child_different(
    finished_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Evaluation("key", 0, Status.FAILED, reason="its job 7 returned no result")
    monkeypatch.setattr("nases_env.cli.validate._submit", lambda *_: Mock(result=lambda: failed))
    with pytest.raises(SystemExit) as exited:
        validate_command(ValidateArgs(finished_run))
    assert exited.value.code == 1
    shown = capsys.readouterr().out
    assert "✘ child 2: could not be evaluated (failed): its job 7 returned no result\n" in shown
    assert "0 of 2 children were reproduced" in shown


def test_validate_keeps_the_files_of_slurm_jobs_in_the_run_directory(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for command in ("srun", "sbatch"):
        (tmp_path / command).touch(mode=0o755)
        (tmp_path / command).write_text("#!/bin/sh\necho Invalid partition >&2\nexit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    shutil.copytree(finished_run, tmp_path / "run")
    execution = ExecutionSettings(executor="slurm", slurm_options="timeout_min=5")
    with pytest.raises(InputError, match=r"cannot submit jobs to Slurm [(]Invalid partition[)]"):
        validate_command(ValidateArgs(tmp_path / "run", execution=execution))
    assert any((tmp_path / "run" / "validate" / "slurm").glob("*/*.pkl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 0}, "--seed is only for --sample; add --sample, or omit it"),
        ({"sample": 0}, "--sample must be at least 1"),
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"execution": ExecutionSettings(store="s")}, "retrains the children, so it has no --store; omit it"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({}, "no child with a result to retrain; wait for the search, or resume it"),
    ],
)
def test_invalid_input_to_validate_is_a_one_line_error(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    search(tmp_path / "run", 0)
    with pytest.raises(InputError, match=message):
        validate_command(ValidateArgs(tmp_path / "run", **options))
