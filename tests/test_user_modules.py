"""Modules that files name are imported from installed packages and the working directory only, and by few commands."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nases_env.cli import main as cli
from nases_env.retraining import FinalFolder
from nases_env.retraining.report import write_report
from nases_env.retraining.search_record import read_search
from tests.commands import ROOT, error_of, run_here, script
from tests.training.images import write_image

SEARCH = script(ROOT / "agents" / "random_search.py")
MODULE = "recorded_space"
CODE = """
from pathlib import Path
from torch import nn
from nases_env.search_spaces import SearchSpace

with open(Path(__file__).with_suffix(".log"), "a") as log:
    log.write("imported\\n")

class Space(SearchSpace):
    name = "recorded"
    decision_sizes = (3, 2)

    def build(self, architecture, settings, *, num_classes, image_shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))
"""

COMMANDS: dict[str, tuple[Callable[[], object], tuple[str, ...], tuple[str, ...]]] = {
    "resume": (SEARCH, ("--resume",), ("--budget", "2")),
    "validate": (cli.main, ("validate",), ()),
    "report --latency": (cli.main, ("report", "--latency"), ()),
    "train": (cli.main, ("train",), ("--child.num-epochs", "1")),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the module of a custom search space, and the run directory of a search in it, ``run``."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / f"{MODULE}.py").write_text(CODE)
    options = ("--preset", "smoke", "--budget", "1", "--num-finalists", "0", "--search-space", f"{MODULE}:Space")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        result = run_here(SEARCH, *options, "--run-dir", "run")
    assert result.returncode == 0, result.stderr
    assert "importing" not in result.stderr  # the user named the module
    (folder / f"{MODULE}.log").unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of ``recorded``, which is the working directory but not on the path, as in a new process of ``nases``."""
    copied = tmp_path / "copied"
    shutil.copytree(recorded, copied)
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.invalidate_caches()
    before = set(sys.modules)
    sys.modules.pop(MODULE, None)
    yield copied
    for name in [name for name in sys.modules if name == MODULE or (name not in before and name.startswith("run."))]:
        del sys.modules[name]


def logs(folder: Path) -> list[Path]:
    """Return the logs of the modules that were imported."""
    return sorted(folder.parent.rglob("*.log"))


def change(run_dir: Path, name: str, value: object) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    config["arguments"][name] = value
    (run_dir / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("command", COMMANDS)
def test_file_in_the_working_directory_is_imported_and_printed(command: str, folder: Path) -> None:
    main, before, after = COMMANDS[command]
    result = run_here(main, *before, "run", *after)
    assert result.returncode == 0, result.stderr
    assert f"importing {folder / MODULE}.py, which run names\n" in result.stderr
    assert logs(folder) == [folder / f"{MODULE}.log"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("on_path", [False, True])
def test_file_in_the_run_directory_is_not_imported(
    on_path: bool, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, before, after = COMMANDS[command]
    (folder / f"{MODULE}.py").rename(folder / "run" / f"{MODULE}.py")
    monkeypatch.chdir(folder / "run")
    if on_path:
        monkeypatch.syspath_prepend(folder / "run")  # as with python -m
    message = error_of(run_here(main, *before, ".", *after))
    if on_path:
        assert f"{MODULE}.py may have been copied with it, so it is not imported; move it" in message
    else:
        assert f"there is no module {MODULE!r}, which . names; run this in its directory, or install it" in message
        assert str(folder / "run") not in sys.path
    assert logs(folder) == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["search_space", "env_id"])
def test_run_directory_is_not_a_package(name: str, command: str, folder: Path) -> None:
    """A directory without ``__init__.py`` is a package as well, so ``run.recorded_space`` would be found."""
    main, before, after = COMMANDS[command]
    (folder / f"{MODULE}.py").rename(folder / "run" / f"{MODULE}.py")
    change(folder / "run", "search_space", None)
    change(folder / "run", name, f"run.{MODULE}:{'Space' if name == 'search_space' else 'NASES-Digits-v0'}")
    message = error_of(run_here(main, *before, "run", *after))
    assert "may have been copied with it, so it is not imported; move it" in message
    assert logs(folder) == []


def test_linked_file_in_the_run_directory_is_not_imported(folder: Path) -> None:
    (folder / f"{MODULE}.py").rename(folder / "run" / f"{MODULE}.py")
    (folder / f"{MODULE}.py").symlink_to(folder / "run" / f"{MODULE}.py")
    assert "so it is not imported" in error_of(run_here(cli.main, "validate", "run"))
    assert logs(folder) == []


@pytest.mark.parametrize("is_package", [False, True])
def test_module_next_to_the_run_directory_is_not_imported(is_package: bool, folder: Path) -> None:
    """A copied directory may contain a run directory and modules."""
    (folder / "theirs").mkdir()
    (folder / "run").rename(folder / "theirs" / "run")
    (folder / f"{MODULE}.py").rename(folder / "theirs" / f"{MODULE}.py")
    if is_package:
        (folder / "theirs" / "__init__.py").touch()
    change(folder / "theirs" / "run", "search_space", f"theirs.{MODULE}:Space")
    assert "so it is not imported" in error_of(run_here(cli.main, "validate", "theirs/run"))
    assert logs(folder) == []


def test_installed_module_is_imported_and_the_run_directory_is_not_searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = folder.parent / "installed"
    installed.mkdir()
    (folder / f"{MODULE}.py").rename(installed / f"{MODULE}.py")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(folder / "run")
    result = run_here(cli.main, "validate", ".")
    assert result.returncode == 0, result.stderr
    assert f"importing {installed / MODULE}.py, which . names\n" in result.stderr
    assert str(folder / "run") not in sys.path


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import absent_library", "fails when it is imported (ModuleNotFoundError: No module named 'absent_library')"),
        ("raise RuntimeError('two\\nlines')", "fails when it is imported (RuntimeError: two lines)"),
        ("from nases_env.errors import InputError\nraise InputError('fix it')", "fix it"),
    ],
)
def test_error_of_the_module_is_one_line(code: str, message: str, folder: Path) -> None:
    (folder / f"{MODULE}.py").write_text(code)
    assert message in run_here(cli.main, "validate", "run").stderr.splitlines()[-1]


