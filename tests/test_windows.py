"""What can be tested of Windows on another system: the package works without the modules that Windows lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nases_env.command_line import PARENT_VARIABLE
from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, TrainingEvaluator
from nases_env.execution import ExecutionSettings
from nases_env.execution.factory import make_executor
from tests.commands import TIMEOUT_SECONDS

PROGRAM = """
import fcntl, os, signal, subprocess, sys, types, warnings
from pathlib import Path
import psutil  # its code for POSIX needs some of the modules

locks = types.ModuleType("msvcrt")  # a stand-in with the same functions, for files that are opened separately
locks.LK_NBLCK = 2

def locking(descriptor, mode, size, flock=fcntl.flock, flags=fcntl.LOCK_EX | fcntl.LOCK_NB):
    assert (mode, size, os.lseek(descriptor, 0, os.SEEK_CUR)) == (2, 1, 2**31 - 2)
    try:
        flock(descriptor, flags)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None

locks.locking = locking
sys.modules["msvcrt"] = locks
sys.modules.update(dict.fromkeys(["fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog"]))
for module, names in ((os, ["killpg", "getuid", "geteuid", "fork", "sched_getaffinity"]), (signal, ["SIGKILL", "SIGXFSZ"])):
    for name in names:
        delattr(module, name)
import nases_env.file_lock
del sys.modules["msvcrt"]  # other packages take it as a sign of Windows
os_open = os.open

def open_no_directory(path, flags, *mode, **options):
    if isinstance(path, Path) and path.is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return os_open(path, flags, *mode, **options)

os.open = open_no_directory
warnings.filterwarnings("error", category=EncodingWarning, module="nases_(env|agents)")

from nases_agents import random_search
from nases_env.cli import main as cli
from nases_env.cli.main import COMMANDS
from nases_env.errors import InputError
from nases_env.retraining import folder
from nases_env.search.run_dir import RunDir, is_locked

def command(main, *options):
    sys.argv = ["nases", *options]
    main()

def search():
    from nases_env.search import run_search
    run_search(random_search.Args, random_search.main)

small = ("--search-space", "nasbench201", "--child.num-train-images", "32", "--child.num-valid-images", "32")
command(search, "--preset", "smoke", *small, "--budget", "2", "--num-finalists", "0", "--run-dir", "run")
command(search, "--resume", "run", "--budget", "3")
first, second = RunDir(Path("run")), RunDir(Path("run"))
assert not is_locked(first.path)
first.lock()
assert is_locked(first.path)
try:
    second.lock()
except InputError as error:
    assert "another search is writing" in str(error)
else:
    raise AssertionError
command(cli.main, "status", "run")
first.close()
assert not is_locked(first.path)
command(cli.main, "train", "run", "--child.num-epochs", "1", "--child.num-train-images", "32")
with folder.locked_folder(Path("run/final/seed-0"), "busy", wait_seconds=0.0):
    (progress,) = folder.FinalFolder(Path("run/final")).progress()
    assert progress.is_running
(progress,) = folder.FinalFolder(Path("run/final")).progress()
assert not progress.is_running
command(cli.main, "status", "run/final")
"""


def test_search_and_final_training_run_without_posix_modules(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "warn_default_encoding", "-c", PROGRAM]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env={"HOME": str(tmp_path)}
    )
    assert result.returncode == 0, result.stderr
    assert "running" in result.stdout
    assert "1 of 1 seeds finished" in result.stdout


@pytest.mark.parametrize("name", ["processes", "ray", "slurm"])
def test_executor_that_needs_posix_is_refused_on_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")
    settings = ExecutionSettings(executor=name)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InputError, match=f"the executor {name} needs Linux or macOS; use the executor serial"):
        make_executor(evaluator, settings, max_in_flight=1, describe=str)


def test_agent_of_a_reproduction_runs_in_a_virtual_environment_of_windows() -> None:
    """There, python.exe of the environment is the parent of the agent, and the reproduction is the parent of python.exe."""
    code = "import sys, time; from nases_env.command_line import run; sys.platform = 'win32'; run(lambda: time.sleep(0.5))"
    environment = {**os.environ, PARENT_VARIABLE: str(os.getppid())}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=TIMEOUT_SECONDS).returncode == 0
