"""Random inputs give a result or an error of one line, never a traceback, and files that are only read do not change.

``python -m benchmarks.fault_injection --campaigns fuzz`` runs more of these inputs, in processes that limit time and memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.fault_injection.fuzzing.inputs import VIOLATIONS, run_input
from benchmarks.fault_injection.fuzzing.kinds import KINDS, SHARES, draw_input
from benchmarks.fault_injection.fuzzing.samples import make_samples

SEED = 1
NUM_INPUTS = int(os.environ.get("NASES_NUM_FUZZ_INPUTS", "10"))  # for a share of 1


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "samples"
    make_samples(folder)
    return folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", KINDS)
def test_random_inputs_give_a_result_or_an_error_of_one_line(kind: str, samples: Path, tmp_path: Path) -> None:
    outcomes = set()
    for number in range(NUM_INPUTS * SHARES[kind]):
        given = draw_input(kind, SEED, number, samples, tmp_path / "input")
        report = run_input(given, tmp_path / "input")
        repeat = f"python -m benchmarks.fault_injection.fuzzing --kind '{kind}' --seed {SEED} --number {number}"
        assert report.outcome not in VIOLATIONS, f"{repeat}: {given.text}: {report.outcome}: {report.detail}"
        outcomes.add(report.outcome)
    assert "error" in outcomes, "no input was rejected"
