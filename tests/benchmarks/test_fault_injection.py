"""The campaign of faults: a small one passes, and each of its checks fails where what it checks is not so."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.fault_injection import checks
from benchmarks.fault_injection.__main__ import CAMPAIGNS, Args, main
from benchmarks.fault_injection.control_dir import FOLDER_VARIABLE, TOKENS, FaultFolder
from benchmarks.fault_injection.faulty_spaces import ToySpace, TrainedSpace
from benchmarks.fault_injection.injector import (
    FAULTS,
    SEARCH_KILL,
    SearchFailed,
    Tormentor,
    draw_schedule,
    first_occurrences,
)
from benchmarks.fault_injection.search_process import MARKER_VARIABLE, SearchProcess
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.networks import NetworkSettings
from nases_env.search import SearchArgs, SearchRun
from tests.commands import ROOT, run_benchmark

NUM_CHILDREN = 4


def test_a_tormented_search_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    """The second kill of this seed meets the search while it starts."""
    output, num_children, num_kills = tmp_path / "out" / "figures.json", 8, 2
    options = ("--num-kills", str(num_kills), "--num-faults", "1", "--seed", "4", "--toy-children", str(num_children))
    places = ("--work-dir", "work", "--output", str(output))
    run_benchmark("fault_injection", ("--campaigns", "toy", *options, *places), tmp_path)
    figures = json.loads(output.read_text())
    assert figures["passed"] is True
    assert figures["settings"]["num_kills"] == num_kills
    check_tormented(figures["campaigns"]["toy"], num_children, num_kills, tmp_path / "work" / "toy")
    assert not _left(tmp_path)


def test_two_searches_on_one_store_share_the_work(tmp_path: Path) -> None:
    output, campaigns = tmp_path / "figures.json", CAMPAIGNS[2:]
    options: dict[str, Any] = {"toy_children": 8, "digits_children": 2, "num_workers": 1}
    main(Args(campaigns=campaigns, work_dir=tmp_path / "work", output=output, **options))
    figures = json.loads(output.read_text())
    assert figures["passed"] is True
    for name in campaigns:
        shared = figures["campaigns"][name]
        assert all(check == {"passed": True, "problems": []} for check in shared["checks"].values())
        assert len(shared["checks"]) == 9
        assert shared["counts"] == {"repeated_evaluations": 0}
    assert not _left(tmp_path)


def test_a_tormented_search_that_trains_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    options: dict[str, Any] = {"num_kills": 1, "num_faults": 1, "digits_children": 4}
    main(Args(campaigns=("digits",), work_dir=tmp_path / "work", output=output, **options))
    figures = json.loads(output.read_text())
    assert figures["passed"] is True
    check_tormented(figures["campaigns"]["digits"], 4, 1, tmp_path / "work" / "digits")
    assert not _left(tmp_path)


def check_tormented(figures: dict[str, Any], num_children: int, num_kills: int, folder: Path) -> None:
    assert all(check == {"passed": True, "problems": []} for check in figures["checks"].values())
    assert len(figures["checks"]) == 9
    done = {SEARCH_KILL: num_kills, "resume": num_kills, **dict.fromkeys(FAULTS, 1)}
    assert figures["counts"].items() >= done.items()
    assert figures["children"] == num_children
    run_dir = folder / "tormented" / "run"
    assert len((run_dir / "evaluations.jsonl").read_text().splitlines()) == num_children
    assert json.loads((run_dir / "config.json").read_text())["num_known"] < num_children  # it was gone on with
    assert set(figures["failed_attempts"]) == set(checks.REASONS)


def _left(folder: Path) -> list[int]:
    """Processes that have to do with a campaign in ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:
            continue
        if f"{FOLDER_VARIABLE}={folder}".encode() in environment:
            found.append(int(path.parent.name))
    return found


