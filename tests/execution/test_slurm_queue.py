"""The states of Slurm jobs, read from a program in place of ``squeue``."""

from __future__ import annotations

from pathlib import Path

import pytest

from nases_env.execution.slurm_queue import UNKNOWN, SlurmQueue

SQUEUE = """#!/bin/sh
cd "{folder}"
echo "$@" >> calls
[ -e states ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
cat states
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with the file ``states``, which the program prints, and the file ``calls``."""
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(SQUEUE.replace("{folder}", str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


def test_states_of_all_jobs_are_read_together(folder: Path) -> None:
    (folder / "states").write_text("7 RUNNING\n8 PENDING\n12 CANCELLED\n")
    queue = SlurmQueue()
    assert [queue.state(job) for job in ("7", "8", "12", "1")] == ["RUNNING", "PENDING", "CANCELLED", None]
    assert (folder / "calls").read_text() == "--me --noheader --states=all --format=%i %T\n"
    (folder / "states").write_text("")
    assert queue.state("7") == "RUNNING"
    assert queue.state("7", max_age=0) is None


def test_states_are_unknown_while_slurm_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SlurmQueue()
    assert queue.state("7") == UNKNOWN
    (folder / "states").write_text("7 RUNNING\n")
    assert queue.state("7", max_age=0) == "RUNNING"
    monkeypatch.setenv("PATH", str(folder))
    assert queue.state("7", max_age=0) == UNKNOWN
