"""Repeat one input of the campaign ``fuzz``.

python -m benchmarks.fault_injection.fuzzing --number 12
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_injection.fuzzing.campaign import set_environment
from benchmarks.fault_injection.fuzzing.inputs import VIOLATIONS, run_input
from benchmarks.fault_injection.fuzzing.kinds import KINDS, draw_input, kind_of
from benchmarks.fault_injection.fuzzing.samples import make_samples
from nases_env.command_line import run_command
from nases_env.errors import InputError


@dataclass(frozen=True)
class Args:
    """Options of the command."""

    number: int
    """Number of the input."""
    kind: str | None = None
    """Kind of the input. Default: that of the campaign."""
    seed: int = 0
    """Seed of the campaign."""
    num_inputs: int = 1
    """Number of inputs, beginning with --number."""


def main(args: Args) -> None:
    """Repeat inputs of the campaign ``fuzz`` in this process and print what they result in."""
    if args.kind not in (None, *KINDS):
        raise InputError(f"unknown kind {args.kind!r}; known: {', '.join(KINDS)}")
    num_violations = 0
    with tempfile.TemporaryDirectory(prefix="nases-fuzz-") as name:
        folder = Path(name)
        set_environment(folder)
        make_samples(folder / "samples")
        for number in range(args.number, args.number + args.num_inputs):
            given = draw_input(args.kind or kind_of(number), args.seed, number, folder / "samples", folder / "input")
            report = run_input(given, folder / "input")
            num_violations += report.outcome in VIOLATIONS
            print(f"{number}: {given.text}\n{report.outcome}: {report.detail}".encode(errors="backslashreplace").decode())
    if num_violations:
        sys.exit(1)


if __name__ == "__main__":
    run_command(Args, main)