def test_a_search_that_ends_by_itself_fails_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fault_campaign.MEMORY_LIMIT_GIB", -1.0)  # which a search refuses
    output = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as ended:
        main(Args(campaigns=("toy",), toy_children=2, work_dir=tmp_path / "work", output=output))
    assert ended.value.code == 1
    figures = json.loads(output.read_text())
    assert figures["passed"] is False
    problems = figures["campaigns"]["toy"]["checks"]["the undisturbed search ends"]["problems"]
    assert "ended by itself with status 2" in problems[0]
    assert "✘ toy: the undisturbed search ends" in capsys.readouterr().out


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended as it should, without a process."""
    folder = tmp_path_factory.mktemp("ended")
    faults = FaultFolder(folder / "faults")
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=NUM_CHILDREN, run_dir=folder / "run")
    with SearchRun(args, agent="random_search") as recorded:
        rng = np.random.default_rng(0)
        while not recorded.loop.done:
            (evaluation,) = recorded.loop.evaluate_all([recorded.env.search_space.sample(rng)])
            faults.note("completed", evaluation.key)
    return folder


@pytest.fixture
def search(ended: Path, tmp_path: Path) -> SearchProcess:
    """A search with these files."""
    shutil.copytree(ended / "faults", tmp_path / "faults")
    search = SearchProcess("random_search", (), tmp_path / "search", FaultFolder(tmp_path / "faults"))
    shutil.copytree(ended / "run", search.run_dir)
    return search


def copy_of(search: SearchProcess, folder: Path) -> SearchProcess:
    """Another search with the same files."""
    copy = SearchProcess("random_search", (), folder, search.faults)
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


def test_nothing_is_wrong_with_a_search_that_has_ended_as_it_should(search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_line(copy, 2, seconds=9.0, device="cuda")
    assert checks.trajectory_differs(copy, search) == []
    assert checks.store_differs(copy, search) == []
    assert checks.store_lacks(search) == []
    assert checks.completions_differ(search, 0) == []
    assert not any(checks.check_alone(copy).values())


def test_another_trajectory_is_found(search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_line(copy, 2, reward=0.125)
    assert [problem.partition(" is ")[0] for problem in checks.trajectory_differs(copy, search)] == ["child 2: reward"]
    path = copy.run_dir / "evaluations.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "3 children, not 4" in checks.trajectory_differs(copy, search)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE evaluations SET valid_accuracy = 0.875 WHERE rowid = 2", "0.875"),
        ("UPDATE evaluations SET curve = '[1]' WHERE rowid = 2", "[1]"),
        ("DELETE FROM evaluations WHERE rowid = 2", "is missing"),
        ("UPDATE evaluations SET key = 'other' WHERE rowid = 2", "is not one of the search"),
    ],
)
def test_another_store_is_found(statement: str, found: str, search: SearchProcess, tmp_path: Path) -> None:
    copy = copy_of(search, tmp_path / "copy")
    change_store(copy, statement)
    assert any(found in problem for problem in checks.store_differs(copy, search))
    assert bool(checks.store_lacks(copy)) == ("is" in found.split())


def test_repeated_lost_and_foreign_evaluations_are_found(search: SearchProcess) -> None:
    key = keys_of(search)[1]
    search.faults.note("completed", key)
    assert checks.num_repeated(search) == 1
    assert checks.completions_differ(search, 1) == []
    assert checks.completions_differ(search, 0) == ["1 completed evaluations were repeated; at most 0 can have been lost"]
    search.faults.note("completed", "other")
    assert checks.completions_differ(search, 1) == ["other was completed and is not in the store"]
    (search.faults.path / "log").unlink()
    assert len(checks.completions_differ(search, 1)) == NUM_CHILDREN


def test_a_claim_that_is_left_is_found(search: SearchProcess) -> None:
    store = Store(search.store)
    assert store.acquire("some child", "digest", 0)
    assert [problem.partition(" leases ")[2] for problem in checks.claims_left(search)] == ["some child"]
    store.close()
    assert checks.claims_left(search) == []


def test_files_that_are_left_or_missing_are_found(search: SearchProcess) -> None:
    left = [".best.json.x1y2", "store.sqlite-wal", "checkpoints/child.safetensors", "logs/.x", "core"]
    for name in left:
        (search.run_dir / name).parent.mkdir(exist_ok=True)
        (search.run_dir / name).touch()
    (search.run_dir / "best.png").unlink()
    (search.temporary_dir / "tmpx").mkdir()
    assert set(checks.files_left(search)) == {
        *(f"{name} is left in the run folder" for name in (*left, "checkpoints")),
        "best.png is missing in the run folder",
        "tmpx is left among the temporary files",
    }


def test_files_beside_a_shared_store_are_found(tmp_path: Path) -> None:
    store = tmp_path / "shared" / "store.sqlite"
    search = SearchProcess("random_search", (), tmp_path / "search", FaultFolder(tmp_path / "faults"), store)
    store.parent.mkdir()
    for name in ("store.sqlite", "store.sqlite-wal", ".store.sqlite.x"):
        (store.parent / name).touch()
    problems = [problem for problem in checks.files_left(search) if "beside" in problem]
    assert set(problems) == {"store.sqlite-wal is left beside the store", ".store.sqlite.x is left beside the store"}


def test_a_store_that_cannot_be_is_found(search: SearchProcess) -> None:
    change_store(search, "UPDATE evaluations SET valid_accuracy = 7 WHERE rowid = 1")
    problems = checks.store_is_wrong(search)
    assert problems[0] == "status 1"
    assert any("valid_accuracy is 7" in problem for problem in problems)
    search.store.write_bytes(b"no store")
    assert "restore a copy" in checks.find(checks.claims_left, search)[0]


def test_a_curve_with_other_steps_is_found(search: SearchProcess) -> None:
    path = search.run_dir / "evaluations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert checks.curve_differs(search) == ["step 4 is no child"]
    path.write_text("".join([*lines, lines[-1].replace('"child": 4', '"child": 5')]))
    assert checks.curve_differs(search) == ["step 5 is missing"]
    path.write_text("".join(lines))
    change_line(search, 3, reward=0.125)
    assert checks.curve_differs(search)[0].startswith("step 3 is ")
    # A second writer without purge_step writes the steps again.
    from torch.utils.tensorboard import SummaryWriter

    change_line(search, 3, reward=json.loads(lines[2])["reward"])
    with SummaryWriter(str(search.run_dir)) as writer:
        writer.add_scalar(checks.CURVE, json.loads(lines[3])["reward"], NUM_CHILDREN)
    assert checks.curve_differs(search) == ["step 4 is there 2 times"]


def test_processes_are_known_by_their_mark(search: SearchProcess, tmp_path: Path) -> None:
    other = SearchProcess("random_search", (), tmp_path / "other", search.faults)
    environment = {**os.environ, MARKER_VARIABLE: search._marker}
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    with subprocess.Popen(sleep, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert checks.processes_left(search) == [f"process {process.pid} runs"]
        assert checks.processes_left(other) == []
        other.end()
        assert process.poll() is None
        search.end()
        assert not psutil.pid_exists(process.pid)
    assert checks.processes_left(search) == []


def test_each_token_is_taken_once(tmp_path: Path) -> None:
    folder = FaultFolder(tmp_path)
    token = folder.put("memory", "12")
    assert folder.take() == ("memory", "12")
    assert not token.exists()
    assert folder.take() is None
    folder.put("print")
    assert FaultFolder(tmp_path).take() == ("print", "")
    folder.hold(("a", "bc"))
    assert [folder.is_held(key) for key in ("a", "b", "bc")] == [True, False, True]
    folder.hold(())
    assert not folder.is_held("a")


def test_children_do_what_tokens_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    folder, space = FaultFolder(tmp_path), ToySpace()
    child = space.sample(np.random.default_rng(0))
    folder.put("raise")
    with pytest.raises(RuntimeError, match="raised by a token"):
        space.query(child)
    accuracy = space.query(child)
    assert 0 < accuracy < 1
    assert space.query(space.architecture(space.canonicalize(child.decisions))) == accuracy
    assert [(entry.what, entry.key) for entry in folder.entries()] == [
        (what, child.key) for what in ("begun", "begun", "completed", "begun", "completed")
    ]
    assert {entry.pid for entry in folder.entries()} == {os.getpid()}
    code = "import sys; from faults.spaces import *; follow(FaultFolder(Path(sys.argv[1])))"
    for fault, status in (("exit", 3), ("print", 0)):
        folder.put(fault)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, check=False
        )
        assert ended.returncode == status
    assert len(ended.stdout) >= 65536
    assert folder.take() is None


def test_a_trained_child_is_completed_when_its_network_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    space = TrainedSpace()
    child = space.sample(np.random.default_rng(0))
    network = space.build(child, NetworkSettings(1, 2), num_classes=3, image_shape=(1, 8, 8))
    assert [entry.what for entry in FaultFolder(tmp_path).entries()] == ["begun"]
    del network
    assert [entry.what for entry in FaultFolder(tmp_path).entries()] == ["begun", "completed"]


def test_a_schedule_has_what_was_asked_for_in_order() -> None:
    schedule = draw_schedule(np.random.default_rng(0), max_children=9, num_kills=20, num_faults=5, max_pause=0.5)
    assert Counter(event.what for event in schedule) == {SEARCH_KILL: 20, **dict.fromkeys(FAULTS, 5)}
    due = [event.num_children for event in schedule]
    assert due == sorted(due)
    assert 0 <= due[0] <= due[-1] <= 9
    assert len(set(due)) > 5
    starting = [index for index, event in enumerate(schedule) if event.while_starting]
    assert 0 < len(starting) < 20
    for index in starting:  # right after another kill
        assert schedule[index].what == schedule[index - 1].what == SEARCH_KILL
    assert all(0 <= event.pause <= 0.5 for event in schedule if not event.while_starting)
    again = draw_schedule(np.random.default_rng(0), max_children=9, num_kills=20, num_faults=5, max_pause=0.5)
    assert again == schedule
    assert set(TOKENS) < set(FAULTS)
    assert first_occurrences(["a", "b", "a", "c", "b"]) == [0, 1, 3]


def test_a_search_that_ends_while_it_is_tormented_is_noticed(tmp_path: Path) -> None:
    search = SearchProcess("random_search", ("--budget", "0"), tmp_path / "search", FaultFolder(tmp_path / "faults"))
    tormentor = Tormentor(search, ["a", "b"], num_ahead=1, memory=0, rng=np.random.default_rng(0))
    schedule = draw_schedule(np.random.default_rng(0), max_children=1, num_kills=0, num_faults=1, max_pause=0.0)
    with pytest.raises(SearchFailed, match=r"ended by itself with status 2 after 0 children; see .*output.log"):
        tormentor.run(schedule)
    assert "--budget must be at least 1" in search.output.read_text()


@pytest.mark.parametrize("options", [{"toy_children": 1}, {"num_kills": -1}, {"num_workers": 0}, {"campaigns": ()}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')}"):
        Args(**options)


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists; name a new folder"):
        Args(work_dir=tmp_path)
