"""The states of the Slurm jobs of this user."""

from __future__ import annotations

import math
import subprocess
import threading
import time

READ_SECONDS = 30.0
"""Maximum age of a state; the jobs of all workers are read together."""

TIMEOUT_SECONDS = 30.0

ENDED_STATES = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
QUEUED_STATES = ("PENDING", "REQUEUED")
UNKNOWN = "UNKNOWN"


class SlurmQueue:
    """Reads states with ``squeue``, which also works on a cluster without accounting, where ``sacct`` does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, str] | None = {}
        self._time = -math.inf

    def state(self, job_id: str, max_age: float = READ_SECONDS) -> str | None:
        """Return the state of a job: None if Slurm no longer has it, ``UNKNOWN`` if ``squeue`` fails.

        Slurm keeps a job that has ended for a while, by default for five minutes.

        Args:
            job_id: the id of the job.
            max_age: maximum age of the state in seconds.
        """
        with self._lock:
            if time.monotonic() - self._time > max_age:
                self._states = _read_states()
                self._time = time.monotonic()
            return UNKNOWN if self._states is None else self._states.get(job_id)


def _read_states() -> dict[str, str] | None:
    """Return the states of the jobs of this user by id; None if Slurm does not answer."""
    command = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError):  # for example while the controller restarts
        return None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
