"""Jobs in worker processes."""

from __future__ import annotations

import os
import signal

import pytest

from benchmarks.common.workers import map_unordered
from nases_env.errors import InputError


def kill_this_process(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("forked_processes")
def test_killed_worker_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"a worker process was killed, .* run the command with fewer --num-proc"):
        list(map_unordered(kill_this_process, [0, 1], num_processes=2))
