"""Commands report input errors in one line, and print errors of threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from tensorboard.summary.writer.event_file_writer import _AsyncWriter

from nases_env.command_line import run_command
from nases_env.errors import InputError
from tests.commands import error_of, run_here


@dataclass
class Args:
    num_envs: int = 1


def fail(args: Args) -> None:
    """Test command."""
    raise InputError(f"wrong number {args.num_envs}")


class FullDisk:
    def write(self, data: bytes) -> None:
        raise OSError("disk full")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_input_error_prints_one_line_and_exits_with_status_2() -> None:
    assert error_of(run_here(lambda: run_command(Args, fail), "--num-envs", "3")) == "error: wrong number 3"
    message = error_of(run_here(lambda: run_command(Args, fail), "--num-env", "3"))
    assert message == "error: unknown option '--num-env' (did you mean '--num-envs'?); --help lists the options"
    assert "Test command." in run_here(lambda: run_command(Args, fail), "--help").stdout


def test_interrupt_exits_with_status_130() -> None:
    def interrupt(args: Args) -> None:
        raise KeyboardInterrupt

    assert run_here(lambda: run_command(Args, interrupt)).returncode == 130


def test_only_os_errors_of_the_tensorboard_writer_are_not_printed() -> None:
    def write_to_full_disk(args: Args) -> None:
        writer = _AsyncWriter(FullDisk())
        writer.write(b"x")
        writer._worker.join()
        with pytest.raises(OSError, match="disk full"):
            writer.flush()

    def fail_in_thread(args: Args) -> None:
        def read() -> None:
            raise OSError("file is missing")

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()

    assert run_here(lambda: run_command(Args, write_to_full_disk)).stderr == ""
    assert "OSError: file is missing" in run_here(lambda: run_command(Args, fail_in_thread)).stderr
