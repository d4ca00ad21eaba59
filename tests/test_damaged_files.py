"""A damaged file gives a result or an error of one line, never a traceback, and no file is changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nases_env.cli import main as cli
from nases_env.execution.store.schema import COLUMNS
from tests.commands import ROOT, run_here, script
from tests.mutations import VALUES, mutate_bytes, mutate_file

NUM_MUTATIONS = int(os.environ.get("NASES_NUM_MUTATIONS", "12"))  # per file
SEARCH = script(ROOT / "agents" / "random_search.py")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "run"
    options = (
        "--env-id",
        "tests.search.rungs:ToyRungs-v0",
        "--rungs",
        "1,3",
        "--reduction-factor",
        "2",
        "--num-finalists",
        "2",
    )
    assert run_here(SEARCH, *options, "--budget", "4", "--run-dir", str(path)).returncode == 0
    return path


@pytest.fixture(autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty directory, because a damaged path may be relative to it."""
    monkeypatch.chdir(tmp_path_factory.mktemp("working"))


def check(main: Callable[[], object], *options: str) -> int:
    """Run a command; any exception except for ``SystemExit`` fails the test."""
    result = run_here(main, *options)
    assert result.returncode in (0, 1, 2), result.stderr
    if result.returncode == 2:
        errors = [line for line in result.stderr.splitlines() if "children in" not in line]  # without the progress
        assert len(errors) == 1, result.stderr
        assert errors[0].startswith("error: "), result.stderr
    return result.returncode


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".jsonl")}


@pytest.mark.parametrize("name", ["config.json", "evaluations.jsonl", "finalists.json", "best.json"])
def test_damaged_run_directory(name: str, run_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(name))
    original = (run_dir / name).read_bytes()
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied)
    statuses = []
    for _ in range(NUM_MUTATIONS):
        (copied / name).write_bytes(mutate_file(original, rng))
        before = contents(copied)
        if name == "best.json":
            statuses.append(check(cli.main, "draw", str(copied / name)))
        else:
            statuses.append(check(cli.main, "status", str(copied)))
            statuses.append(check(cli.main, "validate", str(copied)))
        assert contents(copied) == before
        if name != "best.json":
            statuses.append(check(SEARCH, "--resume", str(copied), "--budget", "5"))
            shutil.rmtree(copied)
            shutil.copytree(run_dir, copied)
    assert 2 in statuses, "no mutation was noticed"


def test_damaged_store(run_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    statuses = []
    commands = [("ls",), ("verify",), ("export",), ("show", "enas_micro")]
    for number in range(NUM_MUTATIONS):
        store = tmp_path / "store.sqlite"
        shutil.copy(run_dir / "store.sqlite", store)
        if number % 3 == 0:
            store.write_bytes(mutate_bytes(store.read_bytes(), rng))
        else:
            column = COLUMNS[rng.integers(len(COLUMNS))]
            value = VALUES[rng.integers(len(VALUES))]
            value = value if isinstance(value, (str, int, float)) and value != 10**30 else b"\xff"
            with sqlite3.connect(store) as database:
                try:
                    database.execute(f"UPDATE evaluations SET {column} = ? WHERE rowid = 1", (value,))
                except sqlite3.IntegrityError:  # the key of another row
                    continue
            database.close()
        statuses += [check(cli.main, "store", command[0], str(store), *command[1:]) for command in commands]
        statuses.append(check(cli.main, "store", "merge", str(tmp_path / "target.sqlite"), str(store)))
        for path in tmp_path.iterdir():
            path.unlink()
    assert 1 in statuses


@pytest.mark.parametrize("name", ["config.json", "genotype.json", "seed-0/result.json"])
def test_damaged_final_training(name: str, trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(name))
    copied = tmp_path / "final"
    for _ in range(NUM_MUTATIONS):
        shutil.copytree(trained, copied)
        (copied / name).write_bytes(mutate_file((copied / name).read_bytes(), rng))
        check(cli.main, "status", str(copied))
        if name == "genotype.json":
            check(cli.main, "draw", str(copied / name))
        shutil.rmtree(copied)


@pytest.fixture(scope="module")
def trained(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a final training."""
    path = tmp_path_factory.mktemp("trained") / "final"
    options = ("--dataset", "digits", "--preset", "smoke", "--child.num-epochs", "1", "--output", str(path))
    assert run_here(cli.main, "train", str(run_dir / "best.json"), *options).returncode == 0
    return path


def test_damaged_tensors(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    original = (trained / "seed-0" / "model.safetensors").read_bytes()
    model = tmp_path / "model.safetensors"
    for _ in range(NUM_MUTATIONS):
        model.write_bytes(mutate_bytes(original, rng))
        assert check(cli.main, "predict", str(model), str(tmp_path / "image.png")) == 2
        given = ("--env-id", "NASES-Synthetic-v0", "--budget", "1", "--embedding", str(model))
        assert check(script(ROOT / "agents" / "reinforce.py"), *given) == 2
