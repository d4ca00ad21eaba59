"""A resumed search equals an uninterrupted one."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from nases_env.cli import main as cli
from nases_env.cli.status import StatusArgs, status_command
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS
from nases_env.execution import ExecutionSettings
from nases_env.search import SearchArgs, SearchLoop, SearchRun
from nases_env.search.recorded_args import load_args
from nases_env.search.reporting import BestArtifacts
from nases_env.search.run_dir import STORE, TRAJECTORY, RunDir
from tests.commands import ROOT, error_of, run_here, script
from tests.processes import ForkedCommand
from tests.search.conftest import report_nothing
from tests.search.test_loop import trajectory

REINFORCE = ROOT / "agents" / "reinforce.py"
BUDGET = 14
LIMITED = "tests.search.limited:Limited-v0"

FEW_CANDIDATES = {
    **{"learning_starts": 5, "gradient_steps": 4, "imagined_batch_size": 16},
    **{"num_policy_candidates": 20, "num_prior_candidates": 5, "num_mutants": 20},
}

AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("reinforce", {}),
    "algorithm_1": ("reinforce", {"std": 0.1, "unseen": False}),
    "elite_reinforce": ("elite_reinforce", {"learning_starts": 4, "train_freq": 4}),
    "model_assisted": ("model_assisted", FEW_CANDIDATES),
    "random_search": ("random_search", {}),
    "regularized_evolution": ("regularized_evolution", {}),
    "bayesian_optimization": ("bayesian_optimization", {"num_init": 5, "num_mutants": 20, "num_random_candidates": 5}),
    "local_search": ("local_search", {"num_init": 3}),
    "discrete_reinforce": ("discrete_reinforce", {}),
    "cma_es": ("cma_es", {"population_size": 4}),
    "tpe": ("tpe", {"num_init": 4}),
    "ppo": ("sb3", {"algorithm": "ppo", "n_steps": 4}),
    "a2c": ("sb3", {"algorithm": "a2c"}),
    "sac": ("sb3", {"algorithm": "sac", "learning_starts": 4}),
    "td3": ("sb3", {"algorithm": "td3", "learning_starts": 4}),
}


@pytest.fixture(autouse=True)
def number_event_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number event files so that their names sort by time of creation, also within one second."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1_000_000))


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    report_nothing(monkeypatch)


class Killed(BaseException):
    """Raised to end a search at a given point, like a signal."""


def module_of(agent: str) -> Any:
    return importlib.import_module(f"nases_agents.{AGENTS[agent][0]}")


def start_search(agent: str, run_dir: Path, **options: Any) -> None:
    module = module_of(agent)
    args_type = getattr(module, "Args", SearchArgs)
    args = args_type(**{"env_id": "NASES-Synthetic-v0", "budget": BUDGET, "run_dir": run_dir, **AGENTS[agent][1], **options})
    module.main(args)


def resume(agent: str, run_dir: Path, **options: Any) -> None:
    module = module_of(agent)
    args = load_args(getattr(module, "Args", SearchArgs), run_dir)
    module.main(dataclasses.replace(args, **options))


def interrupt_after(num_children: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the search after a child is evaluated and before it is recorded."""
    record = SearchLoop._record

    def kill(loop: SearchLoop, *args: Any, **options: Any) -> None:
        if loop.num_trials == num_children:
            raise Killed
        record(loop, *args, **options)

    monkeypatch.setattr(SearchLoop, "_record", kill)


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run_dir)).Reload()
    tags = set(events.Tags()["scalars"]) - {"child/seconds", "hparam/best_reward"}
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize(("agent", "num_envs"), [*((agent, 3) for agent in AGENTS), ("reinforce", 1), ("sac", 1)])
def test_resumed_search_equals_an_uninterrupted_one(
    agent: str, num_envs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_search(agent, tmp_path / "whole", num_envs=num_envs)
    with monkeypatch.context() as context:
        interrupt_after(7, context)
        with pytest.raises(Killed):
            start_search(agent, tmp_path / "cut", num_envs=num_envs)
    assert len(trajectory(tmp_path / "cut")) == 7
    resume(agent, tmp_path / "cut")
    assert trajectory(tmp_path / "cut") == trajectory(tmp_path / "whole")
    assert len(trajectory(tmp_path / "whole")) == BUDGET
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")
    assert (tmp_path / "cut" / "best.json").read_text() == (tmp_path / "whole" / "best.json").read_text()


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("agent", ["local_search", "cma_es", "tpe", "ppo"])
def test_resume_repeats_infeasible_proposals(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"env_id": LIMITED, "num_envs": 3}
    start_search(agent, tmp_path / "whole", **options)
    with monkeypatch.context() as context:
        interrupt_after(7, context)
        with pytest.raises(Killed):
            start_search(agent, tmp_path / "cut", **options)
    resume(agent, tmp_path / "cut")
    assert trajectory(tmp_path / "cut") == trajectory(tmp_path / "whole")
    assert [record["status"] for record in trajectory(tmp_path / "whole")] == ["ok"] * BUDGET


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("reinforce", {}),
        ("reinforce", {"env_id": LIMITED, "ask_batch_size": 4}),
        ("discrete_reinforce", {"ask_batch_size": 4}),
        ("sac", {"env_id": LIMITED}),
    ],
)
def test_larger_budget_continues_a_finished_run(agent: str, options: dict[str, Any], tmp_path: Path) -> None:
    start_search(agent, tmp_path / "whole", **options)
    start_search(agent, tmp_path / "short", budget=9, **options)
    with pytest.raises(InputError, match=r"is finished \(9 children\)"):
        resume(agent, tmp_path / "short")
    resume(agent, tmp_path / "short", budget=BUDGET)
    assert trajectory(tmp_path / "short") == trajectory(tmp_path / "whole")
    assert curves(tmp_path / "short") == curves(tmp_path / "whole")


