"""Argument parsing and exit status of all commands."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import gc
import io
import math
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from nases_env import streams
from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.escaping import printable
from nases_env.signals import INTERRUPTS
from nases_env.streams import OutputError
from nases_env.units import MAX_NUMBER

Args = TypeVar("Args")

REWORDED_ERRORS = {
    r"Error parsing (\S+): ": r"\1: ",
    r"Missing value for argument \W*(--[\w.-]+)\W.*": r"\1: a value is missing",
    r"Invalid choice (.*) for argument '(.*?)'. Expected one of \((.*)\)": r"\2: \1 is not one of \3",
    r"no type matching (\S+) could be instantiated from \[(.*?)\]\..*": r"\2 is not \1",
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not an integer",
    r"could not convert string to float: (.*)": r"\1 is not a number",
}
"""Replacements in tyro's error messages, as regular expressions."""

MISSING_ARGUMENT = re.compile("missing value for argument '")
"""The reworded message of tyro for a positional argument that is missing, or in whose place there is an option."""

MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    errno.ENOENT,  # the working directory was removed, or there is no temporary directory
)
"""Errors of the operating system without a file name that are not errors of the program."""

MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
"""Parts of the messages of torch when it cannot allocate a tensor."""

MAX_REASON, MAX_DIGITS = 200, 20  # characters of a message and of a number in it

MIN_FLOAT, MAX_FLOAT = 2.0**-100, 2.0**100  # float32 numbers that can still be multiplied

PARENT_VARIABLE = "NASES_PARENT"
"""Environment variable with the id of the process that started this command; the command exits when that process ends."""

PARENT_POLL_SECONDS = 0.1

EXIT_STATUSES = {
    0: "success",
    1: "a check failed or results differ; an internal error; the reader of the output has exited",
    2: "invalid input, a damaged file, or missing resources: one line on standard error says what to do",
    130: "interrupted by Ctrl-C, SIGTERM or SIGHUP",
}
"""Meaning of the exit status of every command and agent."""

HELP, HELP_ALL = frozenset(("-h", "--help")), "--help-all"
MAX_HELP_WIDTH = 100
SENTENCE_END = re.compile(r"; |(?<=\.) ")

ANSI_CODE = re.compile(r"\x1b\[[\d;]*m")  # colors of a terminal


def run_command(args_type: type[Args], main: Callable[[Args], None]) -> None:
    """Parse the command line into the dataclass ``args_type`` and call ``main``, whose docstring begins the help text."""
    run(lambda: main(parse(args_type, description=main.__doc__)))


def run(main: Callable[[], None]) -> None:
    """Call ``main`` as the main function of this process.

    An ``InputError``, or an error with a file of the user or the resources of the machine, is printed to standard error as
    one line; the exit status is then 2. An interrupt exits with status 130; SIGTERM and SIGHUP have the same effect as
    Ctrl-C, unless they are ignored, as by ``nohup``. The exit status is 1 if standard output is a pipe whose reader, such as
    ``head``, has exited.
    """
    streams.prepare()
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is not None and not (parent.isdecimal() and len(parent) <= MAX_DIGITS):
        _exit_with(f"{PARENT_VARIABLE} must be the id of a process, not {parent!r}; unset this environment variable")
    if parent is not None and sys.platform != "win32":  # there, python.exe of a virtual environment starts another process
        threading.Thread(target=_exit_with_parent, args=(int(parent),), daemon=True).start()
    gc.freeze()  # exempts the imported modules from garbage collection, which saves half a second, mostly at exit
    for number in INTERRUPTS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    threading.excepthook = _thread_excepthook
    try:
        with streams.checked_output():
            main()
    except OutputError as error:
        if error.reader_has_exited:
            sys.exit(1)
        _exit_with(error)
    except InputError as error:
        _exit_with(error)
    except OSError as error:
        if error.filename is not None:
            path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
            _exit_with(f"cannot access {path}: {error.strerror}; check the path and its permissions")
        if error.errno not in MACHINE_ERRORS:
            raise
        _exit_with(f"{error.strerror}; check the working directory and the resources of this machine, then try again")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_MESSAGES)):
            raise
        _exit_with(f"not enough memory ({textwrap.shorten(str(error), MAX_REASON)}); decrease sizes, such as the batch size")
    except KeyboardInterrupt:
        sys.exit(130)


