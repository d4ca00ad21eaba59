"""``nases reproduce``: stages, report, rerun, dry run, and interrupts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from nases_agents import reinforce

from nases_env.cli import main as cli
from nases_env.cli import reproduce as command
from nases_env.cli.reproduce import parse_reproduce, reproduce_command
from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.evaluation import RETRAIN_PRESETS, TrainingEvaluator
from nases_env.execution.store import process_start_time
from nases_env.file_lock import lock, open_folder
from nases_env.retraining import timing
from nases_env.retraining.plan import Plan, Step, make_plan
from nases_env.retraining.protocol_report import write_protocol_report
from nases_env.retraining.timing import TrainingTime
from nases_env.streams import OutputStream
from tests.commands import module, run_here
from tests.processes import ForkedCommand
from tests.training.images import write_folder

pytestmark = pytest.mark.usefixtures("few_samples", "tiny_children")

STAGES_OF_A_SEED = (
    "nases pretrain",
    "python -m nases_agents.elite_reinforce",
    "nases train",
    "python -m nases_agents.random_search",
    "nases train",
)


def reproduce(*options: object) -> None:
    reproduce_command(parse_reproduce([str(option) for option in options]))


def steps_of(folder: Path) -> list[Step]:
    plan = make_plan(parse_reproduce(["--preset", "smoke", "--output", str(folder)]))
    return list(dataclasses.replace(plan, search_space="nasbench201").steps())


def run_printed(step: Step) -> str:
    """Run the printed command of a step in this process and return its output."""
    program, *words = shlex.split(step.command)
    main = module(words[1]) if program == "python" else cli.main
    result = run_here(main, *(words[2:] if program == "python" else words))
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_agent_here(words: Sequence[str]) -> None:
    """Run the command of an agent in this process instead of a new one."""
    python, flag, name, *options = words
    assert (python, flag) == (sys.executable, "-m")
    result = run_here(module(name), *options)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module", autouse=True)
def small_search_space() -> Iterator[None]:
    """Let ``NASES-Digits-v0``, the environment of the preset smoke, search a space whose children are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gymnasium.registry, "NASES-Digits-v0", digits_spec("NASES-Digits-v0"))
        yield