def test_infinite_options_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """inf is a documented checkpoint interval."""
    start_search("reinforce", tmp_path / "run", budget=5, execution=ExecutionSettings(checkpoint_interval=math.inf))
    resume("reinforce", tmp_path / "run", budget=7)
    assert len(trajectory(tmp_path / "run")) == 7
    status_command(StatusArgs(tmp_path / "run"))
    assert "7 of 7 children" in capsys.readouterr().out


@pytest.mark.usefixtures("without_reports")
def test_evaluated_children_are_not_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nases_env.evaluation import OperatorShareEvaluator

    evaluated: list[str] = []
    evaluate = OperatorShareEvaluator.evaluate

    def count(evaluator: OperatorShareEvaluator, architecture: Any, seed: int) -> Any:
        evaluated.append(architecture.key)
        return evaluate(evaluator, architecture, seed)

    monkeypatch.setattr(OperatorShareEvaluator, "evaluate", count)
    with monkeypatch.context() as context:
        interrupt_after(7, context)
        with pytest.raises(Killed):
            start_search("random_search", tmp_path / "run")
    assert len(evaluated) == 8  # the eighth is in the store but not in the trajectory
    resume("random_search", tmp_path / "run")
    assert len(evaluated) == len(set(evaluated)) == BUDGET


def test_search_killed_after_the_last_child_is_completed_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(BestArtifacts, "on_end", killed)
        with pytest.raises(Killed):
            start_search("reinforce", tmp_path / "run", budget=5)
    assert len(trajectory(tmp_path / "run")) == 5
    assert not (tmp_path / "run" / "best.svg").exists()
    resume("reinforce", tmp_path / "run")
    assert (tmp_path / "run" / "best.svg").exists()
    assert len(trajectory(tmp_path / "run")) == 5
    with pytest.raises(InputError, match="is finished"):
        resume("reinforce", tmp_path / "run")


