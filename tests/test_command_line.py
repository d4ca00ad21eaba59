"""Commands report input errors in one line, and print errors of threads."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import threading
from dataclasses import dataclass, field
from typing import Literal

import pytest
import tyro
from tensorboard.summary.writer.event_file_writer import _AsyncWriter

from nases_env import command_line
from nases_env.command_line import parse_quietly, run, run_command
from nases_env.errors import InputError
from nases_env.streams import OutputStream
from tests.commands import ROOT, error_of, run_here, script


@dataclass
class Args:
    num_envs: int = 1


def fail(args: Args) -> None:
    """Test command."""
    raise InputError(f"wrong number {args.num_envs}")


@dataclass
class Limits:
    seconds: float = 1.0
    """Seconds
    in total."""


@dataclass
class ManyArgs:
    path: tyro.conf.Positional[str]
    num_envs: int = 1
    """Number of concurrent evaluations. The agent receives results in the order of its proposals, so the search does not
    depend on timing."""
    device: str | None = None
    """Torch device.
    Default: the GPU."""
    memory: float | None = None
    """GiB of a worker."""
    init: Literal["simulator", "random"] = "simulator"
    """Initial weights."""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)


@dataclass
class NumberArgs:
    """Options with numbers."""

    num_envs: int = 1
    sizes: tuple[int, ...] = ()
    seed: int = 0
    limits: Limits = field(default_factory=Limits)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "missing from command: STR; --help lists the options"),
        (("x", "--num-envs", "two"), "--num-envs: 'two' is not an integer; --help lists the options"),
        (("x", "--seconds", "long"), "--seconds: 'long' is not a number; --help lists the options"),
        (("x", "--memory", "all"), "--memory: 'all' is not {None}|FLOAT; --help lists the options"),
        (("x", "--init", "no"), "--init: 'no' is not one of 'simulator', 'random'; --help lists the options"),
        (("x", "--num-envs"), "--num-envs: a value is missing; --help lists the options"),
        (("x", "y"), "unexpected argument 'y'; --help lists the arguments"),
        (("x", "--second", "1"), "unknown option '--second' (did you mean '--seconds'?); --help lists the options"),
        (("--second", "1", "x"), "unknown option '--second' (did you mean '--seconds'?); --help lists the options"),
        (("--second",), "unknown option '--second' (did you mean '--seconds'?); --help lists the options"),
        (("--seconds", "1"), "missing from command: STR; --help lists the options"),
    ],
)
def test_wrong_argument_is_a_one_line_error(options: tuple[str, ...], message: str) -> None:
    def main(args: ManyArgs) -> None:
        raise AssertionError("called")

    assert error_of(run_here(lambda: run_command(ManyArgs, main), *options)) == f"error: {message}"


def test_colors_and_wrapped_lines_of_a_message_are_removed() -> None:
    box = (
        "╭─ \x1b[31mValue error\x1b[0m ────────────╮\n│ Error parsing --a: could not  │\n│ convert string to float: 'x'  │\n"
        "│ ───────────────────────────── │\n│ Argument helptext:            │\n╰───────────────────────────────╯\n"
    )
    assert command_line._reword(box) == "--a: 'x' is not a number"


def test_help_has_no_line_breaks_of_the_source_and_one_default_per_option() -> None:
    def main(args: ManyArgs) -> None:
        """Do nothing."""

    shown = run_here(lambda: run_command(ManyArgs, main), "--help").stdout
    words = " ".join(line.strip("│ ") for line in shown.splitlines())
    assert "so the search does not depend on timing. (default: 1)" in " ".join(words.split())
    assert "so the search does not │" not in " ".join(shown.split())
    assert "Seconds in total. (default: 1.0)" in words
    assert "Torch device. Default: the GPU. " in words
    assert "Default: the GPU. (default" not in words
    assert "GiB of a worker. (default: None)" in words
    assert run_here(lambda: run_command(ManyArgs, main), "x", "--num-envs", "3", "--help").stdout == shown


def test_closed_standard_output_exits_with_status_1() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)

    def main() -> None:
        with OutputStream(open(write_end, "wb")) as out, contextlib.redirect_stdout(out):
            run(lambda: print("a line"))

    result = run_here(main)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (InputError("wrong"), 2, "error: wrong"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(1), 2, "error: cannot write"),
    ],
)
def test_full_standard_output_does_not_hide_another_error(raised: BaseException, status: int, message: str) -> None:
    def fail() -> None:
        print("a line")
        raise raised

    def main() -> None:
        with OutputStream(open("/dev/full", "wb")) as out, contextlib.redirect_stdout(out):
            run(fail)

    result = run_here(main)
    assert result.returncode == status
    assert result.stderr.partition(" to standard output")[0].strip() == message


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device; check the working directory"),
        (OSError(errno.EACCES, "Permission denied", b"a\xff"), "error: cannot access a\\udcff: Permission denied;"),
        (MemoryError("Unable to allocate 6 EiB"), "error: not enough memory (Unable to allocate 6 EiB); decrease sizes"),
        (RuntimeError("Storage size calculation overflowed"), "error: not enough memory (Storage size"),
        (InputError("two\nlines \x1b[31m"), r"error: two lines \x1b[31m"),
    ],
)
def test_error_of_the_machine_is_one_line(raised: Exception, message: str) -> None:
    def main() -> None:
        raise raised

    assert error_of(run_here(lambda: run(main))).startswith(message)


def test_other_runtime_errors_are_not_hidden() -> None:
    def main() -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        run_here(lambda: run(main))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-envs", "1" + "0" * 30), f"--num-envs: 1{19 * '0'}... is too large"),
        (("--num-envs", str(2**60)), f"--num-envs: {2**60} is too large"),
        (("--sizes", "1", str(-(2**60))), f"--sizes: {-(2**60)} is too large"),
        (("--limits.seconds", "nan"), "--limits.seconds: nan is not a number"),
        (("--limits.seconds", "1e300"), "--limits.seconds: 1e+300 is too large"),
        (("--limits.seconds", "-1e-300"), "--limits.seconds: -1e-300 is too small"),
    ],
)
def test_number_that_would_overflow_is_one_line(options: tuple[str, ...], message: str) -> None:
    def main(args: NumberArgs) -> None:
        raise AssertionError("called")

    assert (
        error_of(run_here(lambda: run_command(NumberArgs, main), *options)) == f"error: {message}; --help lists the options"
    )


def test_other_numbers_are_accepted() -> None:
    parsed: list[NumberArgs] = []
    options = ("--num-envs", "٣", "--sizes", "1_0", "--limits.seconds", "inf", "--seed", "1" + "0" * 30)
    assert run_here(lambda: run_command(NumberArgs, parsed.append), *options).returncode == 0
    assert parsed == [NumberArgs(num_envs=3, sizes=(10,), seed=10**30, limits=Limits(math.inf))]


def test_other_broken_pipes_are_not_hidden() -> None:
    def main() -> None:
        raise BrokenPipeError("a worker exited")

    with pytest.raises(BrokenPipeError, match="a worker exited"):
        run_here(lambda: run(main))


@pytest.mark.parametrize("parent", ["abc", "-1", "", "9" * 5000])
def test_parent_that_is_not_a_process_id_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    monkeypatch.setenv(command_line.PARENT_VARIABLE, parent)
    result = run_here(lambda: run(lambda: print("ran")))
    assert (result.returncode, result.stdout) == (2, "")
    assert "NASES_PARENT must be the id of a process, not '" in error_of(result)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
@pytest.mark.parametrize(("action", "status"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)])
def test_closed_terminal_interrupts_unless_it_is_ignored(action: signal.Handlers, status: int) -> None:
    before = signal.signal(signal.SIGHUP, action)
    try:
        assert run_here(lambda: run(lambda: signal.raise_signal(signal.SIGHUP))).returncode == status
    finally:
        signal.signal(signal.SIGHUP, before)


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


def test_options_are_parsed_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_quietly(Args, ["--help", "--num-envs", "3"], Args()) == Args(3)
    assert parse_quietly(Args, ["--num-envs", "many"], Args()) is None
    assert parse_quietly(Args, ["--num-env", "3"], Args()) is None
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_short_help_explains_the_essential_options_and_names_the_others() -> None:
    run_agent = script(ROOT / "agents" / "reinforce.py")
    shown = run_here(run_agent, "--help").stdout
    assert len(shown.splitlines()) <= 40
    assert "--budget INT" in shown
    assert "Other options; --help-all explains all:" in shown
    for name in ("--learning-rate", "--num-finalists", "--executor", "num-epochs"):
        assert shown.count(name) == 1, name
    explained = run_here(run_agent, "--help-all").stdout
    assert "--learning-rate FLOAT" in explained
    assert "--child.num-epochs INT" in explained
    assert "Other options" not in explained