@pytest.mark.parametrize("name", [".recorded_space:NASES-Digits-v0", "a/b:NASES-Digits-v0", "a:b:NASES-Digits-v0"])
def test_name_that_is_not_a_module_is_one_line(name: str, folder: Path) -> None:
    change(folder / "run", "env_id", name)
    assert "which is not a valid name" in error_of(run_here(cli.main, "validate", "run"))


def test_status_report_and_model_import_nothing(folder: Path) -> None:
    assert run_here(cli.main, "train", "run", "--child.num-epochs", "1").returncode == 0
    (folder / f"{MODULE}.log").unlink()
    del sys.modules[MODULE]
    change(folder / "run", "env_id", f"{MODULE}:NASES-Digits-v0")
    write_image(folder / "image.png")
    for shown in ("run", "run/final"):
        assert run_here(cli.main, "status", shown).returncode == 0
    assert run_here(cli.main, "store", "verify", "run/store.sqlite").returncode == 0
    write_report(FinalFolder(folder / "run" / "final"), read_search(folder / "run"))
    for command in (("predict", "run", "image.png"), ("export", "run")):
        assert "uses the custom search space 'recorded'; pass it as MODULE:CLASS" in error_of(run_here(cli.main, *command))
    (folder / "best.json").write_text(json.dumps({"search_space": f"{MODULE}:Space", "decisions": [0, 0]}))
    error_of(run_here(cli.main, "draw", "best.json"))
    error_of(run_here(cli.main, "train", "best.json", "--dataset", "digits"))
    assert MODULE not in sys.modules
    assert logs(folder) == []


@pytest.mark.parametrize(("executor", "option"), [("ray", "ray_address"), ("slurm", "slurm_options")])
def test_options_that_select_other_machines_are_not_taken_from_a_run(executor: str, option: str, folder: Path) -> None:
    config = json.loads((folder / "run" / "config.json").read_text())
    execution = {**config["arguments"]["execution"], "executor": executor, option: "partition=gpu"}
    change(folder / "run", "execution", execution)
    message = error_of(run_here(SEARCH, "--resume", "run", "--budget", "2"))
    assert f"--{option.replace('_', '-')} was partition=gpu in run; check it and pass it again" in message
    assert logs(folder) == []
    assert run_here(SEARCH, "--resume", "run", "--budget", "2", "--executor", "serial").returncode == 0


def test_installed_module_below_the_working_directory_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the parent directory of a project that contains its virtual environment and its runs."""
    (folder / "project" / "packages").mkdir(parents=True)
    (folder / "run").rename(folder / "project" / "run")
    (folder / f"{MODULE}.py").rename(folder / "project" / "packages" / f"{MODULE}.py")
    monkeypatch.syspath_prepend(folder / "project" / "packages")
    result = run_here(cli.main, "validate", "project/run")
    assert result.returncode == 0, result.stderr
    assert logs(folder) != []