def digits_spec(name: str) -> EnvSpec:
    return EnvSpec(name, "nases_env.envs:ImageEnv", kwargs={"dataset": "digits", "search_space": "nasbench201"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reproduce with one seed, then with a second one, whose pretraining and searches are run by their printed commands."""
    path = tmp_path_factory.mktemp("reproduction") / "smoke"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_run_agent", run_agent_here)
        reproduce("--preset", "smoke", "--output", path, "--seeds", 1)
    steps = steps_of(path)
    assert [step.is_done for step in steps] == [True] * 5 + [False] * 5
    for step in steps[5:]:
        if step.stage != "train":
            run_printed(step)
    reproduce("--preset", "smoke", "--output", path)
    return path


def test_three_stages_are_run_for_every_seed(folder: Path) -> None:
    for seed in range(2):
        record = json.loads((folder / f"seed-{seed}" / "embedding.json").read_text())
        assert f"--seed {seed} --num-steps 30" in f"{record['command']} " or seed == 0
        for agent in ("elite_reinforce", "random_search"):
            run = folder / f"seed-{seed}" / agent
            search = json.loads((run / "config.json").read_text())
            assert (search["agent"], search["arguments"]["budget"], search["arguments"]["seed"]) == (agent, 3, seed)
            embedding = str(folder / f"seed-{seed}" / "embedding.safetensors") if agent == "elite_reinforce" else None
            assert search["arguments"]["embedding"] == embedding
            assert len((run / "evaluations.jsonl").read_text().splitlines()) == 3
            assert (run / "final" / f"seed-{seed}" / "model.safetensors").exists()
            assert json.loads((run / "best.json").read_text())["cell"]


def test_report_contains_the_measured_values(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    errors = {}
    for agent in ("elite_reinforce", "random_search"):
        finals = [folder / f"seed-{seed}" / agent / "final" / f"seed-{seed}" / "result.json" for seed in range(2)]
        errors[agent] = [json.loads(path.read_text())["test_error"] for path in finals]
        assert report["agents"][agent]["test_errors"] == errors[agent]
        assert report["agents"][agent]["final"]["test_error_mean"] == pytest.approx(sum(errors[agent]) / 2)
    less = [random - ours for random, ours in zip(errors["random_search"], errors["elite_reinforce"], strict=True)]
    assert report["agents"]["elite_reinforce"]["less_error_than_random_search"]["mean"] == pytest.approx(sum(less) / 2)
    assert report["agents"]["random_search"]["less_error_than_random_search"] is None
    text = (folder / "report.md").read_text()
    for words in ("Stage 1", "Stage 2", "Final training", "2 seeds in NASES-Digits-v0", "64 training images of digits"):
        assert words in text
    assert "Changed from the search: num_epochs 1 -> 3, num_cycles 3 -> 1, " in text
    assert report["changed_settings"]["num_epochs"] == [1, 3]
    assert "Table 1" not in text  # Table 1 is on CIFAR-10
    plan = steps_of(folder)[0].plan
    best = [search["reward"] for search in report["agents"]["random_search"]["searches"]]
    assert "| best reward % |" in text
    assert f"| random_search | {100 * statistics.mean(best):.2f} ± " in text
    other = dataclasses.replace(plan, child=dataclasses.replace(plan.child, reward_signal="training_speed"))
    assert f"| random_search | {statistics.mean(best):.4f} ± " in write_protocol_report(other)
    assert write_protocol_report(plan) == text


def test_second_process_in_the_same_new_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes find the directory empty; then the first one starts."""
    output = tmp_path / "smoke"
    prepare = command._prepare_evaluator

    def prepare_while_another_starts(plan: Plan) -> TrainingEvaluator:
        evaluator = prepare(plan)
        output.mkdir()
        descriptor = open_folder(output)
        stack.callback(os.close, descriptor)
        assert lock(descriptor)
        return evaluator

    monkeypatch.setattr(command, "_prepare_evaluator", prepare_while_another_starts)
    with contextlib.ExitStack() as stack, pytest.raises(InputError, match=f"another process uses {output}; wait"):
        reproduce("--preset", "smoke", "--output", output)
    assert list(output.iterdir()) == []


def test_rerun_executes_only_the_missing_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = folder / "seed-1" / "random_search" / "final" / "seed-1" / "result.json"
    before = final.read_text()
    others = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "report" not in path.name}
    final.unlink()
    report = (folder / "report.json").read_text()
    reproduce("--preset", "smoke", "--output", folder)
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")] == [
        f"[10/10] nases train {folder}/seed-1/random_search --seed 1"
    ]
    changed = {path for path, time in others.items() if path.stat().st_mtime_ns != time}
    assert {path.parent for path in changed} == {final.parent}
    ours, theirs = json.loads(final.read_text()), json.loads(before)
    assert {**ours, "seconds": 0, "hours": 0} == {**theirs, "seconds": 0, "hours": 0}
    assert (
        json.loads((folder / "report.json").read_text())["agents"]["elite_reinforce"]
        == json.loads(report)["agents"]["elite_reinforce"]
    )


@pytest.mark.parametrize("missing", ["report.json", "report.md"])
def test_rerun_writes_the_report_of_a_training_that_was_killed_before(folder: Path, tmp_path: Path, missing: str) -> None:
    output = tmp_path / "copy"
    shutil.copytree(folder, output)
    final = output / "seed-1" / "random_search" / "final"
    before = (final / missing).read_text()
    for name in ("report.json", "report.md")[("report.json", "report.md").index(missing) :]:  # in the order of writing
        (final / name).unlink()
    reproduce("--preset", "smoke", "--output", output)
    assert (final / missing).read_text() == before


def test_dry_run_prints_steps_and_durations_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new"
    options = ["--preset", "smoke", "--output", output, "--seeds", 1, "--num-threads", 1, "--final.cutout-length", 2]
    reproduce(*options, "--child.num-filters", 3, "--dry-run")
    *steps, total, _ = capsys.readouterr().out.splitlines()
    assert not output.exists()
    assert len(steps) == len(STAGES_OF_A_SEED)
    for line, stage in zip(steps, STAGES_OF_A_SEED, strict=True):
        assert line.strip().split("  ", 1)[1].startswith(stage)
        assert line.split()[1] in ("s", "min")
    assert steps[1].endswith("--child.num-filters 3")  # options that equal the preset are omitted
    assert steps[2].endswith("--child.cutout-length 2")
    assert "total on" in total


