"""A damaged file gives a result or an error of one line, never a traceback, and no file is changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.fault_injection.fuzzing.mutations import mutate_bytes, mutate_file, mutate_record, mutate_store
from nases_env.cli import main as cli
from nases_env.errors import InputError
from nases_env.retraining import FinalFolder
from nases_env.retraining.plan import make_plan
from nases_env.retraining.plan_args import ReproduceArgs
from nases_env.retraining.protocol_report import write_protocol_report
from nases_env.retraining.report import write_report
from nases_env.safetensors_file import save_tensors
from tests.commands import ROOT, error_of, run_here, script

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
    for number in range(NUM_MUTATIONS):
        (copied / name).write_bytes(mutate_file(original, rng))
        before = contents(copied)
        if name == "best.json":
            statuses.append(check(cli.main, "draw", str(copied / name)))
        else:
            statuses.append(check(cli.main, "status", str(copied)))
            statuses.append(check(cli.main, "validate", str(copied)))
        assert contents(copied) == before
        if name != "best.json" and number % 2 == 0:  # slower, because it draws the best child
            statuses.append(check(SEARCH, "--resume", str(copied), "--budget", "5"))
            assert statuses[-1] != 2 or contents(copied) == before
            shutil.rmtree(copied)
            shutil.copytree(run_dir, copied)
    assert 2 in statuses, "no mutation was noticed"


def test_damaged_store(run_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    statuses = []
    commands = [("ls",), ("verify",), ("export",), ("show", "enas_micro:0")]
    for _ in range(NUM_MUTATIONS):
        store = tmp_path / "store.sqlite"
        shutil.copy(run_dir / "store.sqlite", store)
        mutate_store(store, rng)
        before = store.read_bytes()
        statuses += [check(cli.main, "store", command[0], str(store), *command[1:]) for command in commands]
        assert store.read_bytes() == before
        statuses.append(check(cli.main, "store", "merge", str(tmp_path / "target.sqlite"), str(store)))
        for path in tmp_path.iterdir():
            path.unlink()
    assert {1, 2} <= set(statuses)


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


@pytest.mark.parametrize("with_digest", [False, True])
def test_damaged_tensors(with_digest: bool, trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = (trained / "seed-0" / "model.safetensors").read_bytes()
    embedding = (ROOT / "nases_env" / "embedding" / "weights" / "enas_micro.safetensors").read_bytes()
    file = tmp_path / "damaged.safetensors"
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    search = (
        "--env-id",
        "NASES-Synthetic-v0",
        "--budget",
        "1",
        "--run-dir",
        str(tmp_path / "run"),
        "--embedding",
        str(file),
    )
    for _ in range(NUM_MUTATIONS // 2):
        file.write_bytes(mutate_record(model, "model", rng) if with_digest else mutate_bytes(model, rng))
        assert check(cli.main, "predict", str(file), str(image)) == 2 or with_digest
        file.write_bytes(mutate_record(embedding, "embedding", rng) if with_digest else mutate_bytes(embedding, rng))
        assert check(script(ROOT / "agents" / "reinforce.py"), *search) == 2 or with_digest
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_damaged_checkpoint(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    copied = tmp_path / "final"
    shutil.copytree(trained, copied)
    (copied / "seed-0" / "result.json").unlink()
    checkpoint = copied / "seed-0" / "checkpoint.safetensors"
    values = {"seconds": 1.0, "curve": [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5}]}
    save_tensors(checkpoint, "checkpoint", {"fingerprint": "", "values": values}, {"a": torch.ones(3), "b": torch.ones(2)})
    original = checkpoint.read_bytes()
    for _ in range(NUM_MUTATIONS):
        checkpoint.write_bytes(mutate_record(original, "checkpoint", rng))
        assert check(cli.main, "status", str(copied)) == 0


def test_damaged_reproduction(run_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shutil.copytree(run_dir, tmp_path / "seed-0" / "random_search")
    config = json.dumps({"preset": "smoke", "env_id": "NASES-Digits-v0", "agents": ["random_search"]}).encode()
    for _ in range(NUM_MUTATIONS):
        (tmp_path / "config.json").write_bytes(mutate_file(config, rng))
        check(cli.main, "status", str(tmp_path))
        assert check(cli.main, "reproduce", "--preset", "smoke", "--dry-run", "--output", str(tmp_path)) == 2


def test_options_may_be_infinite(tmp_path: Path) -> None:
    options = ("--budget", "1", "--checkpoint-interval", "inf", "--seed", str(10**30))
    assert check(SEARCH, "--env-id", "NASES-Synthetic-v0", "--run-dir", str(tmp_path / "run"), *options) == 0
    assert check(SEARCH, "--resume", str(tmp_path / "run"), "--budget", "2") == 0
    assert check(cli.main, "status", str(tmp_path / "run")) == 0


def test_search_that_cannot_be_resumed_keeps_its_files(run_dir: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied)
    config = json.loads((copied / "config.json").read_text())
    config["arguments"]["execution"]["executor"] = "other"
    (copied / "config.json").write_text(json.dumps(config))
    before = contents(copied)
    assert check(SEARCH, "--resume", str(copied), "--budget", "5") == 2
    assert contents(copied) == before


def test_damaged_metrics_of_an_embedding_are_reported(tmp_path: Path) -> None:
    plan = make_plan(ReproduceArgs(preset="smoke", output=tmp_path, seeds=1))
    file = tmp_path / "seed-0" / "embedding.json"
    file.parent.mkdir()
    for text in ('{"num_unique": 1}', "[]", "{", '{"reconstruction_accuracy": 1e999}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"embedding\.json .*remove it to pretrain the embedding again"):
            write_protocol_report(plan)


def test_report_escapes_what_cannot_be_encoded(trained: Path, run_dir: Path, tmp_path: Path) -> None:
    copied = tmp_path / "final"
    shutil.copytree(trained, copied)
    result = json.loads((copied / "seed-0" / "result.json").read_text())
    (copied / "seed-0" / "result.json").write_text(json.dumps({**result, "device": "\udc80"}))
    write_report(FinalFolder(copied), None)
    assert "\\udc80" in (copied / "report.md").read_text()


def test_store_without_a_table_is_rejected_before_a_search(run_dir: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied)
    database = sqlite3.connect(copied / "store.sqlite")
    database.execute("DROP TABLE leases")
    database.close()
    before = contents(copied)
    result = run_here(SEARCH, "--resume", str(copied), "--budget", "5")
    assert "store.sqlite is not a valid store (its table leases is missing" in error_of(result)
    assert contents(copied) == before