@pytest.mark.usefixtures("without_reports")
def test_search_killed_at_its_start_can_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(RunDir, "write_config", killed)
        context.setattr(RunDir, "discard", RunDir.close)
        with pytest.raises(Killed):
            start_search("random_search", tmp_path / "run", budget=5)
    assert (tmp_path / "run" / "store.sqlite").exists()
    start_search("random_search", tmp_path / "run", budget=5)
    assert len(trajectory(tmp_path / "run")) == 5


def test_run_directory_with_trials_but_without_config_is_not_used_again(tmp_path: Path) -> None:
    start_search("random_search", tmp_path / "run", budget=5)
    for path in (tmp_path / "run").iterdir():
        if path.name not in (STORE, TRAJECTORY):
            path.unlink()
    before = (tmp_path / "run" / TRAJECTORY).read_bytes()
    with pytest.raises(InputError, match=r"run has trials but no config.json; restore it, or pass a new --run-dir"):
        start_search("random_search", tmp_path / "run", budget=5)
    assert (tmp_path / "run" / TRAJECTORY).read_bytes() == before


def test_replayed_proposal_that_differs_from_the_record_is_an_error(tmp_path: Path) -> None:
    start_search("random_search", tmp_path / "run", budget=5)
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    lines[3]["key"] = lines[0]["key"]
    (tmp_path / "run" / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(InputError, match="cannot be resumed: trial 4 was"):
        resume("random_search", tmp_path / "run", budget=8)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before


@pytest.mark.usefixtures("without_reports")
def test_run_with_other_evaluation_settings_is_not_resumed(tmp_path: Path) -> None:
    start_search("random_search", tmp_path / "run", budget=5)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["configuration"]["operator"] = "max_pool_3x3"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the evaluation settings changed \(operator\)"):
        resume("random_search", tmp_path / "run", budget=8)


@pytest.mark.usefixtures("without_reports")
def test_incomplete_lines_and_files_are_repaired(tmp_path: Path) -> None:
    start_search("random_search", tmp_path / "whole")
    start_search("random_search", tmp_path / "run", budget=5)
    with open(tmp_path / "run" / "evaluations.jsonl", "a") as file:
        file.write('{"child": 6, "rew')
    (tmp_path / "run" / ".best.json.x1y2.partial").write_text("{")
    resume("random_search", tmp_path / "run", budget=BUDGET)
    assert trajectory(tmp_path / "run") == trajectory(tmp_path / "whole")
    assert not list((tmp_path / "run").glob(".*"))


def test_locked_run_is_not_resumed(tmp_path: Path) -> None:
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=5, run_dir=tmp_path / "run")
    with SearchRun(args, agent="random_search") as run:
        run.loop.evaluate_all([run.env.search_space.sample(np.random.default_rng(0))])
        with pytest.raises(InputError, match="another search is writing to"):
            resume("random_search", tmp_path / "run")