@pytest.mark.parametrize(("num_trials", "search", "total"), [(0, "1 min 4 s", "1 min 34 s"), (1, "54 s", "1 min 24 s")])
def test_dry_run_counts_what_is_left_and_the_finalists(
    num_trials: int,
    search: str,
    total: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each epoch takes 10 seconds: each of 3 children and 3 finalists has 1, and the final training 3."""
    times = TrainingTime(per_epoch=10.0, overhead=0.0)
    for where in (timing, command):
        monkeypatch.setattr(where, "time_training", lambda *_, **__: times)
    monkeypatch.setattr(timing, "FORWARD_SHARE", 0.0)
    monkeypatch.setattr(command, "time_pretraining", lambda *_: 0.0)
    output = tmp_path / "copy"
    shutil.copytree(folder, output)
    run_dir = output / "seed-1" / "random_search"
    shutil.rmtree(run_dir / "final")
    config = json.loads((run_dir / "config.json").read_text())
    del config["finished"]
    (run_dir / "config.json").write_text(json.dumps(config))
    trials = (run_dir / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "evaluations.jsonl").write_text("".join(trials[:num_trials]))
    reproduce("--preset", "smoke", "--output", output, "--dry-run")
    *_, of_search, of_training, in_all, _ = (line[:16].strip() for line in capsys.readouterr().out.splitlines())
    assert (of_search, of_training, in_all) == (search, "30 s", total)


def test_final_training_that_diverges_names_what_to_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(folder, output)
    finals = sorted(output.glob("seed-*/*/final"))
    options = ["--preset", "smoke", "--output", output, "--seeds", 1]
    for final in finals:
        shutil.rmtree(final)
    run_dir = output / "seed-0" / "elite_reinforce"
    with pytest.raises(InputError) as raised:
        reproduce(*options, "--final.lr-max", 1e30)
    assert str(raised.value) == (
        f"{run_dir}: the training with seed 0 failed in epoch 1: the loss is not finite; to train all final networks again "
        f"and keep the searches, delete {output}/seed-*/*/final and rerun the command with a lower --final.lr-max"
    )
    assert "rerun the command to resume" not in capsys.readouterr().err
    with pytest.raises(InputError, match=r"was started with --final.lr-max 1e\+30; pass the same options"):
        reproduce(*options, "--final.lr-max", 0.01)
    shutil.rmtree(run_dir / "final")
    reproduce(*options, "--final.lr-max", 0.01)
    assert [line.split()[1:3] for line in capsys.readouterr().err.splitlines() if line.startswith("[")] == 2 * [
        ["nases", "train"]
    ]
    assert json.loads((output / "report.json").read_text())["changed_settings"]["lr_max"] == [0.1, 0.01]
    assert command._check_config(plan_of(*map(str, options), "--final.lr-max", "0.01"))


def test_images_of_the_user_have_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "images", per_class=10)
    reproduce("--preset", "small", "--data-dir", tmp_path / "images", "--dry-run")
    *steps, total, _ = capsys.readouterr().out.splitlines()
    assert len(steps) == 3 * len(STAGES_OF_A_SEED)
    assert "--env-id NASES-ImageFolder-v0 --preset small --budget 30" in steps[1]
    assert "total on" in total


def test_dry_run_of_a_finished_reproduction_has_no_steps_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce("--preset", "smoke", "--output", folder, "--dry-run")
    *steps, total, _ = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["done"] * 10
    assert total.split()[:2] == ["0", "s"]


def test_search_command_of_a_finished_search_has_no_effect(folder: Path) -> None:
    assert "is finished" in run_printed(steps_of(folder)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agents", "reinforc"], "unknown agent 'reinforc' .did you mean 'reinforce'"),
        (["--agents", "reinforce", "reinforce"], "--agents must list at least one agent, without duplicates"),
        (["--agents", "reinforce"], "was started with --agents elite_reinforce random_search; pass the same options"),
        (["--budget", 0], "--budget must be at least 1, not 0"),
        (["--num-envs", 0], "--num-envs must be at least 1, not 0"),
        (["--num-threads", 0], "--num-threads must be at least 1, not 0"),
        (["--num-threads", 100000], "--num-threads must be at most 1024, not 100000"),
        (
            ["--budget", 4],
            "was started with --budget 3; pass the same options, or choose a different --output",
        ),
        (["--final.cutout-length", 2], "was started with --final.cutout-length 0; pass the same options"),
        (["--num-workers", 2], "the executor serial does not take num_workers; omit it"),
    ],
)
def test_invalid_input_is_a_one_line_error(folder: Path, options: list[object], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(InputError, match=message):
        reproduce("--preset", "smoke", "--output", folder, *options)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("env_id", ["NASES-NASBench201-v0", "NASES-Synthetic-v0"])
def test_environment_that_does_not_train_is_an_error(env_id: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take --"):
        reproduce("--preset", "smoke", "--output", tmp_path / "new", "--env-id", env_id)
    assert not list(tmp_path.iterdir())


def test_final_trainings_need_the_device_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot use the device 'cuda:99'"):
        reproduce("--preset", "smoke", "--output", tmp_path / "new", "--device", "cuda:99", "--executor", "slurm")
    assert not list(tmp_path.iterdir())


def test_reproduction_of_an_earlier_version_is_recognized(folder: Path, tmp_path: Path) -> None:
    """Earlier versions wrote "preset" for unset settings, and two settings had other names."""
    config = json.loads((folder / "config.json").read_text())
    names = [name for name in config["child"] if name not in ("cutout_length", "drop_path_prob")]
    old = dict.fromkeys([*names, "cutout", "drop_path_keep"], "preset")
    (tmp_path / "config.json").write_text(json.dumps({**config, "child": {**old, "cutout": 2}, "final": old}))
    options = ["--preset", "smoke", "--output", tmp_path, "--dry-run"]
    with pytest.raises(InputError, match=r"was started with --child.cutout-length 2; pass the same options"):
        reproduce(*options)
    options += ["--child.cutout-length", 2]  # the final training was then without cutout
    (tmp_path / "seed-0" / "random_search" / "final").mkdir(parents=True)  # otherwise, its settings may change
    with pytest.raises(InputError, match=r"was started with --final.cutout-length 0; pass the same options"):
        reproduce(*options)
    assert command._check_config(make_plan(parse_reproduce([*map(str, options), "--final.cutout-length", "0"])))
    with pytest.raises(InputError, match="was started with --preset smoke; pass the same options"):
        reproduce("--preset", "cpu", *options[2:])


def test_limits_of_the_final_training_can_be_removed() -> None:
    """The size of the final network is known only after the search."""
    limits = ["--preset", "smoke", "--max-params", "100k", "--max-latency", "2ms"]
    searches = [step.options()[-4:] for step in plan_of(*limits).steps() if step.stage == "search"]
    assert searches == 4 * [["--max-params", "100000", "--max-latency", "0.002s"]]
    for given, expected in (([], []), (["--no-limit-final"], ["--max-params", "none", "--max-latency", "none"])):
        steps = plan_of(*limits, *given).steps()
        assert [step.options()[3:] for step in steps if step.stage == "train"] == 4 * [expected]


def test_removed_limit_of_the_final_training_does_not_change_the_reproduction(folder: Path) -> None:
    options = ["--preset", "smoke", "--output", str(folder)]
    assert command._check_config(plan_of(*options, "--no-limit-final"))
    with pytest.raises(InputError, match="was started with --max-params None; pass the same options"):
        command._check_config(plan_of(*options, "--max-params", "9"))


def test_limit_of_an_earlier_version_is_recognized(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["limits"]
    config["child"]["max_params"] = config["final"]["max_params"] = 9
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = ["--preset", "smoke", "--output", str(tmp_path)]
    assert command._check_config(plan_of(*options, "--max-params", "9"))
    with pytest.raises(InputError, match="was started with --max-params 9; pass the same options"):
        command._check_config(plan_of(*options))


@pytest.mark.parametrize("limits", [None, 5, []])
def test_damaged_limits_are_an_input_error(folder: Path, tmp_path: Path, limits: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "limits": limits}))
    with pytest.raises(InputError, match=r"cannot read .*config.json \(limits must be an object\); choose a different"):
        command._check_config(plan_of("--preset", "smoke", "--output", str(tmp_path)))


def plan_of(*options: str) -> Plan:
    return make_plan(parse_reproduce(options))


@pytest.mark.parametrize(("preset", "size", "epochs"), [("paper", (5, 40), (630, 6)), ("gpu", (2, 20), (150, 4))])
def test_final_training_has_the_network_of_the_searches(preset: str, size: tuple[int, int], epochs: tuple[int, int]) -> None:
    final = plan_of("--preset", preset).final
    assert (final.cells_per_stage, final.num_filters) == size
    assert (final.num_epochs, final.num_cycles) == epochs


def test_preset_paper_runs_algorithm_1() -> None:
    """The agents and their options are the preset's."""
    searches = [step for step in plan_of("--preset", "paper", "--seeds", "1").steps() if step.stage == "search"]
    assert [step.agent for step in searches] == ["reinforce", "random_search"]
    args = parse(reinforce.Args, args=searches[0].options())
    assert (args.std, args.unseen) == (0.1, False)
    assert "--std" not in searches[1].options()
    (search, *_) = [step for step in plan_of("--preset", "gpu", "--agents", "reinforce").steps() if step.stage == "search"]
    assert "--std" not in search.options()


def test_options_of_the_final_training_change_only_what_they_name() -> None:
    options = ("--preset", "smoke", "--child.num-filters", "3", "--child.num-epochs", "2")
    plan = plan_of(*options, "--final.cutout-length", "2")
    assert plan.final == dataclasses.replace(RETRAIN_PRESETS["smoke"], num_filters=3, cutout_length=2)
    step = next(step for step in plan.steps() if step.stage == "train")
    assert step.options() == ["runs/reproduction-smoke/seed-0/elite_reinforce", "--seed", "0", "--child.cutout-length", "2"]
    shown = run_here(cli.main, "reproduce", *options, "--help").stdout
    assert re.search(r"--final\.num-filters .*?\(default: 3\)", shown, re.DOTALL)
    with pytest.raises(InputError, match=r"--final.num-valid-images has no effect on a final training; omit it"):
        plan_of("--preset", "smoke", "--final.num-valid-images", "9")
    with pytest.raises(InputError, match=r"--final.reward-signal has no effect on a final training; omit it"):
        plan_of("--preset", "smoke", "--final.reward-signal", "training_speed")
    assert plan_of("--preset", "gpu", "--child.schedule", "triangular").final.schedule == "triangular"


def test_embeddings_are_those_of_the_search_space_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gymnasium.registry, "Digits201-v0", digits_spec("Digits201-v0"))
    words = ("--preset", "smoke", "--env-id", "Digits201-v0", "--output", tmp_path / "new", "--dry-run")
    reproduce(*words)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("nases pretrain") == shown.count("--search-space nasbench201") == 2


