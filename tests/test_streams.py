"""Standard streams that are closed, full, or cannot encode a character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from nases_env.cli import main as cli
from nases_env.search.run_dir import read_trajectory
from tests.commands import ROOT, script
from tests.processes import run_forked
from tests.redirections import close, to_file, to_reader_that_has_exited

AGENT = ROOT / "agents" / "random_search.py"
OPTIONS = ("--env-id", "NASES-Synthetic-v0", "--budget", "3")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    ascii_console = partial(to_file, "output", "ascii")
    result = run_forked(script(AGENT), *OPTIONS, "--run-dir", "run", folder=folder, prepare=ascii_console)
    assert result.returncode == 0, result.stderr
    output = (folder / "output").read_bytes()
    assert output.isascii()
    assert b"|------+" in output
    assert b"\\u" not in output
    return folder / "run"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_commands_write_what_the_console_can_encode(encoding: str, run_dir: Path, tmp_path: Path) -> None:
    output = b""
    console = partial(to_file, str(tmp_path / "output"), encoding)
    for options in ("--help", "store verify run/store.sqlite", "store ls run/store.sqlite", "draw run/best.json"):
        result = run_forked(cli.main, *options.split(), folder=run_dir.parent, prepare=console)
        assert result.returncode == 0, result.stderr
        output += (tmp_path / "output").read_bytes()
    assert b"\nok " in output
    assert b"\\u" not in output
    output.decode(encoding)


def test_name_that_is_not_utf8_is_escaped(run_dir: Path) -> None:
    name = os.fsdecode(b"run\xff")
    renamed = run_dir.rename(run_dir.with_name(name))
    result = run_forked(cli.main, "status", name, folder=run_dir.parent)
    renamed.rename(run_dir)
    assert result.returncode == 0
    assert r"run\udcff: random_search" in result.stdout


def test_search_continues_without_standard_output(tmp_path: Path) -> None:
    """Only one search is in a new interpreter, because that takes seconds."""
    search = f"{sys.executable} {AGENT} {' '.join(OPTIONS)} --run-dir all_closed"
    result = shell(f"{search} <&- >&- 2>&-", tmp_path)
    assert (result.returncode, result.stderr) == (0, b"")
    redirections = {"full": partial(to_file, "/dev/full"), "closed": close, "ended": to_reader_that_has_exited}
    errors = {}
    statuses = {}
    for name, redirection in redirections.items():
        ended = run_forked(script(AGENT), *OPTIONS, "--run-dir", name, folder=tmp_path, prepare=redirection)
        errors[name], statuses[name] = ended.stderr, ended.returncode
        assert "Traceback" not in ended.stderr
    assert statuses == {"full": 2, "closed": 0, "ended": 1}
    assert "error: cannot write to standard output: No space left on device" in errors["full"]
    for name in ("all_closed", *redirections):
        assert len(list(read_trajectory(tmp_path / name))) == 3
        assert "finished" in json.loads((tmp_path / name / "config.json").read_text())


def test_other_commands_end_at_once(run_dir: Path) -> None:
    full = run_forked(
        cli.main, "store", "verify", "run/store.sqlite", folder=run_dir.parent, prepare=partial(to_file, "/dev/full")
    )
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    ended = run_forked(
        cli.main, "store", "export", "run/store.sqlite", folder=run_dir.parent, prepare=to_reader_that_has_exited
    )
    assert ended.returncode == 1
    assert ended.stderr == ""


def test_unbuffered_output_stays_unbuffered_and_missing_descriptors_are_inherited(tmp_path: Path) -> None:
    code = "import os, sys; from nases_env import streams; streams.prepare()"
    check = "print(sys.stdout.write_through, os.get_inheritable(0), file=sys.stderr)"
    result = shell(f"{sys.executable} -u -c '{code}; {check}' <&-", tmp_path)
    assert result.stderr == b"True True\n"
