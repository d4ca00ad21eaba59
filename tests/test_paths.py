"""Paths that cannot be read or written are errors of one line."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nases_env.cli import main as cli
from nases_env.errors import InputError
from nases_env.evaluation.training import SPLIT_CACHE
from nases_env.paths import absolute_path, cache_dir
from nases_env.search_spaces import get_search_space
from nases_env.seeding import numpy_generator
from nases_env.training.datasets import IMAGE_CACHE
from tests.commands import ROOT, error_of, run_here, script
from tests.processes import run_forked

LONG = "x" * 300
SEARCH = script(ROOT / "agents" / "random_search.py")
UNPRIVILEGED = 65534


def test_home_directories_are_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute_path("~/data") == tmp_path / "data"
    monkeypatch.setenv("NASES_CACHE_DIR", "~/cache")
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("NASES_CACHE_DIR")
    assert cache_dir() == tmp_path / ".cache" / "nases"


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--env-id", "NASES-FashionMNIST-v0", "--data-dir", "~nouser/x"), {}),
        (("--env-id", "NASES-FashionMNIST-v0"), {"NASES_DATA_DIR": "~nouser/x"}),
        (("--env-id", "NASES-NASBench201-v0", "--env-kwargs", "table", "~nouser/x"), {}),
    ],
)
def test_unknown_home_directory_is_one_line(
    options: tuple[str, ...], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "cannot find the home directory in ~nouser/x" in error_of(
        run_here(SEARCH, *options, "--run-dir", str(tmp_path / "run"))
    )


def test_missing_home_directory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NASES_CACHE_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(InputError, match=r"cannot find the home directory in ~/\.cache/nases"):
        cache_dir()


@pytest.mark.parametrize(
    "options",
    [
        ("status", LONG),
        ("train", LONG),
        ("predict", LONG, "x.png"),
        ("store", "ls", LONG),
        ("draw", LONG),
        ("validate", LONG),
    ],
    ids=lambda options: options[0],
)
def test_name_that_is_too_long_is_one_line(options: tuple[str, ...]) -> None:
    assert "File name too long" in error_of(run_here(cli.main, *options))


@pytest.mark.parametrize("options", [("--run-dir", LONG), ("--resume", LONG), ("--embedding", LONG), ("--store", LONG)])
def test_option_that_is_too_long_is_one_line(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--env-id", "NASES-Synthetic-v0", "--budget", "1")
    script_ = script(ROOT / "agents" / "reinforce.py") if "--embedding" in options else SEARCH
    assert "File name too long" in error_of(run_here(script_, *given, *options))


NOT_UTF8 = os.fsdecode(b"run\xff")


def test_run_directory_that_is_not_utf8_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--env-id", "NASES-Synthetic-v0", "--budget", "1", "--run-dir", NOT_UTF8)
    assert r"the name run\udcff is not UTF-8" in error_of(run_here(SEARCH, *options))
    assert list(tmp_path.iterdir()) == []


def test_other_files_may_have_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (Path(NOT_UTF8) / folder).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16, 16), (9 * number, 0, 0)).save(Path(NOT_UTF8) / folder / f"{NOT_UTF8}{number}.png")
    data = ("--env-id", "NASES-ImageFolder-v0", "--data-dir", NOT_UTF8)
    given = ("--preset", "smoke", "--budget", "1", "--num-finalists", "0")
    result = run_here(SEARCH, *data, *given, "--run-dir", "run", "--store", f"{NOT_UTF8}.sqlite")
    assert result.returncode == 0, result.stderr
    assert Path(f"{NOT_UTF8}.sqlite").exists()
    assert run_here(cli.main, "draw", "run/best.json", "--output", f"{NOT_UTF8}.png").returncode == 0
    Path("run/best.json").rename(f"{NOT_UTF8}.json")
    assert run_here(cli.main, "draw", f"{NOT_UTF8}.json", "--output", "best.png").returncode == 0
    message = error_of(run_here(cli.main, "train", "run", "--output", f"final-{NOT_UTF8}"))
    assert r"the name final-run\udcff is not UTF-8" in message
    IMAGE_CACHE.clear()
    SPLIT_CACHE.clear()
    (Path(NOT_UTF8) / "train" / "cat").rename(Path(NOT_UTF8) / "train" / NOT_UTF8)
    message = error_of(run_here(SEARCH, *data, *given, "--run-dir", "other"))
    assert r"/train/run\udcff is not UTF-8; rename the directory" in message


def test_removed_working_directory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    message = error_of(run_here(SEARCH, "--env-id", "NASES-Synthetic-v0", "--budget", "1", "--run-dir", "run"))
    assert "No such file or directory" in message


def test_architecture_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    space = get_search_space("enas_micro")
    path.write_text(space.to_json(space.sample(numpy_generator(0, "test"))), encoding="utf-8-sig")
    assert run_here(cli.main, "draw", str(path)).stdout.startswith("normal cell")


def run_as_another_user() -> None:
    """Run commands as a user who may not read the modules, and print status, lines and kind of their errors."""
    for name in ("cli.status", "cli.train", "cli.validate", "cli.draw", "model_io"):
        importlib.import_module(f"nases_env.{name}")
    os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    folders = ("--env-id", "NASES-ImageFolder-v0", "--data-dir", "images", "--run-dir", "new")
    trainings = ("train", "run"), ("train", "file.json", "--dataset", "digits")
    others = ("status", "run"), ("validate", "run"), ("draw", "file.json"), ("predict", "run", "x.png")
    commands: list[tuple[Callable[[], object], tuple[str, ...]]] = [(cli.main, words) for words in (*trainings, *others)]
    searches = ("--resume", "run"), ("--run-dir", "run/new"), folders
    for main, options in [*commands, *((SEARCH, words) for words in searches)]:
        result = run_here(main, *options)
        error = result.stderr
        print(result.returncode, error.count("\n"), "ermission denied" in error, *options, "|", error.strip())


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give up the permissions of root")
def test_directory_without_permission_is_one_line(tmp_path: Path) -> None:
    for name in ("run", "images/train/cat", "images/test/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file.json").write_text("{}")
    for path in (tmp_path / "run", tmp_path / "images" / "train" / "cat", tmp_path / "file.json"):
        path.chmod(0)
    tmp_path.chmod(0o755)
    variables = {"NASES_CACHE_DIR": str(tmp_path / "cache"), "MPLCONFIGDIR": "/tmp"}
    result = run_forked(run_as_another_user, folder=tmp_path, environment=variables)
    lines = result.stdout.splitlines()
    assert len(lines) == 9, result.stderr
    assert [line for line in lines if not line.startswith("2 1 True")] == []