def test_another_directory_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a reproduction; choose a different --output"):
        reproduce("--preset", "smoke", "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


INTERRUPT = """
import os, pathlib, signal, sys, time

def stop(*received):
    time.sleep(0.2)
    pathlib.Path(sys.argv[1]).write_text(signal.Signals(received[0]).name)
    sys.exit(130)

signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
time.sleep(0.5)  # until the other process waits for this one
os.kill(os.getppid(), signal.SIGINT)
if sys.argv[2] == "terminal":  # Ctrl-C in a terminal is sent to both processes
    os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


@pytest.mark.parametrize(("sender", "received"), [("terminal", "SIGINT"), ("kill", "SIGTERM")])
def test_interrupt_is_forwarded_to_the_agent(
    sender: str, received: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without an end of the grace, the command returns because the agent ends.
    monkeypatch.setattr(command, "INTERRUPT_GRACE_SECONDS", math.inf if sender == "terminal" else 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            command._run_agent([sys.executable, "-c", INTERRUPT, str(tmp_path / "end"), sender])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (tmp_path / "end").read_text() == received


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_exit_status_of_the_agent_is_returned(code: str, status: int) -> None:
    with pytest.raises(SystemExit) as exited:
        command._run_agent([sys.executable, "-c", f"import os; {code}"])
    assert exited.value.code == status


AGENT = """
import os, pathlib, sys, time
from nases_env.command_line import run

def main():
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(600)

run(main)
"""


def test_agent_ends_when_the_reproduction_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", AGENT, str(tmp_path / "pid")]
    reproduction = ForkedCommand(partial(command._run_agent, words), folder=tmp_path)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    reproduction.send_signal(signal.SIGKILL)
    reproduction.wait()
    agent = int((tmp_path / "pid").read_text())
    try:
        wait_until(lambda: process_start_time(agent) is None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reproduction_continues_without_standard_output(folder: Path, tmp_path: Path) -> None:
    """Pretraining, which prints its results, and the report are repeated."""
    output = tmp_path / "copy"
    shutil.copytree(folder, output)
    for name in ("seed-0/embedding.json", "report.json"):
        (output / name).unlink()
    with OutputStream(open("/dev/full", "wb")) as out, contextlib.redirect_stdout(out):
        reproduce("--preset", "smoke", "--output", output)
    assert "No space left on device" in str(out.error)
    assert (output / "report.json").read_bytes() == (folder / "report.json").read_bytes()


def test_reproduction_continues_after_a_finished_search_that_could_not_print(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: Sequence[str]) -> None:
        raise SystemExit(2)

    monkeypatch.setattr(command, "_run_agent", fail)
    command._run(steps_of(folder)[1])
    with pytest.raises(SystemExit):
        command._run(steps_of(tmp_path)[1])
