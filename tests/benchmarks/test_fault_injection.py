"""Tests of the fault-injection benchmark: small campaigns pass, and each check detects the problem that it checks for."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import pytest

from benchmarks.fault_injection import checks, concurrency, kills, search_process
from benchmarks.fault_injection.__main__ import CAMPAIGNS, Args, main
from benchmarks.fault_injection.concurrency import NUM_PROCESSES
from benchmarks.fault_injection.control_dir import CONTROL_DIR_VARIABLE, FAULT_REQUESTS, ControlDir
from benchmarks.fault_injection.faulty_spaces import ToySpace, TrainedSpace, inject_requested_fault
from benchmarks.fault_injection.forked_command import ForkedCommand, describe_failure, find_processes
from benchmarks.fault_injection.injector import (
    FAULTS,
    SEARCH_KILL,
    FaultInjector,
    SearchFailed,
    draw_schedule,
    first_occurrences,
)
from benchmarks.fault_injection.kills import make_stores, make_targets, split_kills
from benchmarks.fault_injection.search_process import MARKER_VARIABLE, SearchProcess
from nases_env import visualization
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.networks import NetworkSettings
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.run_dir import BEST_DRAWINGS
from nases_env.search_spaces import get_search_space
from tests import processes
from tests.commands import ROOT, run_benchmark, script
from tests.drawings import reuse_drawings
from tests.processes import run_forked
from tests.small_sizes import reduce_children, reduce_samples

NUM_CHILDREN = 4


class ForkedSearch:
    """A search that is forked instead of started by ``Popen``, which saves the time of its imports.

    Its workers are new interpreters, as always.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], stdout: BinaryIO, **more: Any) -> None:
        _, agent, *options = command
        prepare = partial(lead_session, Path(stdout.name))
        self._command = processes.ForkedCommand(
            script(Path(agent)), *options, folder=Path.cwd(), prepare=prepare, environment=env
        )
        self.pid = self._command.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode if self._command.is_running() else self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self._command.send_signal(number)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._command.wait().returncode
        return self.returncode


def lead_session(output: Path) -> None:
    """Make this process the leader of a new session, and append its output to a file."""
    os.setsid()
    tempfile.tempdir = None  # read again from the environment
    with open(output, "ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


@pytest.fixture
def forked_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_process, "Popen", ForkedSearch)


@pytest.mark.usefixtures("forked_searches")
def test_toy_search_with_faults_equals_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this seed, the second kill happens while the search restarts."""
    monkeypatch.setattr("benchmarks.fault_injection.injector.STARTUP_SECONDS", 2.0)
    output, num_children, num_kills = tmp_path / "out" / "output.json", 8, 2
    options = ("--num-kills", str(num_kills), "--num-faults", "1", "--seed", "4", "--toy-children", str(num_children))
    paths = ("--work-dir", "work", "--output", str(output))
    run_benchmark("fault_injection", ("--campaigns", "toy", "--num-workers", "1", *options, *paths), tmp_path)
    metrics = json.loads(output.read_text())
    assert metrics["passed"] is True
    assert metrics["settings"]["num_kills"] == num_kills
    check_campaign(metrics["campaigns"]["toy"], num_children, num_kills, tmp_path / "work" / "toy")
    assert not running_processes(tmp_path)


@pytest.mark.usefixtures("forked_searches")
def test_two_searches_share_the_evaluations_in_one_store(tmp_path: Path) -> None:
    output, campaigns = tmp_path / "output.json", CAMPAIGNS[2:3]
    options: dict[str, Any] = {"toy_children": 8, "num_workers": 1}
    main(Args(campaigns=campaigns, work_dir=tmp_path / "work", output=output, **options))
    metrics = json.loads(output.read_text())
    assert metrics["passed"] is True
    for name in campaigns:
        shared = metrics["campaigns"][name]
        assert all(check == {"passed": True, "problems": []} for check in shared["checks"].values())
        assert len(shared["checks"]) == 9
        assert shared["counts"] == {"repeated_evaluations": 0}
    assert not running_processes(tmp_path)


def check_campaign(metrics: dict[str, Any], num_children: int, num_kills: int, folder: Path) -> None:
    assert all(check == {"passed": True, "problems": []} for check in metrics["checks"].values())
    assert len(metrics["checks"]) == 9
    done = {SEARCH_KILL: num_kills, "resume": num_kills, **dict.fromkeys(FAULTS, 1)}
    assert metrics["counts"].items() >= done.items()
    assert metrics["children"] == num_children
    run_dir = folder / "faulted" / "run"
    assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == num_children
    assert json.loads((run_dir / "config.json").read_text())["num_resumed"] < num_children  # it was resumed
    assert set(metrics["failed_attempts"]) == set(checks.REASONS)


def running_processes(folder: Path) -> list[int]:
    """Return the processes of a campaign in ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:
            continue
        if f"{CONTROL_DIR_VARIABLE}={folder}".encode() in environment:
            found.append(int(path.parent.name))
    return found


