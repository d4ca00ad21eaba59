"""Every agent proposes the architectures that it proposed when ``trajectories.json`` was recorded.

The file holds the first 8 hexadecimal digits of the SHA-256 of each key, in order, for seed 0 and the default options.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.commands import ROOT, run_here, script

TRAJECTORIES: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "trajectories.json").read_text())
DATA_DIR = os.environ.get("NASES_DATA_DIR")
SB3_ALGORITHMS = ("ppo", "a2c", "sac", "td3")


def keys_of(agent: str, run_dir: Path, *options: str) -> list[str]:
    is_sb3 = agent in SB3_ALGORITHMS
    program = ROOT / "agents" / ("sb3.py" if is_sb3 else f"{agent}.py")
    algorithm = ("--algorithm", agent) if is_sb3 else ()
    result = run_here(script(program), *algorithm, *options, "--run-dir", str(run_dir))
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    return [hashlib.sha256(record["key"].encode()).hexdigest()[:8] for record in records]


@pytest.mark.parametrize("agent", TRAJECTORIES)
def test_on_digits(agent: str, tmp_path: Path) -> None:
    recorded = TRAJECTORIES[agent]["NASES-Digits-v0"].split()
    options = ("--env-id", "NASES-Digits-v0", "--preset", "smoke", "--budget", str(len(recorded)))
    assert keys_of(agent, tmp_path / "run", *options) == recorded


@pytest.mark.skipif(DATA_DIR is None, reason="NASES_DATA_DIR is not set; it must contain the NAS-Bench-201 table")
@pytest.mark.parametrize("agent", TRAJECTORIES)
def test_on_nasbench201(agent: str, tmp_path: Path) -> None:
    recorded = TRAJECTORIES[agent]["NASES-NASBench201-v0"].split()
    options = ("--env-id", "NASES-NASBench201-v0", "--data-dir", str(DATA_DIR), "--budget", str(len(recorded)))
    assert keys_of(agent, tmp_path / "run", *options) == recorded
