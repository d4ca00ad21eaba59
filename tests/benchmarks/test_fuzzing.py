"""The campaign of random inputs: small ones pass, and hangs, memory and dead processes are detected."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.fault_injection.fuzzing import campaign
from benchmarks.fault_injection.fuzzing.campaign import Worker
from benchmarks.fault_injection.fuzzing.command_lines import commands, options_of
from benchmarks.fault_injection.fuzzing.inputs import INPUTS, OUTPUTS, FuzzInput, Outcome, Report, command, run_input
from benchmarks.fault_injection.fuzzing.kinds import KINDS, SHARES, draw_input, kind_of
from nases_env.cli import main as cli
from nases_env.errors import InputError
from tests.commands import run_benchmark
from tests.processes import processes

CALL = next(number for number in range(sum(SHARES.values())) if kind_of(number) == "calls")


@pytest.fixture(autouse=True)
def _forked_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of a campaign, which saves the time of their imports."""
    monkeypatch.setattr(campaign, "SPAWN", processes)


def test_campaign_counts_every_input(tmp_path: Path) -> None:
    output, num_inputs = tmp_path / "output.json", sum(SHARES.values())
    options = ("--campaigns", "fuzz", "--num-inputs", str(num_inputs), "--num-workers", "1", "--output", str(output))
    printed = run_benchmark("fault_injection", options, tmp_path).stdout
    assert "✔ fuzz: every input gives a result or an error of one line" in printed
    metrics = json.loads(output.read_text())["campaigns"]["fuzz"]
    assert {kind: sum(counts.values()) for kind, counts in metrics["counts"].items()} == SHARES
    assert metrics["violations"] == []
    assert all(gib > 0 for gib in metrics["max_gib"].values())


def test_hangs_memory_and_dead_processes_are_detected(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    worker = Worker(0, samples, tmp_path / "worker")
    try:
        assert wait_for(worker) == Report("result")
        assert worker.is_usable
        process = psutil.Process(worker._process.pid)
        process.suspend()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(campaign, "MEMORY_LIMIT_GIB", 0.01)
            worker.run(CALL)
            assert wait_for(worker).outcome == "memory"
            assert not worker.is_usable
        for name, seconds in (("HANG_SECONDS", -1.0), ("IDLE_SECONDS", 0.1)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(campaign, name, seconds)
                worker.run(CALL)
                assert wait_for(worker).outcome == "hang"
        worker.run(CALL)
        process.kill()
        assert wait_for(worker) == Report("traceback", "the process exited with status -9")
    finally:
        worker.stop()
    assert not process.is_running()


def wait_for(worker: Worker) -> Report:
    while (report := worker.poll()) is None:
        time.sleep(0.01)
    return report


def fail(error: BaseException) -> None:
    raise error


def write(path: str) -> None:
    Path(path).write_text("changed")


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (FuzzInput("call", lambda: 3), "result"),
        (FuzzInput("call", lambda: fail(InputError("one line"))), "error"),
        (FuzzInput("call", lambda: fail(InputError(""))), "error"),
        (FuzzInput("call", lambda: fail(ValueError("x"))), "traceback"),
        (FuzzInput("call", lambda: fail(SystemExit(2))), "traceback"),
        (FuzzInput("call", lambda: write(f"{INPUTS}/file")), "changed"),
        (FuzzInput("call", lambda: write(f"{OUTPUTS}/file")), "result"),
        (command("nases", cli.main, ["--help"]), "result"),
        (command("nases", cli.main, ["x"]), "error"),
        (command("x", lambda: fail(SystemExit(2)), []), "traceback"),
        (command("x", lambda: fail(SystemExit(3)), []), "traceback"),
        (command("x", lambda: fail(ValueError("x")), []), "traceback"),
    ],
)
def test_outcome_of_an_input(given: FuzzInput, outcome: Outcome, tmp_path: Path) -> None:
    for name in (INPUTS, OUTPUTS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    assert run_input(given, tmp_path).outcome == outcome


def test_failed_command_must_not_change_its_outputs(tmp_path: Path) -> None:
    (tmp_path / OUTPUTS).mkdir()
    (tmp_path / OUTPUTS / "file").write_text("text")

    def write_and_fail() -> None:
        write(f"{OUTPUTS}/file")
        raise InputError("after the change")

    assert run_input(FuzzInput("call", write_and_fail), tmp_path) == Report("changed", f"{OUTPUTS}/file")


@pytest.mark.parametrize("kind", ["tables", "image folders", "calls"])
def test_equal_seeds_give_equal_inputs(kind: str, tmp_path: Path) -> None:
    assert kind in KINDS
    texts, contents = [], []
    for name in ("first", "second"):
        texts += [draw_input(kind, 0, 3, tmp_path, tmp_path / name).text]
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents += [[(path.name, path.read_bytes()) for path in files]]
    assert texts[0] == texts[1]
    assert contents[0] == contents[1]


def test_all_commands_and_options_are_drawn() -> None:
    options = {each.name: {option.name for option in options_of(each.args_type)} for each in commands()}
    assert {"sb3", "reinforce", "random_search", "nases store", "nases reproduce"} <= options.keys()
    assert {"budget", "executor", "child.num_epochs", "rungs", "env_kwargs"} <= options["reinforce"]
    assert "final.num_epochs" in options["nases reproduce"]
