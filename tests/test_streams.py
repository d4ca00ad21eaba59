"""Standard streams that are closed, full, or cannot encode a character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nases_env.search.run_dir import read_trajectory
from tests.commands import ROOT

SEARCH = f"{sys.executable} {ROOT / 'agents' / 'random_search.py'} --env-id NASES-Synthetic-v0 --budget 3"
NASES = str(Path(sys.executable).with_name("nases"))


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    result = shell(f"{SEARCH} --run-dir run", folder, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert b"|------+" in result.stdout
    assert b"\\u" not in result.stdout
    return folder / "run"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_commands_write_what_the_console_can_encode(encoding: str, run_dir: Path) -> None:
    code = """
import sys
from nases_env.cli.main import main
for options in ("--help", "store verify run/store.sqlite", "store ls run/store.sqlite", "draw run/best.json"):
    sys.argv = ["nases", *options.split()]
    main()
"""
    result = shell(f"{sys.executable} -c '{code}'", run_dir.parent, PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    assert b"\nok " in result.stdout
    assert b"\\u" not in result.stdout
    result.stdout.decode(encoding)


def test_name_that_is_not_utf8_is_escaped(run_dir: Path) -> None:
    result = shell(f"mv run $'run\\xff' && {NASES} status $'run\\xff'; mv $'run\\xff' run", run_dir.parent)
    assert result.returncode == 0
    assert b"run\\udcff: random_search" in result.stdout


def test_search_continues_without_standard_output(tmp_path: Path) -> None:
    commands = {
        "full": ">/dev/full",
        "closed": ">&-",
        "all_closed": "<&- >&- 2>&-",
        "ended": "| true",
    }
    script = "\n".join(
        f"{SEARCH} --run-dir {name} {redirection}; echo {name} ${{PIPESTATUS[0]}} >> statuses"
        for name, redirection in commands.items()
    )
    result = shell(script, tmp_path)
    assert b"Traceback" not in result.stderr
    statuses = dict(line.split() for line in (tmp_path / "statuses").read_text().splitlines())
    assert statuses.pop("ended") in ("0", "1")  # 0 if the output was written before the reader had exited
    assert statuses == {"full": "2", "closed": "0", "all_closed": "0"}
    assert b"error: cannot write to standard output: No space left on device" in result.stderr
    for name in commands:
        assert len(list(read_trajectory(tmp_path / name))) == 3
        assert "finished" in json.loads((tmp_path / name / "config.json").read_text())


def test_other_commands_end_at_once(run_dir: Path) -> None:
    full = shell(f"{NASES} store verify run/store.sqlite >/dev/full", run_dir.parent)
    assert full.returncode == 2
    assert full.stderr.decode().count("\n") == 1
    ended = shell(f"set -o pipefail; {NASES} store export run/store.sqlite | true", run_dir.parent)
    assert ended.returncode in (0, 1)
    assert ended.stderr == b""


def test_unbuffered_output_stays_unbuffered_and_missing_descriptors_are_inherited(tmp_path: Path) -> None:
    code = "import os, sys; from nases_env import streams; streams.prepare()"
    check = "print(sys.stdout.write_through, os.get_inheritable(0), file=sys.stderr)"
    result = shell(f"{sys.executable} -u -c '{code}; {check}' <&-", tmp_path)
    assert result.stderr == b"True True\n"