@pytest.mark.usefixtures("forked_searches")
def test_campaign_fails_if_the_reference_search_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.fault_injection.__main__.MEMORY_LIMIT_GIB", -1.0)  # rejected by the search
    output = tmp_path / "output.json"
    with pytest.raises(SystemExit) as exit_info:
        main(Args(campaigns=("toy",), toy_children=2, work_dir=tmp_path / "work", output=output))
    assert exit_info.value.code == 1
    metrics = json.loads(output.read_text())
    assert metrics["passed"] is False
    problems = metrics["campaigns"]["toy"]["checks"]["the reference search ends"]["problems"]
    assert "exited with status 2" in problems[0]
    assert "✘ toy: the reference search ends" in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a search that has ended normally; it was run in this process."""
    folder = tmp_path_factory.mktemp("finished")
    control = ControlDir(folder / "control")
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=NUM_CHILDREN, run_dir=folder / "run")
    with SearchRun(args, agent="random_search") as run:
        rng = np.random.default_rng(0)
        while not run.loop.done:
            (evaluation,) = run.loop.evaluate_all([run.env.search_space.sample(rng)])
            control.log("completed", evaluation.key)
    return folder


@pytest.fixture
def search(finished: Path, tmp_path: Path) -> SearchProcess:
    """A search with a copy of these files."""
    shutil.copytree(finished / "control", tmp_path / "control")
    search = SearchProcess("random_search", (), tmp_path / "search", ControlDir(tmp_path / "control"))
    shutil.copytree(finished / "run", search.run_dir)
    return search


def copy_of(search: SearchProcess, folder: Path) -> SearchProcess:
    """Return another search with a copy of the same files."""
    copy = SearchProcess("random_search", (), folder, search.control)
    shutil.copytree(search.run_dir, copy.run_dir)
    return copy


def keys_of(search: SearchProcess) -> list[str]:
    return [json.loads(line)["key"] for line in (search.run_dir / "evaluations.jsonl").read_text().splitlines()]


def change_line(search: SearchProcess, number: int, **values: Any) -> None:
    path = search.run_dir / "evaluations.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number - 1].update(values)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_store(search: SearchProcess, statement: str) -> None:
    store = sqlite3.connect(search.store)
    with store:
        store.execute(statement)
    store.close()


def test_checks_pass_for_a_finished_search(search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_line(copy, 2, seconds=9.0, device="cuda")
    assert checks.compare_trajectories(copy, search) == []
    assert checks.compare_stores(copy, search) == []
    assert checks.check_store_content(search) == []
    assert checks.check_completed(search, 0) == []
    assert not any(checks.run_common_checks(copy).values())


def test_changed_trajectory_is_detected(search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_line(copy, 2, reward=0.125)
    assert [problem.partition(" is ")[0] for problem in checks.compare_trajectories(copy, search)] == ["child 2: reward"]
    path = copy.run_dir / "evaluations.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "3 children, not 4" in checks.compare_trajectories(copy, search)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE evaluations SET valid_accuracy = 0.875 WHERE rowid = 2", "0.875"),
        ("UPDATE evaluations SET curve = '[1]' WHERE rowid = 2", "[1]"),
        ("DELETE FROM evaluations WHERE rowid = 2", "is missing"),
        ("UPDATE evaluations SET key = 'other' WHERE rowid = 2", "is not in the reference"),
    ],
)
def test_changed_store_is_detected(statement: str, problem: str, search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_store(copy, statement)
    assert any(problem in line for line in checks.compare_stores(copy, search))
    assert bool(checks.check_store_content(copy)) == ("is" in problem.split())


def test_repeated_lost_and_unknown_evaluations_are_detected(search: SearchProcess) -> None:
    key = keys_of(search)[1]
    search.control.log("completed", key)
    assert checks.num_repeated(search) == 1
    assert checks.check_completed(search, 1) == []
    assert checks.check_completed(search, 0) == ["1 completed evaluations were repeated; at most 0 can have been lost"]
    search.control.log("completed", "other")
    assert checks.check_completed(search, 2) == ["other was completed but is not in the store"]
    (search.control.path / "log").unlink()
    assert len(checks.check_completed(search, 1)) == NUM_CHILDREN


def test_remaining_lease_is_detected(search: SearchProcess) -> None:
    store = Store(search.store)
    assert store.acquire("some child", "digest", 0)
    assert [problem.partition(" holds the lease of ")[2] for problem in checks.find_leases(search)] == ["some child"]
    store.close()
    assert checks.find_leases(search) == []


def test_unexpected_and_missing_files_are_detected(search: SearchProcess) -> None:
    unexpected = [".best.json.x1y2", "store.sqlite-wal", "checkpoints/child.safetensors", "logs/.x", "core"]
    for name in unexpected:
        (search.run_dir / name).parent.mkdir(exist_ok=True)
        (search.run_dir / name).touch()
    (search.run_dir / "best.png").unlink()
    (search.temporary_dir / "tmpx").mkdir()
    assert set(checks.check_files(search)) == {
        *(f"unexpected {name} in the run directory" for name in (*unexpected, "checkpoints")),
        "best.png is missing in the run directory",
        "unexpected tmpx in the temporary directory",
    }


def test_unexpected_files_next_to_a_shared_store_are_detected(tmp_path: Path) -> None:
    store = tmp_path / "shared" / "store.sqlite"
    search = SearchProcess("random_search", (), tmp_path / "search", ControlDir(tmp_path / "control"), store)
    store.parent.mkdir()
    for name in ("store.sqlite", "store.sqlite-wal", ".store.sqlite.x"):
        (store.parent / name).touch()
    problems = [problem for problem in checks.check_files(search) if "next to" in problem]
    assert set(problems) == {
        "unexpected store.sqlite-wal next to the store",
        "unexpected .store.sqlite.x next to the store",
    }


def test_invalid_store_is_detected(search: SearchProcess) -> None:
    change_store(search, "UPDATE evaluations SET valid_accuracy = 7 WHERE rowid = 1")
    problems = checks.verify_store(search)
    assert problems[0] == "exit status 1"
    assert any("valid_accuracy is 7" in problem for problem in problems)
    search.store.write_bytes(b"not a store")
    assert "restore a copy" in checks.run_check(checks.find_leases, search)[0]


def test_wrong_curve_is_detected(search: SearchProcess) -> None:
    path = search.run_dir / "evaluations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert checks.check_curve(search) == ["step 4 is not in the trajectory"]
    path.write_text("".join([*lines, lines[-1].replace('"child": 4', '"child": 5')]))
    assert checks.check_curve(search) == ["step 5 is missing"]
    path.write_text("".join(lines))
    change_line(search, 3, reward=0.125)
    assert checks.check_curve(search)[0].startswith("step 3 is ")
    # A second writer without purge_step duplicates steps.
    from torch.utils.tensorboard import SummaryWriter

    change_line(search, 3, reward=json.loads(lines[2])["reward"])
    with SummaryWriter(str(search.run_dir)) as writer:
        writer.add_scalar(checks.CURVE, json.loads(lines[3])["reward"], NUM_CHILDREN)
    assert checks.check_curve(search) == ["step 4 occurs 2 times"]


def test_processes_are_identified_by_their_marker(search: SearchProcess, tmp_path: Path) -> None:
    other = SearchProcess("random_search", (), tmp_path / "other", search.control)
    environment = {**os.environ, MARKER_VARIABLE: search._marker}
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    with subprocess.Popen(sleep, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert checks.find_processes(search) == [f"process {process.pid} is still running"]
        assert checks.find_processes(other) == []
        other.kill_all()
        assert process.poll() is None
        search.kill_all()
        assert not psutil.pid_exists(process.pid)
    assert checks.find_processes(search) == []


def test_fault_request_is_taken_once(tmp_path: Path) -> None:
    control = ControlDir(tmp_path)
    request = control.request("memory", "12")
    assert control.take_request() == ("memory", "12")
    assert not request.exists()
    assert control.take_request() is None
    control.request("print")
    assert ControlDir(tmp_path).take_request() == ("print", "")


def test_only_held_children_wait(tmp_path: Path) -> None:
    control = ControlDir(tmp_path)
    control.hold(("a", "bc"))
    assert [control.is_held(key) for key in ("a", "b", "bc")] == [True, False, True]
    control.hold(())
    assert not control.is_held("a")


def test_children_inject_requested_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv(CONTROL_DIR_VARIABLE, str(tmp_path))
    control, space = ControlDir(tmp_path), ToySpace()
    child = space.sample(np.random.default_rng(0))
    control.request("raise")
    with pytest.raises(RuntimeError, match="raised by a fault request"):
        space.query(child)
    accuracy = space.query(child)
    assert 0 < accuracy < 1
    assert space.query(space.architecture(space.canonicalize(child.decisions))) == accuracy
    assert [(entry.event, entry.key) for entry in control.entries()] == [
        (event, child.key) for event in ("started", "started", "completed", "started", "completed")
    ]
    assert {entry.pid for entry in control.entries()} == {os.getpid()}
    control.request("exit")
    assert run_forked(partial(inject_requested_fault, control), folder=tmp_path).returncode == 3
    control.request("print")
    inject_requested_fault(control)
    assert len(capfdbinary.readouterr().out) >= 65536
    assert control.take_request() is None


def test_trained_child_is_completed_when_its_network_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTROL_DIR_VARIABLE, str(tmp_path))
    space = TrainedSpace()
    child = space.sample(np.random.default_rng(0))
    network = space.build(child, NetworkSettings(1, 2), num_classes=3, image_shape=(1, 8, 8))
    assert [entry.event for entry in ControlDir(tmp_path).entries()] == ["started"]
    del network
    assert [entry.event for entry in ControlDir(tmp_path).entries()] == ["started", "completed"]


def test_schedule_contains_the_requested_events_in_order() -> None:
    schedule = draw_schedule(np.random.default_rng(0), max_children=9, num_kills=20, num_faults=5, max_pause=0.5)
    assert Counter(event.kind for event in schedule) == {SEARCH_KILL: 20, **dict.fromkeys(FAULTS, 5)}
    due = [event.num_children for event in schedule]
    assert due == sorted(due)
    assert 0 <= due[0] <= due[-1] <= 9
    assert len(set(due)) > 5
    startup = [index for index, event in enumerate(schedule) if event.during_startup]
    assert 0 < len(startup) < 20
    for index in startup:  # directly after another kill
        assert schedule[index].kind == schedule[index - 1].kind == SEARCH_KILL
    assert all(0 <= event.pause <= 0.5 for event in schedule if not event.during_startup)
    again = draw_schedule(np.random.default_rng(0), max_children=9, num_kills=20, num_faults=5, max_pause=0.5)
    assert again == schedule
    assert set(FAULT_REQUESTS) < set(FAULTS)
    assert first_occurrences(["a", "b", "a", "c", "b"]) == [0, 1, 3]


def test_injector_reports_a_search_that_exits(tmp_path: Path) -> None:
    search = SearchProcess("random_search", ("--budget", "0"), tmp_path / "search", ControlDir(tmp_path / "control"))
    injector = FaultInjector(search, ["a", "b"], num_ahead=1, memory=0, rng=np.random.default_rng(0))
    schedule = draw_schedule(np.random.default_rng(0), max_children=1, num_kills=0, num_faults=1, max_pause=0.0)
    with pytest.raises(SearchFailed, match=r"exited with status 2 after 0 children; see .*output.log"):
        injector.run(schedule)
    assert "--budget must be at least 1" in search.output.read_text()


@pytest.mark.parametrize(
    "options", [{"toy_children": 1}, {"num_kills": -1}, {"num_workers": 0}, {"num_rounds": 0}, {"campaigns": ()}]
)
def test_out_of_range_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')}"):
        Args(**options)


def test_existing_work_dir_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists; pass a new directory"):
        Args(work_dir=tmp_path)


def reduce_work() -> None:
    """Train with few images, calibrate embeddings with few samples, and draw little in this process, which saves seconds."""
    patch = pytest.MonkeyPatch()
    reduce_children(patch)
    reduce_samples(patch)
    reuse_drawings(patch)
    space = get_search_space("enas_micro")
    drawing = visualization.draw(space, space.architecture((0,) * len(space.decision_sizes)), "")
    with tempfile.TemporaryDirectory() as folder:
        for name in BEST_DRAWINGS:  # the commands, which are forked, reuse these files
            visualization.save(drawing, Path(folder, name))


def test_concurrent_and_killed_commands_lose_nothing(tmp_path: Path) -> None:
    """Both campaigns run in one process, which imports what the commands need."""
    output = tmp_path / "output.json"
    benchmark = partial(runpy.run_module, "benchmarks.fault_injection", run_name="__main__", alter_sys=True)
    options = ("--num-rounds", "1", "--num-command-kills", "3", "--num-merged-rows", "30")
    paths = ("--output", str(output), "--work-dir", str(tmp_path / "work"))
    ended = run_forked(benchmark, "--campaigns", "concurrency", "kills", *options, *paths, folder=ROOT, prepare=reduce_work)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(output.read_text())
    assert metrics["passed"] is True
    campaigns = metrics["campaigns"]
    for campaign, num_checks in (("concurrency", 8), ("kills", 6)):
        assert all(check == {"passed": True, "problems": []} for check in campaigns[campaign]["checks"].values())
        assert len(campaigns[campaign]["checks"]) == num_checks
    assert campaigns["kills"]["counts"] == {"kills": 3, "train": 1, "merge": 1, "pretrain": 1}
    rounds = campaigns["concurrency"]["counts"]
    assert sum(rounds[name] for name in rounds.keys() - {"rounds", "refused"}) == NUM_PROCESSES
    for first, number in (("rounds", 1), ("kills", 3)):
        assert re.search(rf"^. {first} +. +{number} .$", ended.stdout, re.MULTILINE)


@pytest.fixture
def rounds(finished: Path, tmp_path: Path) -> concurrency.Campaign:
    """The campaign ``concurrency`` after a round, with two copies of a finished search."""
    files = concurrency.Files(tmp_path / "files")
    for run_dir in (files.run_dir, files.second):
        shutil.copytree(finished / "run", run_dir, ignore=shutil.ignore_patterns("*.sqlite"))
    shutil.copy(finished / "run" / "store.sqlite", files.store)
    config = json.loads((files.run_dir / "config.json").read_text())
    config["arguments"]["execution"]["store"] = str(files.store)
    (files.run_dir / "config.json").write_text(json.dumps(config))
    campaign = concurrency.Campaign(files, seed=0)
    campaign.remember()
    return campaign


def check_round(campaign: concurrency.Campaign) -> dict[str, list[str]]:
    """Return the problems of the last round by check."""
    campaign.check(NUM_CHILDREN - concurrency.FIRST_BUDGET, ())
    return {check: problems for check, problems in campaign.problems.items() if problems}


def test_round_of_concurrent_commands_without_problems_passes(rounds: concurrency.Campaign) -> None:
    assert check_round(rounds) == {}


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM evaluations WHERE rowid = 2", "is lost"),
        ("UPDATE evaluations SET seconds = 7.0 WHERE rowid = 2", "changed"),
    ],
)
def test_lost_and_changed_rows_are_detected(statement: str, problem: str, rounds: concurrency.Campaign) -> None:
    with closing(sqlite3.connect(rounds.files.store)) as store, store:
        store.execute(statement)
    assert check_round(rounds)["store"][0].endswith(problem)


def test_lost_children_leases_and_files_of_concurrent_commands_are_detected(rounds: concurrency.Campaign) -> None:
    trajectory = rounds.files.second / "evaluations.jsonl"
    trajectory.write_text("".join(trajectory.read_text().splitlines(keepends=True)[:-1]))
    (rounds.files.run_dir / ".best.json.x1y2.partial").touch()
    store = Store(rounds.files.store)
    assert store.acquire("some child", "digest", 0)
    store._db.close()
    problems = check_round(rounds)
    assert problems.keys() == {"trajectory", "leases", "leftovers"}
    assert len(problems["trajectory"]) == 2


def test_missing_seed_in_a_report_is_detected(rounds: concurrency.Campaign) -> None:
    (rounds.files.folder / "base-final" / "2").mkdir(parents=True)
    (rounds.files.folder / "base-final" / "2" / "report.json").write_text('{"seeds": [{"seed": 1}]}')
    rounds.check(2, {1})
    assert not rounds.problems["reports"]
    rounds.check(2, {0, 1})
    assert rounds.problems["reports"][0].endswith("has the seeds [1], not [0, 1]")


def test_command_may_fail_only_with_an_allowed_refusal(tmp_path: Path) -> None:
    command = ForkedCommand(("nases", "status", str(tmp_path / "run")), tmp_path, tmp_path, tmp_path)
    status = command.wait()
    assert status == 2
    assert describe_failure(command, status, ("is not a run directory",)) == []
    (problem,) = describe_failure(command, status, ("another search",))
    assert problem.startswith(f"nases status {tmp_path / 'run'}: status 2, error: ")
    assert describe_failure(command, 0) != []
    assert find_processes([command.session], 0) == []


def test_different_results_and_leftovers_of_a_killed_command_are_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "OPERATION_SHARE", 1.0)  # a command can end before it is killed at a random time
    make_stores(tmp_path / "inputs" / "stores", 30)
    (merge,) = (target for target in make_targets(tmp_path / "inputs") if target.name == "merge")
    campaign = kills.Campaign(tmp_path / "work", seed=0)
    assert sum(1 for _ in campaign.run(merge, 2)) == campaign.counts["merge"] == 2
    assert not any(campaign.problems.values())

    def leave_a_file(folder: Path) -> None:
        merge.prepare(folder)
        (folder / ".target.sqlite.x1y2.partial").touch()

    def count(folder: Path) -> dict[str, int]:
        return {"runs": len(list(folder.parent.iterdir()))}

    for _ in campaign.run(merge._replace(name="other", prepare=leave_a_file, results=count), 1):
        pass
    problems = {check: problems for check, problems in campaign.problems.items() if problems}
    assert problems == {
        "results": ["other 1: runs differs"],
        "leftovers": ["other 1: .target.sqlite.x1y2.partial was left in 1"],
    }


def test_kills_are_split_by_weight() -> None:
    targets = make_targets(Path("inputs"))
    assert split_kills(targets, 100) == {"train": 30, "merge": 30, "pretrain": 20, "reproduce": 20}
    assert sum(split_kills(targets, 7).values()) == 7