def test_killed_search_is_resumed_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reinforce = module_of("reinforce")
    few = dataclasses.replace(PRESETS["smoke"], num_train_images=32, num_valid_images=32)
    args = reinforce.Args(preset="smoke", child=few, budget=6, num_envs=2, num_finalists=0, run_dir=tmp_path / "whole")
    reinforce.main(dataclasses.replace(args, execution=ExecutionSettings(executor="serial")))
    options = ("--preset", "smoke", "--child.num-train-images", "32", "--child.num-valid-images", "32", "--budget", "6")
    more = ("--num-envs", "2", "--num-finalists", "0", "--num-workers", "1", "--run-dir", "cut")
    process = ForkedCommand(script(REINFORCE), *options, *more, folder=tmp_path)
    written = tmp_path / "cut" / "evaluations.jsonl"
    while process.is_running() and not (written.exists() and written.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.chdir(tmp_path)
    status = run_here(cli.main, "status", "cut")
    assert "stopped; resume it with --resume" in status.stdout
    assert " 0 in flight" in status.stdout  # the process that holds the leases is dead
    result = run_here(script(REINFORCE), "--resume", "cut", "--executor", "serial")
    assert "of them recorded" in result.stdout
    assert trajectory(tmp_path / "cut") == trajectory(tmp_path / "whole")
    again = run_here(script(REINFORCE), "--resume", "cut")
    assert again.stdout == "cut is finished (6 children); to continue, pass a larger --budget, or only --time\n"


def test_invalid_input_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_search("reinforce", tmp_path / "run", budget=2)
    start_search("random_search", tmp_path / "foreign", budget=2)
    start_search("reinforce", tmp_path / "earlier", budget=2)
    config = json.loads((tmp_path / "earlier" / "config.json").read_text())
    del config["arguments"]["init"]
    config["arguments"] |= {"reads": "elite", "num_proposals": 32, "train_freq": 10}
    (tmp_path / "earlier" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    cases = {
        ("--resume", "absent"): "absent is not a run directory",
        ("--resume", "run", "--std", "3"): "--std is 0.9 in run and cannot be changed with --resume",
        ("--resume", "run", "--num-envs", "2"): "--num-envs is 1 in run and cannot be changed",
        ("--resume", "run", "--run-dir", "other"): "--run-dir is run in run and cannot be changed",
        ("--resume", "run", "--max-params", "9"): "--max-params is None in run and cannot be changed",
        (
            "--resume",
            "foreign",
        ): "foreign is a search with random_search and the options of a different agent or version of NASES; resume",
        ("--resume", "earlier"): "earlier is a search with reinforce and the options of a different agent or version",
    }
    for options, message in cases.items():
        assert message in error_of(run_here(script(REINFORCE), *options))


def test_other_executor_drops_recorded_options_that_it_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_search("reinforce", tmp_path / "run", budget=2)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["arguments"]["execution"] |= {"executor": "processes", "num_workers": 2, "memory_limit": 8.0}
    path.write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    options = ("--resume", "run", "--budget", "4", "--executor", "serial")
    message = "the executor serial does not take memory_limit; omit it"
    assert message in error_of(run_here(script(REINFORCE), *options, "--memory-limit", "8"))
    result = run_here(script(REINFORCE), *options)
    assert result.returncode == 0, result.stderr
    assert "note: the executor serial does not take memory_limit; the search continues without it" in result.stderr
    assert len(trajectory(tmp_path / "run")) == 4
    execution = load_args(module_of("reinforce").Args, tmp_path / "run").execution
    assert (execution.executor, execution.num_workers, execution.memory_limit) == ("serial", None, None)


@pytest.mark.usefixtures("without_reports")
def test_resume_that_starts_slowly_continues_after_the_trials_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run directory is read after it is locked: another search may append to it until then."""
    start_search("reinforce", tmp_path / "whole")
    start_search("reinforce", tmp_path / "run", budget=6)
    lock = RunDir.lock

    def lock_late(directory: RunDir, **options: bool) -> None:
        monkeypatch.setattr(RunDir, "lock", lock)
        resume("reinforce", tmp_path / "run", budget=10)
        lock(directory, **options)

    monkeypatch.setattr(RunDir, "lock", lock_late)
    resume("reinforce", tmp_path / "run", budget=BUDGET)
    assert trajectory(tmp_path / "run") == trajectory(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["budgets"] == [6, 10, BUDGET]


def test_trajectory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("text\n")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / TRAJECTORY).symlink_to(target)
    with pytest.raises(InputError, match=rf"run/{TRAJECTORY} is a symbolic link, .*; replace it with a copy"):
        SearchRun(SearchArgs(env_id="NASES-Synthetic-v0", budget=1, run_dir=run_dir), agent="test")
    assert target.read_text() == "text\n"
    assert [path.name for path in run_dir.iterdir()] == [TRAJECTORY]