def _exit_with_parent(parent: int) -> None:
    """Exit when the process ``parent`` has died. What was reported is on disk, as after a SIGKILL of this process."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


def _exit_with(error: object) -> NoReturn:
    print_error(error)
    sys.exit(2)


def print_error(error: object) -> None:
    """Print ``error`` to standard error as one line."""
    print(f"error: {printable(one_line(error))}", file=sys.stderr)


def parse(args_type: Any, *, args: Sequence[str] | None = None, essential: Collection[str] = (), **options: Any) -> Any:
    """Parse the command line into ``args_type``, a dataclass or a union of dataclasses.

    Args:
        args_type: the type of the result.
        args: the words of the command line; None: those of this process.
        essential: names of the options that ``--help`` explains; it lists the names of the others. ``--help-all`` explains
            all, and so does ``--help`` without this argument.
        **options: passed to ``tyro.cli``; with ``essential``, they contain ``default``.

    Raises:
        InputError: if an option is unknown, a value has the wrong type, or a required argument is missing.
    """
    given = sys.argv[1:] if args is None else args
    words = ["--help" if word == HELP_ALL else word for word in given]
    asks_for_help = not HELP.isdisjoint(words)
    is_short = asks_for_help and bool(essential) and HELP_ALL not in given
    if asks_for_help:  # tyro leaves positional arguments that are given out of the usage
        words = ["--help"] if dataclasses.is_dataclass(args_type) else [words[0], "--help"]
    registry = ConstructorRegistry()
    registry.struct_rule(_HelpRule(essential if is_short else None))
    with contextlib.redirect_stderr(io.StringIO()) as messages:
        try:
            parsed, unknown = tyro.cli(args_type, args=words, return_unknown_args=True, registry=registry, **options)
        except SystemExit as ended:
            if ended.code == 2:
                reason = _reword(messages.getvalue())
                if MISSING_ARGUMENT.match(reason):
                    # The words may have an option in its place. With another word there, an unknown option is the error.
                    first = 0 if dataclasses.is_dataclass(args_type) else 1
                    parse(args_type, args=[*words[:first], "x", *words[first:]], essential=essential, **options)
                raise InputError(f"{reason}; --help lists the options") from None
            if is_short:
                _print_other_options(options["default"], essential)
            raise
    sys.stderr.write(messages.getvalue())
    if unknown:
        word = unknown[0]
        if not word.startswith("-"):
            raise InputError(f"unexpected argument {word!r}; --help lists the arguments")
        known = [_flag(name) for name in _option_names(parsed)]
        raise InputError(f"unknown option {word!r}{did_you_mean(word, known)}; --help lists the options")
    for name, value in _option_values(parsed):
        _require_representable(name, value)
    return parsed


def _print_other_options(default: Any, essential: Collection[str]) -> None:
    """Print the names of the options that are not ``essential``: of the base class, of its subclasses, and of each group."""
    base = next(each for each in reversed(type(default).__mro__) if dataclasses.is_dataclass(each))
    base_names = {field.name for field in dataclasses.fields(base)}
    groups: dict[str, list[str]] = {"search": [], "agent": []}
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            flags = [_flag(name) for name in _option_names(value) if name not in essential]
            if _has_no_prefix(type(default), field.name):
                groups[field.name] = flags
            else:
                groups[f"{_flag(field.name)}.NAME"] = [flag.removeprefix("--") for flag in flags]
        elif field.name not in essential:
            groups["search" if field.name in base_names else "agent"].append(_flag(field.name))
    print(f"\nOther options; {HELP_ALL} explains all:")
    width = min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH)
    for group, flags in groups.items():
        if flags:
            text = f"{group}: {' '.join(flags)}"
            print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def _require_representable(name: str, value: Any) -> None:
    """Raise ``InputError`` if a number, alone or in a collection, is NaN or would overflow. A seed may be any integer."""
    if isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            _require_representable(name, each)
        return
    if isinstance(value, float):
        is_valid = value == 0 or math.isinf(value) or MIN_FLOAT <= abs(value) <= MAX_FLOAT
    else:
        is_valid = not isinstance(value, int) or abs(value) <= MAX_NUMBER or name.split(".")[-1] == "seed"
    if not is_valid:
        problem = "is not a number" if value != value else f"is too {'small' if abs(value) < 1 else 'large'}"
        shown = str(value) if len(str(value)) <= MAX_DIGITS else f"{str(value)[:MAX_DIGITS]}..."
        raise InputError(f"{_flag(name)}: {shown} {problem}; --help lists the options")


def _reword(box: str) -> str:
    """Return the error message in a box drawn by tyro, as one line.

    It is between the title and a horizontal rule; lines that are indented by two levels repeat the help.
    """
    lines: list[str] = []
    for line in ANSI_CODE.sub("", box).splitlines()[1:]:
        text = line.strip("│")
        if not text.strip(" ─-╰╯"):  # a rule, or the end of the box
            if lines:
                break
        elif not text.startswith(9 * " "):
            lines.append(text)
    message = one_line(" ".join(lines))
    for pattern, replacement in REWORDED_ERRORS.items():
        message = re.sub(pattern, replacement, message, flags=re.IGNORECASE)
    return (message[:1].lower() + message[1:]).rstrip(".!")


class _HelpRule:
    """Change the help texts of dataclass fields: tyro keeps their line breaks and adds "(default: None)" to any text.

    Args:
        essential: names of the options to explain, by their first sentence; the others are hidden. None: explain all.
    """

    def __init__(self, essential: Collection[str] | None = None) -> None:
        self._essential = essential
        self._is_nested = False

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        if self._is_nested or not dataclasses.is_dataclass(info.type):
            return None
        self._is_nested = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)  # of tyro's own rule
        finally:
            self._is_nested = False
        assert isinstance(spec, StructConstructorSpec)
        return dataclasses.replace(spec, fields=tuple(map(self._tidy, spec.fields)))

    def _tidy(self, field: StructFieldSpec) -> StructFieldSpec:
        if self._essential is None:
            return _with_tidy_help(field)
        if field.name not in self._essential and not dataclasses.is_dataclass(field.default):
            suppress: Any = tyro.conf.Suppress
            return dataclasses.replace(field, type=suppress[field.type])
        return _with_tidy_help(field, is_short=True)


def _with_tidy_help(field: StructFieldSpec, is_short: bool = False) -> StructFieldSpec:
    def text() -> str | None:
        found = field.helptext() if callable(field.helptext) else field.helptext
        if not found:
            return found
        return SENTENCE_END.split(one_line(found), maxsplit=1)[0] if is_short else one_line(found)

    def hint(default: str) -> str:
        return "" if not default or "default:" in (text() or "").lower() else f"(default: {default})"

    has_value = field.default is not None and field.default != {}
    field_type: Any = field.type if has_value else Annotated[field.type, tyro.conf.arg(help_behavior_hint=hint)]
    return dataclasses.replace(field, type=field_type, helptext=text)


def unknown_command(program: str, name: str, commands: Collection[str]) -> InputError:
    """Return the error for a ``name`` that is not one of the ``commands`` of ``program``; an empty one is missing."""
    problem = f"unknown command {name!r}{did_you_mean(name, commands)}" if name else "no command given"
    return InputError(f"{problem}; the commands of {program} are {', '.join(commands)}")


def parse_quietly(args_type: type[Args], options: Sequence[str], default: Args) -> Args | None:
    """Parse ``options`` without ``--help``, to compute defaults of other options from them.

    Returns:
        The parsed options; None if they are not valid, so that ``parse`` raises an error or prints the help text.
    """
    given = [word for word in options if word not in (*HELP, HELP_ALL)]
    try:
        args: Args = parse(args_type, args=given, default=default)
    except InputError:
        return None
    return args


def given_preset(options: Sequence[str] | None) -> str | None:
    """Return the value of ``--preset`` in ``options``, which determines the defaults of other options; None if not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?")
    preset: str | None = parser.parse_known_args(options)[0].preset
    return preset


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option_names(args: Any) -> Iterator[str]:
    return (name for name, _ in _option_values(args))


def _option_values(args: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each option, including those of nested groups."""
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if not dataclasses.is_dataclass(value):
            yield prefix + field.name, value
        elif _has_no_prefix(type(args), field.name):
            yield from _option_values(value, prefix)
        else:
            yield from _option_values(value, f"{prefix}{field.name}.")


def _has_no_prefix(args_type: type[Any], group: str) -> bool:
    """Return whether the options of ``group`` are given without its name."""
    hint = get_type_hints(args_type, include_extras=True)[group]
    return tyro.conf.OmitArgPrefixes in getattr(hint, "__metadata__", ())


def _thread_excepthook(raised: threading.ExceptHookArgs) -> None:
    """Do not print an ``OSError`` of TensorBoard's writer thread: the writer raises it again in the main thread."""
    if not (issubclass(raised.exc_type, OSError) and type(raised.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(raised)
