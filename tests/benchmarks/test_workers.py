"""Jobs in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from benchmarks.common.workers import map_unordered
from nases_env.errors import InputError
from tests.processes import processes


def kill_this_process(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: processes)  # which saves the time of the imports
    with pytest.raises(InputError, match=r"a worker process was killed, .* run the command with fewer --num-proc"):
        list(map_unordered(kill_this_process, [0, 1], num_processes=2))
